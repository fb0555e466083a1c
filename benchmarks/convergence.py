"""How many steps of Adam the schemes of ``examples/choose_init.py`` need: ``python benchmarks/convergence.py``.

Ten Gaussian clusters in 128 dimensions, full batches of 300 points, the better of two learning rates for each scheme,
median of three seeds; a dash where 90 % of the training set was not reached in 150 steps.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))

from choose_init import Net

SCHEMES = ("kaiming", "xavier", "default", "wide", "constant")
DEPTHS = (5, 20)
RATES = (1e-3, 1e-2)
MOST = 150


def steps(scheme: str, depth: int, seed: int, rate: float) -> int:
    """Steps until nine tenths of the points are in their class; ``MOST`` when that does not happen."""
    torch.manual_seed(seed)
    centres = torch.randn(10, 128)
    labels = torch.arange(300) % 10
    points = 0.5 * centres[labels] + torch.randn(300, 128)
    model = Net(scheme, depth=depth)
    optimiser = torch.optim.Adam(model.parameters(), rate)
    for step in range(MOST):
        logits = model(points)
        if bool((logits.argmax(1) == labels).float().mean() > 0.9):
            return step
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(logits, labels).backward()
        optimiser.step()
    return MOST


def main() -> None:
    """Print the table."""
    print("| scheme | " + " | ".join(f"{depth} layers" for depth in DEPTHS) + " |")
    print("|---" * (len(DEPTHS) + 1) + "|")
    for scheme in SCHEMES:
        cells = []
        for depth in DEPTHS:
            best = min(statistics.median(steps(scheme, depth, seed, rate) for seed in range(3)) for rate in RATES)
            cells.append("–" if best >= MOST else f"{best:.0f}")
        print(f"| {scheme} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
