"""Run initlint on the shared bugs and classics, and tabulate what is found.

    python benchmarks/bugs.py ../shared [--seeds 1] [--blind] [--only 027]

For each case: found on the buggy twin with the parameters of its ``meta.toml``, at its severity (or ``accept``),
at the right line; and what is reported at warning or above on the fixed twin. ``--blind`` first renames all classes,
attributes and variables of the cases mechanically (see ``blind.py``).
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

LEVELS = {"note": 1, "warning": 2, "error": 3}


def lint(files: list[Path], seed: int) -> dict[str, Any]:
    """The JSON of one run over all files."""
    command = [sys.executable, "-m", "initlint", *map(str, files), "--output-format", "json", "--no-cache"]
    command += ["--seed", str(seed), "--fail-on", "never", "--allow-unanalysed"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout.strip():
        raise SystemExit(f"initlint failed:\n{done.stderr}")
    return json.loads(done.stdout)


def of_file(result: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    """The findings whose model lives in this file."""
    return [f for f in result["findings"] if f["model"].split("::")[0].endswith("/".join(path.parts[-2:]))]


def matches(finding: dict[str, Any], wanted: list[str]) -> set[str]:
    """Which wanted parameters a finding names."""
    return {w for w in wanted if any(fnmatch.fnmatchcase(p, w) for p in finding["parameters"])}


def judge_bug(folder: Path, result: dict[str, Any], renamed: dict[str, str] | None = None) -> dict[str, Any]:
    """What was found of one case."""
    meta = tomllib.loads((folder / "meta.toml").read_text())
    wanted = [(renamed or {}).get(p, p) for p in meta["parameters"]]
    lowest = LEVELS[meta.get("accept", meta["severity"])]
    findings = of_file(result, folder / "buggy.py")
    covered: set[str] = set()
    hits = []
    for finding in findings:
        found = matches(finding, wanted)
        if found and LEVELS[finding["severity"]] >= lowest:
            covered |= found
            hits.append(finding)
    line = any(f["line"] == meta["line"] for f in hits)
    near = line or any(r["line"] == meta["line"] for f in hits for r in f["related"])
    fixed = [f for f in of_file(result, folder / "fixed.py") if LEVELS[f["severity"]] >= 2]
    return {
        "slug": meta["slug"],
        "severity": meta["severity"],
        "accept": meta.get("accept", meta["severity"]),
        "found": len(covered) == len(wanted),
        "partly": bool(covered),
        "line": line,
        "near": near,
        "codes": sorted({f"{f['code']}/{f['severity'][0]}@{f['line']}" for f in hits}),
        "all": sorted({f"{f['code']}/{f['severity'][0]}@{f['line']}" for f in findings}),
        "want_line": meta["line"],
        "fixed": sorted({f"{f['code']}/{f['severity'][0]}@{f['line']}" for f in fixed}),
        "fixed_same": any(matches(f, wanted) for f in fixed),
    }


def table(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        state = "found" if row["found"] else "part " if row["partly"] else "MISS "
        where = "line" if row["line"] else "near" if row["near"] else f"want {row['want_line']}"
        print(
            f"{row['slug']:42s} {row['severity'][:4]:4s}>={row['accept'][:4]:4s} {state} {where:9s} "
            f"{' '.join(row['codes']) or '[' + ' '.join(row['all']) + ']':38s} fixed: {' '.join(row['fixed']) or '-'}"
        )
    errors = [r for r in rows if r["severity"] == "error"]
    warnings = [r for r in rows if r["severity"] == "warning"]
    found = [r for r in rows if r["found"]]
    print(
        f"\nerrors found {sum(r['found'] for r in errors)}/{len(errors)}, warnings found "
        f"{sum(r['found'] for r in warnings)}/{len(warnings)}, right line {sum(r['line'] for r in found)}/{len(found)}, "
        f"fixed twins with another finding {sum(bool(r['fixed']) for r in rows)}/{len(rows)}, "
        f"with the same parameters {sum(r['fixed_same'] for r in rows)}"
    )


def classics(folder: Path, result: dict[str, Any]) -> None:
    """The twelve classics against expected.toml."""
    expected = tomllib.loads((folder / "expected.toml").read_text())
    good = 0
    for name, want in expected.items():
        findings = [f for f in result["findings"] if Path(f["model"].split("::")[0]).stem == name]
        loud = [f for f in findings if LEVELS[f["severity"]] >= 2]
        if want.get("silent"):
            fine = not loud
        else:
            lowest, highest = LEVELS[want["severity"]], LEVELS[want.get("max_severity", "error")]
            fine = all(
                any(
                    fnmatch.fnmatchcase(p, flag)
                    for f in findings
                    for p in f["parameters"]
                    if lowest <= LEVELS[f["severity"]] <= highest
                )
                for flag in want["flag"]
            ) and all(LEVELS[f["severity"]] <= highest for f in findings)
        good += fine
        print(
            f"{name:30s} {'ok  ' if fine else 'FAIL'} "
            + " ".join(f"{f['code']}/{f['severity'][0]}@{f['line']}({len(f['parameters'])})" for f in findings)
        )
    print(f"classics {good}/{len(expected)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--blind", action="store_true")
    arguments = parser.parse_args()
    folders = sorted(p.parent for p in (arguments.shared / "bugs").glob(f"{arguments.only}*/meta.toml"))
    names: dict[str, dict[str, str]] = {}
    scratch = tempfile.TemporaryDirectory()
    if arguments.blind:
        from blind import blind_case

        target = Path(scratch.name)
        names = {folder.name: blind_case(folder, target / folder.name) for folder in folders}
        folders = [target / folder.name for folder in folders]
    for seed in range(arguments.seeds):
        print(f"== seed {seed}")
        result = lint([folder / f"{twin}.py" for folder in folders for twin in ("buggy", "fixed")], seed)
        table([judge_bug(folder, result, names.get(folder.name)) for folder in folders])
        for missing in result["not_analysed"]:
            if missing["target"].endswith("::Model"):
                print("not analysed:", missing["target"], missing["reason"])
        if not arguments.only and not arguments.blind:
            models = sorted((arguments.shared / "classics").glob("m*.py"))
            classics(arguments.shared / "classics", lint(models, seed))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
