"""Write ``rules.md`` from the rules: ``python docs/generate.py``; with ``--check`` only say whether it is current."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from initlint import catalogue, pack_files  # noqa: E402
from initlint.catalogue import Description  # noqa: E402
from initlint.rule import FAMILIES  # noqa: E402

HEAD = """\
# Rules

Generated from the rules by `docs/generate.py`: the text of a rule is its docstring. `initlint rule IL101` prints one
of them, with its examples. Severities are ceilings: what a finding gets depends on what it costs the model
([guide](guide.md)).
"""


def rules() -> list[Description]:
    """All shipped rules, by code."""
    pack = pack_files.shipped()
    found: list[Description] = []
    for file in pack_files.rule_files(pack):
        described = catalogue.describe_file(file)
        if described is None:
            raise SystemExit(f"{file}: its rule cannot be read without running it")
        found += described
    return sorted(found, key=lambda rule: rule.code)


def render(known: list[Description]) -> str:
    """The whole page: one table for each family, then the text of each rule."""
    parts = [HEAD]
    for family in FAMILIES:
        members = [rule for rule in known if rule.family == family]
        if members:
            rows = [f"| [{r.code}](#{r.code.lower()}) | {r.name} | {r.severity} | {r.summary} |" for r in members]
            table = "\n".join(["| code | name | at most | what it finds |", "|---|---|---|---|", *rows])
            parts.append(f"## {family}\n\n{table}\n")
    parts += [_section(rule) for rule in known]
    return "\n".join(parts)


def _section(rule: Description) -> str:
    text = [f'## <a id="{rule.code.lower()}"></a>{rule.code} {rule.name}\n', f"{rule.summary}\n"]
    if rule.aliases:
        text.append(f"Also: {', '.join(rule.aliases)}.\n")
    text += [f"**{title}**\n\n{body.strip()}\n" for title, body in rule.sections.items() if body.strip()]
    if rule.sources:
        text.append("Sources: " + "; ".join(rule.sources) + ".\n")
    return "\n".join(text)


def main() -> int:
    """Write the page, or compare it."""
    page, target = render(rules()), HERE / "rules.md"
    if "--check" in sys.argv[1:]:
        current = target.exists() and target.read_text("utf-8") == page
        print("docs/rules.md is current" if current else "docs/rules.md is not current: run python docs/generate.py")
        return 0 if current else 1
    target.write_text(page, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
