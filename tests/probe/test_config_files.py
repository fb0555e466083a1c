"""Constructor arguments that a project keeps in configuration files: nothing of the project is run to read them."""

from __future__ import annotations

from typing import Any

import pytest

from initlint.probe import configs
from initlint.probe.conventions import Usage

NESTED = """
from omegaconf import DictConfig
from torch import nn
class Tower(nn.Module):
    def __init__(self, cfg: DictConfig):
        super().__init__()
        inner = cfg.model.tower
        self.table = nn.Embedding(inner.num_ids, cfg.model.width)
        self.hidden = nn.ModuleList(nn.Linear(cfg.model.width, n) for n in inner.sizes)
    def forward(self, ids):
        return [layer(self.table(ids)) for layer in self.hidden]
"""
NESTED_YAML = """
model:
  width: 24
  tower: {num_ids: "${data.count}", sizes: [12, 20]}
data: {count: 77}
trainer: {lr: 1e-3}
"""
TWO = """
from torch import nn
class First(nn.Module):
    def __init__(self, in_channels, width, classes, **kwargs):
        super().__init__()
        self.body, self.head = nn.Conv2d(in_channels, width, 3), nn.Linear(width, classes)
    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))
class Second(nn.Module):
    def __init__(self, in_channels, width, **kwargs):
        super().__init__()
        self.body = nn.Conv2d(in_channels, width, 5)
    def forward(self, x):
        return self.body(x)
"""
KEYED = """
from torch import nn
class Net(nn.Module):
    def __init__(self, net_params):
        super().__init__()
        self.layer = nn.Linear(net_params["in_dim"], net_params["out_dim"])
    def forward(self, x):
        return self.layer(x)
"""
FIRST = "params:\n  name: First\n  in_channels: 2\n  width: 18\n  classes: 6\n"
SECOND = "params:\n  name: Second\n  in_channels: 4\n  width: 14\n"


def shapes(facts: Any) -> dict[str, tuple[int, ...]]:
    return {p.name: p.shape for p in facts.parameters if len(p.shape) > 1}


def test_a_tree_that_is_read_by_attributes(probe_files: Any) -> None:
    files = {"net/model.py": NESTED, "net/__init__.py": "", "conf/config.yaml": NESTED_YAML, "setup.py": ""}
    (result,) = probe_files("net/model.py", files=files)
    (facts,) = result.models
    assert shapes(facts) == {"table.weight": (77, 24), "hidden.0.weight": (12, 24), "hidden.1.weight": (20, 24)}
    assert facts.arguments[0].origin == "configuration conf/config.yaml"


def test_each_class_takes_the_part_that_names_it(probe_files: Any) -> None:
    (result,) = probe_files("net.py", files={"net.py": TWO, "conf/a.yaml": FIRST, "conf/b.yaml": SECOND})
    by_name = {facts.name: shapes(facts) for facts in result.models}
    assert by_name["First"] == {"body.weight": (18, 2, 3, 3), "head.weight": (6, 18)}
    assert by_name["Second"] == {"body.weight": (14, 4, 5, 5)}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("zinc.json", '{"net": {"in_dim": 6, "out_dim": 9}, "lr": 0.1}'),
        ("net.toml", "[net]\nin_dim = 6\nout_dim = 9\n"),
        ("config.py", "C = CfgNode()\nC.net = CfgNode()\nC.net.in_dim = 3 * 2\nC.net.out_dim = 9\n"),
        ("settings.py", "from torch import randn\nNET = dict(in_dim=6, out_dim=9, data=randn(3))\n"),
    ],
)
def test_formats(probe_files: Any, file: str, text: str) -> None:
    (result,) = probe_files("net.py", files={"net.py": KEYED, file: text})
    (facts,) = result.models
    assert shapes(facts) == {"layer.weight": (9, 6)}
    assert facts.arguments[0].origin == f"configuration {file}"


def test_one_common_name_is_chance(probe_files: Any) -> None:
    model = TWO.split("class Second")[0].replace("in_channels, width, classes", "width")
    model = model.replace("in_channels", "3").replace("classes", "5")
    (result,) = probe_files("net.py", files={"net.py": model, "window.json": '{"width": 1920, "height": 1080}'})
    (facts,) = result.models
    assert facts.arguments[0].origin == "convention"


CALL = """
import yaml
from net import First
with open("configs/small.yaml") as stream:
    config = yaml.safe_load(stream)
data, model = (config[key] for key in ("data", "model"))
net = First(in_channels=data["bands"], width=model["base"], classes=2 * data["kinds"]).to("cuda")
for epoch in range(100):
    net.train()
"""


def test_a_call_with_values_of_a_file_under_other_names(probe_files: Any) -> None:
    files = {
        "net.py": TWO,
        "train.py": CALL,
        "configs/small.yaml": "data: {bands: 7, kinds: 2}\nmodel: {base: 22}\n",
    }
    (result,) = probe_files("net.py::First", files=files)
    (facts,) = result.models
    assert shapes(facts) == {"body.weight": (22, 7, 3, 3), "head.weight": (4, 22)}
    assert "train.py" in facts.arguments[0].origin


