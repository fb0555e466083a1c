"""Constructor arguments that other files of a project make: records, functions that return them, constants."""

from __future__ import annotations

from typing import Any

NET = """
from torch import nn
class Net(nn.Module):
    def __init__(self, hparams):
        super().__init__()
        self.layer = nn.Linear(hparams.width, hparams.symbols)
    def forward(self, x):
        return self.layer(x)
"""
HPARAMS = """
import os
from symbols import symbols
class HParams(object):
    def __init__(self, **kwargs):
        self.__dict__.update(kwargs)
def create_hparams(text=None):
    hparams = HParams(width=24, symbols=len(symbols), rate=1e-3)
    if text:
        hparams.parse(text)
    return hparams
os.remove("kept.txt")
"""
README = "Use it:\n```python\nfrom hparams import create_hparams\nnet = Net(create_hparams())\n```\n"
RECORD = """
from collections import namedtuple
from torch import nn
Args = namedtuple("Args", "width depth", defaults=(20, 3))
class Net(nn.Module):
    def __init__(self, args):
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(args.width, args.width) for _ in range(args.depth)))
    def forward(self, x):
        return self.layers(x)
"""
OPTIONAL = """
from dataclasses import dataclass
from typing import Optional
from torch import nn
@dataclass
class Config:
    vocab_size: Optional[int] = None
    width: int = 12
class Net(nn.Module):
    def __init__(self, config):
        super().__init__()
        assert config.vocab_size is not None
        self.table = nn.Embedding(config.vocab_size, config.width)
        self.head = nn.Linear(config.width, config.vocab_size)
    def forward(self, ids):
        return self.head(self.table(ids))
"""


def shapes(facts: Any) -> dict[str, tuple[int, ...]]:
    return {p.name: p.shape for p in facts.parameters if len(p.shape) > 1}


def test_a_function_of_the_project_returns_the_configuration(probe_files: Any) -> None:
    symbols = "letters = 'abc'\nsymbols = ['_'] + list(letters)\n"
    files = {"model.py": NET, "hparams.py": HPARAMS, "symbols.py": symbols, "README.md": README, "kept.txt": "kept"}
    (result,) = probe_files("model.py", files={**files, "setup.py": ""})
    (facts,) = result.models
    assert shapes(facts) == {"layer.weight": (4, 24)}
    assert facts.arguments[0].origin == "call site README.md:4"
    assert {"hparams.py", "symbols.py"} <= {path.rpartition("/")[2] for path, *_ in result.dependencies}
    assert "kept.txt" not in {path.rpartition("/")[2] for path, *_ in result.dependencies}  # nothing was run


def test_a_record_type_is_a_definition(probe_files: Any) -> None:
    (result,) = probe_files("model.py", files={"model.py": RECORD})
    (facts,) = result.models
    assert shapes(facts) == {f"layers.{i}.weight": (20, 20) for i in range(3)}
    assert facts.arguments[0].origin == "defaults of Args"


def test_a_size_that_the_constructor_asks_for(probe_files: Any) -> None:
    (result,) = probe_files("model.py", files={"model.py": OPTIONAL})
    (facts,) = result.models
    sizes = shapes(facts)
    assert sizes["table.weight"][1] == 12
    assert sizes["head.weight"] == sizes["table.weight"]


CHOICE = """
from torch import nn
class Net(nn.Module):
    def __init__(self, configs):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(
            configs.d_model, configs.n_heads, activation=configs.activation, batch_first=True
        )
        self.head = nn.Linear(configs.d_model, configs.num_classes)
    def forward(self, x):
        return self.head(self.layer(x))
"""
RUN = """
import argparse
from model import Net
parser = argparse.ArgumentParser()
parser.add_argument("--activation", type=str, default="gelu")
parser.add_argument("--d_model", type=int, default=48)
parser.add_argument("--n_heads", type=int, default=3)
args = parser.parse_args()
model = Net(args)
"""


def test_sizes_are_those_of_the_command_line_where_one_of_its_options_is_a_word(probe_files: Any) -> None:
    (result,) = probe_files("model.py::Net", files={"model.py": CHOICE, "run.py": RUN, "setup.py": ""})
    (facts,) = result.models
    assert (facts.status, facts.trace.ran) == ("analysed", True)
    sizes = shapes(facts)
    assert sizes["head.weight"] == (10, 48)
    assert any(node.attrs.get("fn") == "gelu" for node in facts.nodes)


def test_a_few_of_what_nobody_knows(probe_files: Any) -> None:
    code = (
        "from torch import nn\nclass Net(nn.Module):\n    def __init__(self, num_part):\n        super().__init__()\n"
    )
    code += "        self.head = nn.Linear(8, num_part)\n    def forward(self, x):\n        return self.head(x)\n"
    (result,) = probe_files("model.py", files={"model.py": code})
    assert shapes(result.models[0]) == {"head.weight": (4, 8)}
