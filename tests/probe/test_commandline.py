"""What a model reads from parsed options, taken from the script of the repository that declares them."""

from __future__ import annotations

from typing import Any

import pytest

MODEL = """
from torch import nn
class Net(nn.Module):
    def __init__(self, args):
        super().__init__()
        assert args.channel_independence in (0, 1)
        assert args.reversible is False
        self.layer = nn.Linear(args.seq_len, args.pred_len)
    def forward(self, x):
        return self.layer(x)
"""
RUN = """
import argparse
BASE = 24
parser = argparse.ArgumentParser()
parser.add_argument("--seq-len", "-s", type=int, default=96)
parser.add_argument("--pred_len", type=int, default=2 * BASE)
parser.add_argument("--channels", dest="channel_independence", type=int, default="1")
parser.add_argument("--reversible", action="store_true")
parser.add_argument("--seed", type=int)
"""
OTHER = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--seq_len", type=int, default=7)
parser.add_argument("--lr", type=float, default=1e-3)
"""


def test_options_of_the_script_beside_the_package(probe_files: Any) -> None:
    files = {
        "models/net.py": MODEL,
        "models/__init__.py": "",
        "models/other.py": OTHER,
        "run.py": RUN,
        "requirements.txt": "torch",
    }
    (result,) = probe_files("models/net.py", files=files)
    (facts,) = result.models
    assert facts.parameters[0].shape == (48, 96)
    (argument,) = facts.arguments
    assert argument.origin == "options of run.py"
    assert "'channel_independence': 1" in argument.value


@pytest.mark.parametrize("script", ["", OTHER])
def test_a_script_that_declares_less_than_half_is_another_ones(probe_files: Any, script: str) -> None:
    (result,) = probe_files("net.py", files={"net.py": MODEL, "run.py": script})
    assert not result.models
    assert "no value is known for the argument args" in result.not_analysed[0].reason


FACTORY = """
import argparse
import torch
from torch import nn
def create(args):
    model = nn.Sequential(*(nn.Linear(args.netwidth, args.netwidth) for _ in range(args.netdepth)))
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lrate)
    return {"network_fn": model, "samples": args.N_samples, "fine": None}, optimizer
def config_parser():
    parser = argparse.ArgumentParser()
    parser.add_argument("--netdepth", type=int, default=3)
    parser.add_argument("--netwidth", type=int, default=24)
    parser.add_argument("--lrate", type=float, default=5e-4)
    parser.add_argument("--N_samples", type=int, default=64)
    return parser
"""


def test_a_factory_of_options_that_returns_the_model_among_others(probe_files: Any) -> None:
    (result,) = probe_files("net.py::create", files={"net.py": FACTORY})
    (facts,) = result.models
    assert [p.shape for p in facts.parameters if len(p.shape) == 2] == [(24, 24)] * 3


MAIN = """
import argparse
import torch
from torch import nn
if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--scheme", default="zeros")
    parser.add_argument("--resume")
    args = parser.parse_args()
def init(layer):
    if isinstance(layer, nn.Linear) and args.scheme == "zeros" and args.resume is None:
        nn.init.zeros_(layer.bias)
class Net(nn.Module):
    def __init__(self, init_of_layers):
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.apply(init_of_layers)
    def forward(self, x):
        return self.layer(x)
if __name__ == "__main__":
    raise SystemExit(Net(init))
"""


def test_options_of_a_main_block_that_is_never_run(probe_files: Any) -> None:
    (result,) = probe_files("net.py", files={"net.py": MAIN})
    (facts,) = result.models
    assert [p.writes[-1].op for p in facts.parameters if p.local == "bias"] == ["zeros_"]
    assert any("args holds the defaults of the options" in note for note in facts.notes)