def test_what_is_no_configuration_does_no_harm(probe_files: Any) -> None:
    broken = {"conf/a.yaml": "params: {in_channels: [", "b.json": "{", "c.toml": "in_channels", "width.py": "classes ="}
    (result,) = probe_files("net.py::First", files={"net.py": TWO, **broken})
    (facts,) = result.models
    assert {a.origin for a in facts.arguments} == {"convention"}


PARTS = """
from torch import nn
class Encoder(nn.Module):
    def __init__(self, vocab_size, hidden_dim):
        super().__init__()
        self.table, self.rnn = nn.Embedding(vocab_size, hidden_dim), nn.GRU(hidden_dim, hidden_dim)
    def forward(self, ids):
        return self.rnn(self.table(ids))[0]
class Whole(nn.Module):
    def __init__(self, encoder, src_pad_idx):
        super().__init__()
        self.encoder, self.pad = encoder, src_pad_idx
    def forward(self, ids):
        return self.encoder(ids) * (ids != self.pad).unsqueeze(-1)
"""


def test_a_part_that_is_called_like_its_class(probe_files: Any) -> None:
    (result,) = probe_files("net.py::Whole", files={"net.py": PARTS})
    (facts,) = result.models
    assert facts.trace.ran
    assert {a.name: a.origin for a in facts.arguments}["encoder"] == "an instance of Encoder"


SPACES = """
import gymnasium as gym
from torch import nn
class Policy(nn.Module):
    def __init__(self, observation_space: gym.spaces.Dict, action_space: gym.spaces.Discrete):
        super().__init__()
        channels, height, width = observation_space["image"].shape
        self.conv = nn.Conv2d(channels, 8, 3, padding=1)
        self.head = nn.Linear(8 * height * width, action_space.n)
    def forward(self, obs):
        return self.head(self.conv(obs["image"].float() / 255.0).flatten(1))
"""


def test_a_dictionary_of_spaces(probe_files: Any) -> None:
    (result,) = probe_files("net.py", files={"net.py": SPACES})
    (facts,) = result.models
    assert facts.trace.ran
    assert shapes(facts) == {"conv.weight": (8, 3, 3, 3), "head.weight": (8, 8 * 64 * 64)}


MIXER = """
import numpy as np
from torch import nn
class Mixer(nn.Module):
    def __init__(self, args):
        super().__init__()
        self.args = args
        embed = self.args.hyper_embed
        self.net = nn.Linear(int(np.prod(args.state_shape)), embed * args.n_agents)
        self.out = nn.ModuleList(nn.Linear(embed * args.n_agents, s) for s in args.scale)
    def forward(self, states):
        return [out(self.net(states)) for out in self.out]
"""


def test_one_file_for_the_environment_and_one_for_the_algorithm(probe_files: Any) -> None:
    files = {
        "mixer.py": MIXER,
        "config/default.yaml": "n_agents: 3\nstate_shape: 48\nseed: 1\n",
        "config/algs/qmix.yaml": "hyper_embed: 11\nscale: [2, 4]\n",
    }
    (result,) = probe_files("mixer.py", files=files)
    (facts,) = result.models
    assert shapes(facts)["net.weight"] == (33, 48)
    assert facts.trace.ran


def test_numbers_that_a_script_splits() -> None:
    made = configs.made({("scale",): Usage(iterated=True), ("act",): Usage()}, known={"scale": "2+4", "act": "relu"})
    assert made == {"scale": [2, 4], "act": "relu"}


BLOCKS = """
from torch import nn
class Block(nn.Module):
    def __init__(self, planes):
        super().__init__()
        self.conv = nn.Conv2d(planes, planes, 3, padding=1)
    def forward(self, x):
        return x + self.conv(x)
class Stack(nn.Module):
    def __init__(self, block, planes):
        super().__init__()
        self.body = nn.Sequential(*(block(planes) for _ in range(2)))
    def forward(self, x):
        return self.body(x)
def small():
    return Stack(Block, 8)
"""


def test_a_class_that_is_called_is_handed_on_as_such(probe_files: Any) -> None:
    (result,) = probe_files("net.py::Stack", files={"net.py": BLOCKS})
    (facts,) = result.models
    assert shapes(facts) == {f"body.{i}.conv.weight": (8, 8, 3, 3) for i in range(2)}


WRAPPER = """
import torch
from torch import nn
class Diffusion(nn.Module):
    def __init__(self, denoise_fn):
        super().__init__()
        self.denoise_fn = denoise_fn
        self.scale = nn.Parameter(torch.ones(denoise_fn.channels))
    def loss(self, x):
        return self.denoise_fn(x).mean()
    def forward(self, x):
        return self.loss(x * self.scale)
"""


def test_what_a_method_calls_is_no_configuration(probe_files: Any) -> None:
    (result,) = probe_files("net.py", files={"net.py": WRAPPER})
    assert not result.models
    assert "no value is known for the argument denoise_fn" in result.not_analysed[0].reason
