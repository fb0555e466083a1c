"""Arguments and inputs that the file itself tells: a name of its top level, a refusal's words, comments on shapes."""

from __future__ import annotations

from pathlib import Path

import pytest

import initlint

CONFIGURED = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.device = config["device"]
        self.table = nn.ModuleList([nn.Embedding(n, config["width"]) for n in config["sizes"]])
        self.head = nn.Linear(config["width"], 3)

    def forward(self, ids):
        return self.head(sum(table(ids % table.num_embeddings) for table in self.table))

config = {}
config["width"] = 24
config["sizes"] = [11, 7]
config["device"] = "cuda" if torch.cuda.is_available() else "cpu"
config["loader"] = open("missing").read()
"""
EITHER = """
from torch import nn

class Net(nn.Module):
    def __init__(self, dim, num_heads=-1, head_channels=-1, attention_resolutions=None):
        super().__init__()
        assert num_heads != -1 or head_channels != -1, "Either num_heads or head_channels has to be set"
        self.attention = nn.MultiheadAttention(dim, num_heads if num_heads != -1 else dim // head_channels)

    def forward(self, x):
        return self.attention(x, x, x)[0]
"""
CHOSEN = """
import argparse
from torch import nn

CELLS = {"lstm": nn.LSTM, "gru": nn.GRU}

class Net(nn.Module):
    def __init__(self, cell, hidden_size):
        super().__init__()
        self.rnn, self.head = cell(12, hidden_size, batch_first=True), nn.Linear(hidden_size, 2)

    def forward(self, x):
        return self.head(self.rnn(x)[0])

def build(args):
    return Net(CELLS[args.cell], args.hidden_size)
"""
COMMENTED = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(2, 8, 3), nn.Linear(8, 4)

    def forward(self, events):
        # events: [T, B, 2, H, W], steps first
        return torch.stack([self.head(self.conv(step).relu().mean((2, 3))) for step in events]).mean(0)
"""
EXACTLY = """
from typing import Optional
import torch
from torch import Tensor, nn

class Net(nn.Module):
    def __init__(self, features: int, categories: Optional[int] = None):
        super().__init__()
        self.numbers = nn.Linear(features, 16)
        self.table = nn.Embedding(categories, 16) if categories else None

    def forward(self, x_num: Tensor, x_cat: Optional[Tensor]) -> Tensor:
        assert (x_cat is not None) == (self.table is not None), "x_cat is needed exactly when there are categories"
        x = self.numbers(x_num)
        return x if self.table is None else x + self.table(x_cat)
"""
PACKED = """
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.rnn = nn.Embedding(50, 16), nn.GRU(16, 16, batch_first=True)

    def forward(self, text, lengths):
        packed = pack_padded_sequence(self.table(text), lengths.cpu(), batch_first=True)
        return pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0]
"""
TURNED = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.value = nn.Conv1d(7, 16, 3, padding=1, padding_mode="circular", bias=False)
        self.time = nn.Linear(4, 16)

    def forward(self, x_enc, x_mark):
        return self.value(x_enc.permute(0, 2, 1)).transpose(1, 2) + self.time(x_mark)
"""
NAMED = """
from torch import nn

class OtherConfig:
    width = 8

class NetConfig:
    def __init__(self, vocab_size_or_config_file, width=16):
        self.vocab_size, self.width = vocab_size_or_config_file, width

class Base(nn.Module):
    def __init__(self, config):
        super().__init__()
        if not isinstance(config, NetConfig):
            raise ValueError("config should be a NetConfig")
        self.config = config

class Net(Base):
    def __init__(self, config):
        super().__init__(config)
        self.body = nn.Sequential(nn.Embedding(self.config.vocab_size, self.config.width), nn.Linear(16, 3))

    def forward(self, ids):
        return self.body(ids)
"""


@pytest.mark.parametrize(
    "source", [CONFIGURED, EITHER, CHOSEN, COMMENTED, EXACTLY, PACKED, TURNED, NAMED],
    ids=["configured", "either", "chosen", "commented", "exactly", "packed", "turned", "named"],
)  # fmt: skip
def test_the_file_tells(source: str, tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    file.write_text(source)
    (model,) = (m for m in initlint.check(f"{file}::Net").models)
    assert (model.facts.status, model.facts.reason) == ("analysed", "")
    assert model.facts.trace.ran


def test_where_an_argument_comes_from_is_said(tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    file.write_text(CONFIGURED)
    (model,) = initlint.check(f"{file}::Net").models
    (argument,) = model.facts.arguments
    assert argument.name == "config"
    assert argument.origin.startswith("`config` in ")
    assert "'sizes': [11, 7]" in argument.value
