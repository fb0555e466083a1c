"""What initlint costs beside what it checks: ratios of wall time and peak memory, taken in one run.

    python benchmarks/startup.py [--rounds 5]

Each pair is run in turn, A B A B ..., and the ratio of medians is printed, so that a machine that slows down
slows both. Peak memory is that of the whole process tree, sampled every 20 ms from /proc.
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


def run(command: list[str], cwd: str, memory: bool = False) -> tuple[float, int]:
    """Wall seconds and, if asked, peak memory in kB of one run (memory sampling slows a run, so it is separate)."""
    start = time.perf_counter()
    environment = dict(os.environ)
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    peak = 0
    if memory:
        done = threading.Event()

        def sample() -> None:
            nonlocal peak
            while not done.is_set():
                peak = max(peak, tree_rss(process.pid))
                done.wait(0.02)

        thread = threading.Thread(target=sample)
        thread.start()
        process.wait()
        done.set()
        thread.join()
    process.wait()
    return time.perf_counter() - start, peak


def pair(name: str, a: list[str], b: list[str], limit: float, rounds: int, cwd: str) -> bool:
    """Time A against B and print the ratio of medians with its limit."""
    run(a, cwd), run(b, cwd)  # warm the disk cache
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        times[0].append(run(a, cwd)[0])
        times[1].append(run(b, cwd)[0])
    mine, base = statistics.median(times[0]), statistics.median(times[1])
    ratio = mine / base
    print(
        f"{name:44s} {mine:7.3f} s / {base:7.3f} s = {ratio:5.2f}x  (at most {limit:g}x)  {'ok' if ratio <= limit else 'MISSED'}"
    )
    return ratio <= limit


def memory(name: str, a: list[str], b: list[str], limit: float, cwd: str) -> bool:
    """Peak memory of A's process tree against B's."""
    mine = statistics.median(run(a, cwd, memory=True)[1] for _ in range(3))
    base = statistics.median(run(b, cwd, memory=True)[1] for _ in range(3))
    ratio = mine / base
    print(
        f"{name:44s} {mine / 1024:6.0f} MB / {base / 1024:6.0f} MB = {ratio:5.2f}x  (at most {limit:g}x)  {'ok' if ratio <= limit else 'MISSED'}"
    )
    return ratio <= limit


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small-limit", type=float, default=1.3)
    parser.add_argument("--gpt-limit", type=float, default=1.3)
    arguments = parser.parse_args()
    python = sys.executable
    lint = [python, "-m", "initlint"]
    good = True
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "small.py").write_text(SMALL)
        Path(folder, "gpt.py").write_text(GPT)
        imported = subprocess.run(
            [python, "-X", "importtime", *lint[1:], "--help"], cwd=folder, capture_output=True, text=True, check=True
        ).stderr
        no_torch = " torch" not in imported and "| torch" not in imported
        print(f"initlint --help imports torch: {'no' if no_torch else 'YES'}")
        good &= no_torch
        click = [python, "-c", "import click"]
        good &= pair("initlint --help / import click", [*lint, "--help"], click, 4, arguments.rounds, folder)
        good &= pair("initlint rule IL101 / import click", [*lint, "rule", "IL101"], click, 4, arguments.rounds, folder)
        build = [python, "-c", "import torch; import small; small.Model()"]
        good &= pair(
            "initlint small.py / build",
            [*lint, "small.py", "--no-cache"],
            build,
            arguments.small_limit,
            arguments.rounds,
            folder,
        )
        gpt = [python, "-c", "import torch; import gpt; gpt.Model()"]
        good &= pair(
            "initlint GPT-2 124M / build", [*lint, "gpt.py", "--no-cache"], gpt, arguments.gpt_limit, 3, folder
        )
        good &= memory("initlint GPT-2 124M / build, peak memory", [*lint, "gpt.py", "--no-cache"], gpt, 1.25, folder)
        cached = [*lint, "gpt.py"]
        run(cached, folder)
        good &= pair("cached re-check of GPT-2 / build", cached, gpt, 1, 3, folder)
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
