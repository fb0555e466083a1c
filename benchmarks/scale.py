"""Huge models on meta, and the cost of propagation over depth. Prints a table; exit 1 when a bound is broken.

    python benchmarks/scale.py [--only NAME] [--models 300]

Bounds: a Llama-3-70B-shaped decoder at most 60 s and 3 GB, a 405B-shaped one at most 120 s, on two free cores (CPU
seconds are printed beside the wall clock for machines that are busy); propagation linear in the number of nodes
(exponent at most 1.1); many models with --jobs 2 at least 1.7 times as fast as with --jobs 1 on two free cores, at a
peak memory that does not grow with their number.
"""

from __future__ import annotations

import argparse
import gc
import glob
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import startup

from initlint.facts import ModelFacts, Node, Operator, ParameterFacts, TensorStats
from initlint.signal import Nominal, propagate
from initlint.signal.effect import counterfactual

ROOT = Path(__file__).resolve().parent.parent
#: name -> (seconds, gigabytes)
BOUNDS = {"llama_70b": (60.0, 3.0), "llama_405b": (120.0, 3.0)}
EXPONENT = 1.1
#: CPU seconds for 1,000 counterfactuals on 10,000 nodes: a change fades behind norms; it never does in a plain ReLU chain
#: and in a residual stream.
EFFECTS = {"normed": 15.0, "plain": 90.0, "residual": 60.0}
WIDTH = 256


def run(name: str) -> tuple[float, float, float, int]:
    """Wall seconds, CPU seconds, peak gigabytes of the process tree, exit code of one check on meta."""
    return timed([f"benchmarks/models_llama.py::{name}", "--device", "meta"], ROOT)


def timed(arguments: list[str], folder: Path) -> tuple[float, float, float, int]:
    """The same of any check."""
    wall, cpu, sizes, code = observed(arguments, folder)
    return wall, cpu, max(sizes, default=0.0), code


