"""What initlint costs beside what it checks: ratios of wall time and peak memory, taken in one run.

    python benchmarks/startup.py [--rounds 5] [--only small]

Each pair is run in turn, A B A B ..., and the ratio of medians is printed, so that a machine that slows down
slows both. Beside the ratio of wall times stands that of processor times (user and system, of the whole process
tree): on two free cores it is the larger one, for initlint works on both; on a busy machine it is the steadier one.
Peak memory is that of the whole process tree, sampled every 20 ms from /proc.
"""

from __future__ import annotations

import argparse
import compileall
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

SMALL = """
import torch
from torch import nn

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        for m in self.net:
            if isinstance(m, nn.Linear):
                nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
                nn.init.zeros_(m.bias)

    def forward(self, x):
        return self.net(x)
"""

GPT = '''
import torch
import torch.nn.functional as F
from torch import nn

class Block(nn.Module):
    def __init__(self, d, h):
        super().__init__()
        self.h = h
        self.ln1, self.ln2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.proj = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.fc, self.out = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = self.qkv(self.ln1(x)).view(b, t, 3, self.h, d // self.h).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).reshape(b, t, d))
        return x + self.out(F.gelu(self.fc(self.ln2(x))))

class Model(nn.Module):
    """GPT-2 124M."""

    def __init__(self, vocab=50257, d=768, layers=12, heads=12, ctx=1024):
        super().__init__()
        self.tok, self.pos = nn.Embedding(vocab, d), nn.Embedding(ctx, d)
        self.blocks = nn.ModuleList([Block(d, heads) for _ in range(layers)])
        self.ln = nn.LayerNorm(d)
        self.head = nn.Linear(d, vocab, bias=False)
        self.head.weight = self.tok.weight
        for name, p in self.named_parameters():
            if p.dim() == 2:
                std = 0.02 / (2 * layers) ** 0.5 if name.endswith(("proj.weight", "out.weight")) else 0.02
                nn.init.normal_(p, std=std)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def forward(self, ids):
        x = self.tok(ids) + self.pos(torch.arange(ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.ln(x))

def example_inputs():
    return (torch.randint(0, 50257, (1, 32)),)
'''


RESNET = '''
import torch
import torch.nn.functional as F
from torch import nn

class Bottleneck(nn.Module):
    def __init__(self, inner, width, stride):
        super().__init__()
        out = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(inner, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)
        self.skip = nn.Identity()
        if stride != 1 or inner != out:
            self.skip = nn.Sequential(nn.Conv2d(inner, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(y)))))
        return F.relu(y + self.skip(x))

class Model(nn.Module):
    """ResNet-50."""

    def __init__(self, classes=1000):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        blocks, inner = [], 64
        for stage, count in enumerate((3, 4, 6, 3)):
            for i in range(count):
                width = 64 << stage
                blocks.append(Bottleneck(inner, width, 2 if stage and i == 0 else 1))
                inner = 4 * width
        self.blocks, self.fc = nn.Sequential(*blocks), nn.Linear(inner, classes)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.stem(x))), 3, 2, 1)
        return self.fc(self.blocks(x).mean((2, 3)))
'''

#: name -> title, times the wall time and the peak memory (0: not taken) of the plain build, rounds at most
LIMITS = {
    "small": ("small.py", 1.15, 0.0, 99),
    "gpt": ("GPT-2 124M", 1.1, 1.15, 3),
    "resnet": ("ResNet-50", 1.3, 0.0, 3),
}

ROOT = Path(__file__).resolve().parent.parent


def compiled() -> None:
    """Compile the sources as an installation does: a checkout may be bare of bytecode, and may not write any."""
    for source in ("initlint", "rules"):
        compileall.compile_dir(ROOT / source, quiet=2)


def tree_rss(root: int) -> int:
    """Proportional set size of a process and all of its descendants, in kB (shared pages counted once)."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry))
    todo, total = [root], 0
    while todo:
        pid = todo.pop()
        todo += children.get(pid, ())
        try:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        except OSError:
            continue
    return total


def run(command: list[str], cwd: str, memory: bool = False) -> tuple[float, float, int]:
    """Wall seconds, processor seconds and, if asked, peak memory in kB of one run (sampling it slows the run)."""
    start, peak = time.perf_counter(), 0
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    done = threading.Event()

    def sample() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, tree_rss(process.pid))

    thread = threading.Thread(target=sample)
    if memory:
        thread.start()
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    done.set()
    if memory:
        thread.join()
    return wall, used.ru_utime + used.ru_stime, peak


def verdict(name: str, mine: str, base: str, ratio: float, limit: float, more: str = "") -> bool:
    """Print a line of the table; whether the limit is kept."""
    good = ratio <= limit
    print(
        f"{name:40s} {mine} / {base} = {ratio:5.2f}x  (at most {limit:g}x)  {'ok' if good else 'MISSED'}{more}",
        flush=True,
    )
    return good


def pair(name: str, a: list[str], b: list[str], limit: float, rounds: int, cwd: str) -> bool:
    """Time A against B and print the ratio of medians with its limit."""
    run(a, cwd), run(b, cwd)  # warm the disk cache
    times = [(run(a, cwd), run(b, cwd)) for _ in range(rounds)]
    (mine, base), (my_cpu, base_cpu) = (
        [statistics.median(both[side][figure] for both in times) for side in (0, 1)] for figure in (0, 1)
    )
    more = f"   processor time {my_cpu:6.3f} s / {base_cpu:6.3f} s = {my_cpu / base_cpu:5.2f}x"
    return verdict(name, f"{mine:7.3f} s", f"{base:7.3f} s", mine / base, limit, more)


def memory(name: str, a: list[str], b: list[str], limit: float, cwd: str) -> bool:
    """Peak memory of A's process tree against B's."""
    mine, base = (statistics.median(run(c, cwd, memory=True)[2] for _ in range(3)) / 1024 for c in (a, b))
    return verdict(name, f"{mine:6.0f} MB", f"{base:6.0f} MB", mine / base, limit)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=("light", *LIMITS))
    arguments = parser.parse_args()
    compiled()
    lint, good = [sys.executable, "-m", "initlint"], True
    with tempfile.TemporaryDirectory() as folder:
        for name, source in (("small", SMALL), ("gpt", GPT), ("resnet", RESNET)):
            Path(folder, f"{name}.py").write_text(source)
        if arguments.only in (None, "light"):
            good &= light(lint, arguments.rounds, folder)
        for name, (title, limit, memory_limit, rounds) in LIMITS.items():
            if arguments.only not in (None, name):
                continue
            build = [sys.executable, "-c", f"import torch; import {name}; {name}.Model()"]
            check = [*lint, f"{name}.py", "--no-cache"]
            good &= pair(f"initlint {title} / build", check, build, limit, min(rounds, arguments.rounds), folder)
            if memory_limit:
                good &= memory(f"initlint {title} / build, peak memory", check, build, memory_limit, folder)
    return 0 if good else 1


def light(lint: list[str], rounds: int, folder: str) -> bool:
    """What needs no torch, against the import of click."""
    imported = subprocess.run(
        [sys.executable, "-X", "importtime", *lint[1:], "--help"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    good = " torch" not in imported and "| torch" not in imported
    print(f"initlint --help imports torch: {'no' if good else 'YES'}")
    click = [sys.executable, "-c", "import click"]
    good &= pair("initlint --help / import click", [*lint, "--help"], click, 4, rounds, folder)
    return pair("initlint rule IL101 / import click", [*lint, "rule", "IL101"], click, 4, rounds, folder) and good


if __name__ == "__main__":
    raise SystemExit(main())
