"""Verdicts must not depend on the seed: the shared classics and bugs under several seeds.

    python benchmarks/seeds.py ../shared [--seeds 20] [--only classics|bugs] [--match 027]

Every file is linted under every seed through the command line; a verdict is the set of (code, severity) of a file.
Printed: the files whose verdict differs between seeds, with the number of seeds of each code, notes apart.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

Verdict = frozenset[tuple[str, str]]
LOUD = ("warning", "error")


def lint(files: list[Path], seed: int) -> dict[str, Any]:
    """The JSON of one run over all files under a seed."""
    command = [sys.executable, "-m", "initlint", *map(str, files), "--output-format", "json", "--no-cache"]
    command += ["--seed", str(seed), "--fail-on", "never", "--allow-unanalysed"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout.strip():
        raise SystemExit(f"initlint failed:\n{done.stderr}")
    return json.loads(done.stdout)


def verdicts(result: dict[str, Any], files: list[Path]) -> dict[str, Verdict]:
    """The verdict of each file, the silent ones among them."""
    names = {"/".join(file.parts[-2:]): file for file in files}
    found: dict[str, set[tuple[str, str]]] = {name: set() for name in names}
    for finding in result["findings"]:
        name = "/".join(Path(finding["model"].split("::")[0]).parts[-2:])
        found.setdefault(name, set()).add((finding["code"], finding["severity"]))
    return {name: frozenset(verdict) for name, verdict in found.items()}


def differences(runs: list[dict[str, Verdict]]) -> tuple[list[str], list[str]]:
    """Lines for the files whose loud verdict differs, and for those where only notes do."""
    loud, quiet = [], []
    for name in sorted(set().union(*runs)):
        per_seed = [run.get(name, frozenset()) for run in runs]
        counts = Counter(item for verdict in per_seed for item in verdict)
        wavering = {item: n for item, n in counts.items() if n < len(runs)}
        if not wavering:
            continue
        text = ", ".join(f"{code}/{level} in {n} of {len(runs)}" for (code, level), n in sorted(wavering.items()))
        (loud if any(level in LOUD for _, level in wavering) else quiet).append(f"{name}: {text}")
    return loud, quiet


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--only", choices=("classics", "bugs"))
    parser.add_argument("--match", default="", help="only files whose path contains this")
    arguments = parser.parse_args()
    files: list[Path] = []
    if arguments.only != "bugs":
        files += sorted((arguments.shared / "classics").glob("m*.py"))
    if arguments.only != "classics":
        files += sorted((arguments.shared / "bugs").glob("*/*.py"))
    files = [file for file in files if arguments.match in str(file)]
    runs = []
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        result = lint(files, seed)
        runs.append(verdicts(result, files))
        print(
            f"seed {seed}: {len(result['findings'])} findings, {len(result['not_analysed'])} not analysed", flush=True
        )
    loud, quiet = differences(runs)
    print(
        f"\n{len(files)} files, {len(runs)} seeds: {len(loud)} verdicts change at warning or error, {len(quiet)} notes"
    )
    for line in loud:
        print("CHANGES", line)
    for line in quiet:
        print("note   ", line)
    return 1 if loud else 0


if __name__ == "__main__":
    raise SystemExit(main())