def observed(arguments: list[str], folder: Path, *, memory: bool = True) -> tuple[float, float, list[float], int]:
    """Wall seconds, CPU seconds, gigabytes of the process tree every 0.1 s, exit code of a check.

    Without ``memory`` nobody asks for it meanwhile: that takes a quarter of a core.
    """
    command = [sys.executable, "-m", "initlint", *arguments, "--no-cache", "-q", "--exit-zero"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    before, started, sizes = os.times(), time.perf_counter(), []
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            if memory:
                sizes.append(sum(proportional(pid) for pid in tree(process.pid)) / 1e9)
            time.sleep(0.1)
    wall, after = time.perf_counter() - started, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, cpu, sizes, process.returncode


def tree(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for parent in found:
        for children in glob.glob(f"/proc/{parent}/task/*/children"):
            try:
                found += [int(child) for child in Path(children).read_text().split()]
            except OSError:
                continue
    return found


def proportional(pid: int) -> float:
    """Bytes of a process, pages shared by n processes counted 1/n."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(1024.0 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def stats(variance: float) -> TensorStats:
    """Of normal weights."""
    reach = 4 * math.sqrt(variance)
    return TensorStats(WIDTH * WIDTH, 0.0, variance, variance, 3.0, -reach, reach)


def plain(layers: int) -> ModelFacts:
    """linear, relu, linear, relu ..."""
    nodes = [Node(0, "input", shape=(4, WIDTH), attrs={"kind": "float"}, channel=1)]
    parameters = []
    for i in range(layers):
        add_linear(nodes, parameters, f"layers.{i}", 2 / WIDTH)
        nodes.append(Node(len(nodes), "activation", (len(nodes) - 1,), (4, WIDTH), attrs={"fn": "relu"}, channel=1))
    return facts(nodes, parameters)


def residual(blocks: int) -> ModelFacts:
    """x + linear(relu(linear(norm(x)))) ..."""
    nodes = [Node(0, "input", shape=(4, WIDTH), attrs={"kind": "float"}, channel=1)]
    parameters: list[ParameterFacts] = []
    for i in range(blocks):
        start = len(nodes) - 1
        attrs = {"kind": "layer", "n": WIDTH, "eps": 1e-5, "training": True}
        nodes.append(Node(len(nodes), "norm", (start,), (4, WIDTH), attrs=dict(attrs), channel=1))
        add_linear(nodes, parameters, f"blocks.{i}.first", 2 / WIDTH)
        nodes.append(Node(len(nodes), "activation", (len(nodes) - 1,), (4, WIDTH), attrs={"fn": "relu"}, channel=1))
        add_linear(nodes, parameters, f"blocks.{i}.second", 1 / WIDTH)
        nodes.append(Node(len(nodes), "add", (start, len(nodes) - 1), (4, WIDTH), channel=1))
    return facts(nodes, parameters)


def normed(blocks: int) -> ModelFacts:
    """linear, norm, relu ..."""
    nodes = [Node(0, "input", shape=(4, WIDTH), attrs={"kind": "float"}, channel=1)]
    parameters: list[ParameterFacts] = []
    for i in range(blocks):
        add_linear(nodes, parameters, f"layers.{i}", 2 / WIDTH)
        last, attrs = len(nodes) - 1, {"kind": "layer", "n": WIDTH, "eps": 1e-5, "training": True}
        nodes.append(Node(last + 1, "norm", (last,), (4, WIDTH), attrs=dict(attrs), channel=1))
        nodes.append(Node(last + 2, "activation", (last + 1,), (4, WIDTH), attrs={"fn": "relu"}, channel=1))
    return facts(nodes, parameters)


def effects(model: ModelFacts, groups: int) -> float:
    """CPU seconds of that many counterfactuals, spread over the depth."""
    signal, names = propagate(model), [p.name for p in model.parameters]
    started = time.process_time()
    for at in range(groups):
        counterfactual(model, signal, {names[at * len(names) // groups]: Nominal(0.0, 1 / WIDTH)})
    return time.process_time() - started


def add_linear(nodes: list[Node], parameters: list[ParameterFacts], module: str, variance: float) -> None:
    """One more layer at the end."""
    weight = f"{module}.weight"
    parameters.append(
        ParameterFacts(weight, "parameter", (WIDTH, WIDTH), "float32", module, "weight", stats=stats(variance))
    )
    gain = WIDTH * variance
    operator = Operator(WIDTH, WIDTH, gain, gain, total_second=gain, width_in=WIDTH, width_out=WIDTH)
    nodes.append(
        Node(
            len(nodes), "linear", (len(nodes) - 1,), (4, WIDTH), parameters={"weight": weight}, operator=operator,
            module=module, channel=1,
        )
    )  # fmt: skip


def facts(nodes: list[Node], parameters: list[ParameterFacts]) -> ModelFacts:
    """A model of these nodes."""
    last = len(nodes) - 1
    return ModelFacts("Net", "net.py::Net", "net.py", parameters=tuple(parameters), nodes=tuple(nodes), outputs=(last,))


def seconds(model: ModelFacts) -> float:
    """The best of three propagations (CPU time)."""
    best = math.inf
    for _ in range(3):
        started = time.process_time()
        propagate(model)
        best = min(best, time.process_time() - started)
    return best


#: One model of many: what differs is its width, so that no two are alike.
SOURCE = """
import torch
from torch import nn

class Net{i}(nn.Module):
    def __init__(self):
        super().__init__()
        layers = []
        for _ in range(6):
            layers += [nn.Conv2d({width}, {width}, 3, padding=1, bias=False), nn.BatchNorm2d({width}), nn.ReLU()]
        self.body, self.head = nn.Sequential(nn.Conv2d(3, {width}, 3), *layers), nn.Linear({width}, 10)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, nonlinearity="relu")

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))
"""
SPEEDUP = 1.7
#: Peak memory at the full number of models against a quarter of it.
GROWTH = 1.15


def crowd(count: int) -> bool:
    """A folder of models, with one and two targets at a time, and a quarter of it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "all").mkdir()
        (folder / "some").mkdir()
        for i in range(count):
            for place in ("all", "some") if i % 4 == 0 else ("all",):
                (folder / place / f"net{i:03}.py").write_text(SOURCE.format(i=i, width=24 + i % 40))
        one, two = (observed(["all", "--jobs", jobs], folder, memory=False) for jobs in ("1", "2"))
        many, few = (observed([place, "--jobs", "2"], folder) for place in ("all", "some"))
    for jobs, (wall, cpu, _, code) in ((1, one), (2, two)):
        print(f"{count:4} models  --jobs {jobs}  {wall:6.1f} s wall  {cpu:6.1f} s cpu  exit code {code}", flush=True)
    # The median beside it: at moments a child that has said all is still being freed while two others are at work.
    for title, size in (("peak", max), ("median", statistics.median)):
        print(f"{title} memory {size(many[2]):5.2f} GB, of a quarter of them {size(few[2]):5.2f} GB")
    faster, growth = one[0] / two[0], max(many[2]) / max(few[2])
    ok = faster >= SPEEDUP and growth <= GROWTH and not any(found[3] for found in (one, two, many, few))
    print(
        f"--jobs 2 is {faster:.2f}x as fast; four times the models take {growth:.2f}x the memory: {'ok' if ok else 'BROKEN'}"
    )
    return ok


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[*BOUNDS, "propagation", "effects", "jobs"])
    parser.add_argument("--models", type=int, default=300, help="how many models with --jobs 1 and 2")
    arguments = parser.parse_args()
    only, broken = arguments.only, 0
    gc.set_threshold(100_000)  # as the command line does
    startup.compiled()
    for name, (wall_bound, memory_bound) in BOUNDS.items():
        if only not in (None, name):
            continue
        wall, cpu, peak, code = run(name)
        ok = code == 0 and wall <= wall_bound and peak <= memory_bound
        broken += not ok
        print(f"{name:12} {wall:6.1f} s wall  {cpu:6.1f} s cpu  {peak:5.2f} GB  {'ok' if ok else 'BROKEN'}", flush=True)
    if only in (None, "jobs"):
        broken += not crowd(arguments.models)
    for name, make, small, large in (("plain", plain, 1250, 10_000), ("residual", residual, 125, 1000)):
        if only not in (None, "propagation"):
            continue
        few, many = make(small), make(large)
        propagate(few)  # the first call fills tables
        one, two = seconds(few), seconds(many)
        exponent = math.log(two / one) / math.log(len(many.nodes) / len(few.nodes))
        broken += exponent > EXPONENT
        print(
            f"{name:12} {len(many.nodes):6} nodes  {two:6.2f} s  {1e6 * two / len(many.nodes):5.0f} us a node  n^{exponent:.2f}"
        )
    if only in (None, "effects"):
        for name, make, size in (("normed", normed, 3333), ("plain", plain, 5000), ("residual", residual, 2000)):
            model = make(size)
            taken = effects(model, 1000)
            broken += taken > EFFECTS[name]
            print(f"{'effects':12} {len(model.nodes):6} nodes, {name}: 1,000 groups {taken:6.2f} s cpu", flush=True)
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
