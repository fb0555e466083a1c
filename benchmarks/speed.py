"""The weight pass against ``torch.sum`` over the same tensors, and a cached check: ratios taken in one run.

    python benchmarks/speed.py [--rounds 5]

Both sides of the weight pass use one thread, and take turns. The cached check is timed in processor time as well,
which a busy machine distorts less.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import startup


def seconds(action: Callable[[], object]) -> float:
    """Processor seconds of one call."""
    start = time.process_time()
    action()
    return time.process_time() - start


def weight_pass(title: str, source: str, rounds: int) -> float:
    """How many times as long as ``torch.sum`` the statistics of all tensors of a model take (median of the rounds)."""
    import torch

    from initlint.probe.measure import measure_all

    torch.set_num_threads(1)
    namespace: dict[str, Any] = {"__name__": "model"}
    exec(source, namespace)
    model = namespace["Model"]()
    tensors = [tensor.detach() for tensor in (*model.parameters(), *model.buffers())]
    gc.collect()
    gc.freeze()  # as in the worker: torch's own objects are no garbage
    plain, ours = [], []
    for _ in range(rounds + 1):
        plain.append(seconds(lambda: [tensor.sum() for tensor in tensors]))
        ours.append(seconds(lambda: measure_all([(tensor, 1) for tensor in tensors])))
    ratio = statistics.median(mine / base for mine, base in zip(ours[1:], plain[1:], strict=True))
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 1e9
    print(
        f"weight pass, {title} ({len(tensors)} tensors): {size / min(ours):5.2f} GB/s, "
        f"torch.sum {size / min(plain):5.2f} GB/s: {ratio:.2f}x (best of each {min(ours) / min(plain):.2f}x)"
    )
    return ratio


def child_seconds(command: list[str], folder: str) -> tuple[float, float]:
    """Wall and processor seconds of a child and its children."""
    before, start = os.times(), time.perf_counter()
    subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - start, used


def cached_check(rounds: int) -> float:
    """Wall seconds of a check that the cache answers (the best of all)."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "gpt.py").write_text(startup.GPT)
        lint = [sys.executable, "-m", "initlint", "gpt.py"]
        for _ in range(2):
            child_seconds(lint, folder)
        ours, click = [], []
        for _ in range(rounds):
            ours.append(child_seconds(lint, folder))
            click.append(child_seconds([sys.executable, "-c", "import click"], folder))
    wall, used = (min(values) for values in zip(*ours, strict=True))
    base = min(values[1] for values in click)
    print(f"cached check of GPT-2: {wall:.3f} s ({used:.3f} s of processor time; import click {base:.3f} s)")
    return wall


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    startup.compiled()
    models = (("GPT-2 124M", startup.GPT), ("ResNet-50", startup.RESNET))
    ratios = [weight_pass(title, source, rounds) for title, source in models]
    return 0 if cached_check(rounds) <= 0.25 and max(ratios) <= 2.0 else 1


if __name__ == "__main__":
    raise SystemExit(main())
