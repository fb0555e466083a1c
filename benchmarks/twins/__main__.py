"""What is said of each pair, as a table.

PYTHONPATH=.:benchmarks python -m twins [NAME ...]
"""

from __future__ import annotations

import functools
import sys

import torch

import initlint
from twins import TWINS


def main(names: list[str]) -> int:
    torch.set_num_threads(1)
    print("| pair | broken: by the severity table | said of the broken one | of the healthy one |\n|---|---|---|---|")
    for name in names or TWINS:
        case, cells = TWINS[name], []
        for broken in (True, False):
            torch.manual_seed(0)
            run = initlint.check(functools.partial(case.model, broken), inputs=case.inputs(), seed=0, name=name)
            cells.append(", ".join(f"{f.code} {f.severity.label}" for f in run.findings) or "nothing")
        wanted = case.lowest if case.lowest == case.highest else f"{case.lowest} to {case.highest}"
        print(f"| {name} | {wanted}: {case.why} | {cells[0]} | {cells[1]} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
