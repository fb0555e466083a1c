"""Write what in the documentation comes from the program: ``python docs/generate.py``.

That is ``rules.md``, from the rules, and the outputs shown in ``README.md`` and ``guide.md``, from running the
commands named above them. With ``--check`` it only says whether ``rules.md`` is current.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
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


#: Pages that show what commands print.
SHOWN = (HERE.parent / "README.md", HERE / "guide.md")
_OUTPUT = re.compile(
    r"(<!-- output of: (initlint [^\n]*) -->\n```[a-z]*\n)(.*?)(```\n<!-- end of output -->)", re.DOTALL
)


def with_outputs(page: str) -> str:
    """The page with each output that it shows as the command prints it now."""
    return _OUTPUT.sub(lambda found: f"{found[1]}$ {found[2]}\n{output(found[2])}{found[4]}", page)


def output(command: str) -> str:
    """What the command prints, run in the root of the repository; how long it took is not part of it."""
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-m", *shlex.split(command), "--no-cache", "--isolated", "--color", "never"]
    done = subprocess.run(
        arguments, cwd=HERE.parent, env=environment, capture_output=True, encoding="utf-8", check=False
    )
    if done.returncode == 2:
        raise SystemExit(f"{command}: {done.stderr}{done.stdout}")
    return re.sub(r"(models?[^;()]*), \d[\d.]* s\)", r"\1, 1 s)", done.stdout)


def main() -> int:
    """Write the pages, or compare the rules."""
    page, target = render(rules()), HERE / "rules.md"
    if "--check" in sys.argv[1:]:
        current = target.exists() and target.read_text("utf-8") == page
        print("docs/rules.md is current" if current else "docs/rules.md is not current: run python docs/generate.py")
        return 0 if current else 1
    target.write_text(page, encoding="utf-8", newline="\n")
    for file in SHOWN:
        file.write_text(with_outputs(file.read_text("utf-8")), encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
