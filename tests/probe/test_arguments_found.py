"""Constructor arguments: where they come from, and that this is recorded."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from typing import Any

import pytest

from initlint.facts import ModelFacts
from initlint.probe.outcome import ProbeResult

Probe = Callable[..., list[ProbeResult]]

NET = """
from torch import nn
class Net(nn.Module):
    def __init__(self, depth, width=4):
        super().__init__()
        self.layers = nn.Sequential(*[nn.Linear(width, width) for _ in range(depth)])
    def forward(self, x):
        return self.layers(x)
"""


ARGPARSE = """
from net import Net
p = argparse.ArgumentParser()
p.add_argument("--net-depth", type=int, default=3)
args = p.parse_args()
model = Net(args.net_depth, width=6)
"""
UNSAFE = """
import os
from net import Net
Net(os.mkdir("made") or 3)
Net(__import__("os").mkdir("made") or 3)
Net(10 ** 10 ** 10)
Net(2)
"""


def chosen(facts: ModelFacts) -> dict[str, tuple[str, str]]:
    return {argument.name: (argument.value, argument.origin) for argument in facts.arguments}


def only(results: list[ProbeResult]) -> ModelFacts:
    (result,) = results
    (facts,) = result.models
    return facts


def test_from_the_command_line(probe_files: Probe) -> None:
    facts = only(probe_files("net.py::Net(3, width=5)", files={"net.py": NET}))
    assert chosen(facts) == {"depth": ("3", "command line"), "width": ("5", "command line")}
    assert facts.target == "net.py::Net(3, width=5)"
    assert len(facts.parameters) == 6


def test_arguments_that_do_not_fit(probe_files: Probe) -> None:
    (result,) = probe_files("net.py::Net(3, hight=5)", files={"net.py": NET})
    (missing,) = result.not_analysed
    assert missing.named
    assert "hight" in missing.reason
    assert missing.hint == "It is Net(depth, width=4)."


def test_from_the_configuration(probe_files: Probe) -> None:
    facts = only(probe_files("net.py", files={"net.py": NET}, arguments={"Net": {"depth": 2}}))
    assert chosen(facts) == {"depth": ("2", "configuration")}


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "net.py",
            NET + "def use():\n    n = 2\n    net = Net(n + 1, width=2 * 3)\n",
            ("3", "6", "call site net.py:11"),
        ),
        (
            "train.py",
            "from net import Net\nDEPTH = 3\nmodel = Net(depth=DEPTH, width=6)\n",
            ("3", "6", "call site train.py:3"),
        ),
        (
            "tests/test_net.py",
            "import net\ndef test():\n    net.Net(3, 6)\n",
            ("3", "6", "call site tests/test_net.py:3"),
        ),
        (
            "README.md",
            "Use it:\n\n```python\nfrom net import Net\nmodel = Net(3, 6)\n```\n",
            ("3", "6", "call site README.md:5"),
        ),
        (
            "run.py",
            ARGPARSE,
            ("3", "6", "call site run.py:6"),
        ),
    ],
)
def test_from_call_sites(probe_files: Probe, name: str, text: str, expected: tuple[str, str, str]) -> None:
    facts = only(probe_files("net.py", files={"net.py": NET, name: text}))
    depth, width, origin = expected
    assert chosen(facts) == {"depth": (depth, origin), "width": (width, origin)}


def test_from_a_notebook(probe_files: Probe) -> None:
    cells: list[dict[str, Any]] = [
        {"cell_type": "markdown", "source": "Net(99)"},
        {"cell_type": "code", "source": ["%matplotlib inline\n", "from net import Net\n", "depth = 3"]},
        {"cell_type": "code", "source": "model = Net(depth)"},
    ]
    facts = only(probe_files("net.py", files={"net.py": NET, "use.ipynb": json.dumps({"cells": cells})}))
    assert chosen(facts)["depth"][0] == "3"
    assert chosen(facts)["depth"][1].startswith("call site use.ipynb:")


def test_call_sites_are_never_executed(probe_files: Probe, tmp_path: Any) -> None:
    facts = only(probe_files("net.py", files={"net.py": NET, "use.py": UNSAFE}))
    assert chosen(facts)["depth"] == ("2", "call site use.py:7")
    assert not (tmp_path / "made").exists()


def test_another_class_of_the_same_name_is_no_evidence(probe_files: Probe) -> None:
    other = "class Net:\n    def __init__(self, depth): pass\nNet(50)\n"
    facts = only(probe_files("net.py", files={"net.py": NET, "other.py": other}))
    assert chosen(facts)["depth"] == ("2", "convention")


def test_classes_of_the_module_and_of_torch_as_arguments(probe_files: Probe) -> None:
    code = """
    import torch
    from torch import nn
    class Block(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.conv = nn.Conv2d(c, c, 3, padding=1)
        def forward(self, x):
            return self.conv(x)
    class Net(nn.Module):
        def __init__(self, block, layers, act):
            super().__init__()
            self.layers = nn.Sequential(*[block(3) for n in layers for _ in range(n)], act())
        def forward(self, x):
            return self.layers(x)
    def net18(**kwargs):
        return Net(Block, [1, 2], nn.GELU)
    """
    (result,) = probe_files("net.py::Net", files={"net.py": code})
    values = {argument.name: argument.value for argument in result.models[0].arguments}
    assert values == {"block": "Block", "layers": "[1, 2]", "act": "nn.GELU"}


def test_from_a_configuration_class(probe_files: Probe) -> None:
    code = """
    from dataclasses import dataclass
    from torch import nn
    @dataclass
    class Settings:
        width: int = 6
        depth: int = 1
    class Annotated(nn.Module):
        def __init__(self, settings: Settings):
            super().__init__()
            self.fc = nn.Linear(settings.width, settings.depth)
        def forward(self, x):
            return self.fc(x)
    class Bare(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.fc = nn.Linear(c.width, c.depth)
        def forward(self, x):
            return self.fc(x)
    class Unknown(nn.Module):
        def __init__(self, args):
            super().__init__()
            self.fc = nn.Linear(args.hidden_size, args.num_classes)
        def forward(self, x):
            return self.fc(x)
    """
    (result,) = probe_files("net.py", files={"net.py": code})
    found = {facts.name: chosen(facts) for facts in result.models}
    text = "Settings(width=6, depth=1)"
    assert found["Annotated"] == {"settings": (text, "defaults of Settings")}
    assert found["Bare"] == {"c": (text, "defaults of Settings")}
    assert found["Unknown"]["args"][1] == "convention"


def test_by_convention_and_annotation(probe_files: Probe) -> None:
    code = """
    from typing import Literal
    from torch import nn
    class Net(nn.Module):
        def __init__(self, in_channels, num_classes: int, embed_dim, num_heads, drop: float, widths: list[int],
                     kind: Literal["a", "b"], flag: bool, extra: int | None, mode, act_layer, n):
            super().__init__()
            self.attn = nn.MultiheadAttention(embed_dim, num_heads, drop)
            assert mode in ("fast", "slow")
            self.layers = nn.Sequential(*[nn.Linear(embed_dim, embed_dim) for _ in range(n)], act_layer())
            self.head = nn.Linear(embed_dim, num_classes)
            self.convs = nn.ModuleList(nn.Conv2d(in_channels, w, 3) for w in widths)
        def forward(self, x):
            return self.head(self.layers(self.attn(x, x, x)[0]))
    """
    facts = only(probe_files("net.py", files={"net.py": code}))
    values = {argument.name: argument.value for argument in facts.arguments}
    assert values["in_channels"] == "3"
    assert values["num_classes"] == "10"
    assert int(values["embed_dim"]) % int(values["num_heads"]) == 0
    assert (values["kind"], values["flag"], values["extra"], values["mode"]) == ("'a'", "False", "None", "'fast'")
    assert values["act_layer"] == "nn.ReLU"
    assert {argument.origin for argument in facts.arguments} == {"convention", "annotation", "use in the constructor"}


def test_what_nothing_is_known_about_is_said(probe_files: Probe) -> None:
    code = """
    from torch import nn
    class Wrapper(nn.Module):
        def __init__(self, inner, zork):
            super().__init__()
            self.inner = inner
            self.fc = nn.Linear(2, 2)
        def forward(self, x):
            return self.fc(self.inner(x))
    """
    (result,) = probe_files("net.py", files={"net.py": code})
    (missing,) = result.not_analysed
    assert missing.reason == "no value is known for the argument zork"
    # a module cannot be typed as an argument
    assert missing.hint == "Write a small factory function in net.py that returns it, and name that instead."
    assert missing.line == 3


def test_parts_that_need_arguments_are_not_reported_twice(probe_files: Probe) -> None:
    code = """
    from torch import nn
    class Block(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.fc = nn.Linear(width, width)
        def forward(self, x):
            return self.fc(x)
    class Optional(Block):
        pass
    class Net(nn.Module):
        def __init__(self, fancy=False):
            super().__init__()
            self.block = Optional(4) if fancy else Block(4)
        def forward(self, x):
            return self.block(x)
    """
    (result,) = probe_files("net.py", files={"net.py": code})
    assert [facts.name for facts in result.models] == ["Net"]
    reasons = {missing.target: (missing.harmless, missing.reason) for missing in result.not_analysed}
    assert reasons == {
        "net.py::Block": (True, "a part of Net, which is analysed"),
        "net.py::Optional": (True, "a part of Net, which is analysed"),
    }


NESTED = """
from torch import nn
class Block(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.layer = nn.Linear(cfg.model.hidden_dim, cfg.model.hidden_dim)
    def forward(self, x):
        return x + self.layer(x)
class Net(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        m = cfg["model"]
        self.first = nn.Linear(m["in_dim"], m["hidden_dim"])
        self.blocks = nn.ModuleList([Block(cfg) for _ in range(m.get("extra", 1) + cfg.model.num_layers)])
        self.last = nn.Linear(cfg.model["hidden_dim"], self.cfg.data.num_classes)
    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.last(x) * self.cfg.model.scale
"""


def test_a_nested_configuration_is_made_of_the_entries_that_are_read(probe_files: Probe) -> None:
    facts = only(probe_files("net.py", files={"net.py": NESTED}))
    (argument,) = facts.arguments
    assert (facts.status, argument.origin) == ("analysed", "convention")
    for entry in ("'in_dim': 16", "'hidden_dim': 64", "'num_layers': 2", "'num_classes': 10", "'scale': 1"):
        assert entry in argument.value


TAKEN_APART = """
import torch
from torch import nn
class Policy(nn.Module):
    def __init__(self, input_shape, n_actions):
        super().__init__()
        self.conv = nn.Conv2d(input_shape[0], 8, 8, 4)
        size = self.conv(torch.zeros(1, *input_shape)).numel()
        self.head = nn.Linear(size, n_actions)
    def forward(self, x):
        return self.head(self.conv(x).flatten(1))
class Characters(nn.Module):
    def __init__(self, tokens):
        super().__init__()
        self.chars = tokens
        self.rnn = nn.GRU(len(self.chars), 16)
    def forward(self, x):
        return self.rnn(x)[0]
"""


def test_shapes_and_collections_by_their_use(probe_files: Probe) -> None:
    found = {facts.name: facts for facts in probe_files("net.py", files={"net.py": TAKEN_APART})[0].models}
    assert {name: facts.status for name, facts in found.items()} == {"Policy": "analysed", "Characters": "analysed"}
    assert found["Policy"].arguments[0].value == "(3, 64, 64)"


HELPERS = """
from torch import nn

def is_lambda(f):
    return callable(f) and f.__name__ == "<lambda>"

def default(val, d):
    if val is not None:
        return val
    return d() if is_lambda(d) else d

class Net(nn.Module):
    def __init__(self, dim, dim_out=None):
        super().__init__()
        if dim.__class__ is float:
            raise TypeError
        self.c = nn.Conv2d(dim, default(dim_out, dim) * 4, 1)
    def forward(self, x):
        return self.c(x)
"""


def test_what_every_object_has_is_no_entry_of_a_configuration(probe_files: Probe) -> None:
    facts = only(probe_files("net.py", files={"net.py": HELPERS}))
    assert chosen(facts) == {"dim": ("64", "convention")}


def test_what_is_called_is_no_configuration(probe_files: Probe) -> None:
    code = """
        from torch import nn
        class Net(nn.Module):
            def __init__(self, block, config):
                super().__init__()
                self.body = block(64, 64 * block.expansion)
                self.head = config.heads("a")
            def forward(self, x):
                return self.body(x)
    """
    (result,) = probe_files("net.py", files={"net.py": code})
    (missing,) = result.not_analysed
    assert missing.reason == "no value is known for the arguments block, config"


def test_errors_name_a_configuration_in_plain_words(probe_files: Probe) -> None:
    code = """
        from torch import nn
        class Net(nn.Module):
            def __init__(self, options):
                super().__init__()
                self.body = nn.Linear(options.width, 3)
                self.more = options * 2
            def forward(self, x):
                return self.body(x)
    """
    (result,) = probe_files("net.py", files={"net.py": code})
    (missing,) = result.not_analysed
    assert "unsupported operand type(s) for *: 'configuration' and 'int'" in missing.reason


NET_OF_BLOCKS = """
from torch import nn
class Block(nn.Module):
    expansion = 2
    def __init__(self, width, out):
        super().__init__()
        self.layer = nn.Linear(width, out)
    def forward(self, x):
        return self.layer(x)
class Net(nn.Module):
    def __init__(self, num_classes, block, layers):
        super().__init__()
        self.body = block(8, 8 * block.expansion)
        self.head = nn.Linear(16, num_classes)
    def forward(self, x):
        return self.head(self.body(x))
def net18(num_classes, **kwargs):
    return Net(num_classes, Block, [2, 2], **kwargs)
"""


def test_a_call_in_a_function_that_hands_on_further_keywords(probe_files: Probe) -> None:
    facts = only(probe_files("net.py", files={"net.py": NET_OF_BLOCKS}))
    assert facts.name == "Net"
    site = "call site net.py:18"
    assert chosen(facts) == {
        "num_classes": ("10", "convention"),
        "block": ("Block", site),
        "layers": ("[2, 2]", site),
    }


@pytest.mark.parametrize(
    ("use", "found"),
    [
        ("from other import net\nnet.Net(3, width=6)", False),  # of another file of that name
        ("import other.net\nother.net.Net(3, width=6)", False),
        ("import torchvision as net\nnet.Net(3, width=6)", False),
        ("import net\nnet.Net(3, width=6)", True),
        ("import net as n\nn.Net(3, width=6)", True),
        ("import reading\nreading.models.Net(3, width=6)", True),  # may well be it
    ],
)
def test_calls_through_a_module_mean_that_module(probe_files: Probe, use: str, found: bool) -> None:
    files = {"net.py": NET, "use.py": use, "other/net.py": "def Net(depth, width): ...\n", "other/__init__.py": ""}
    facts = only(probe_files("net.py", files=files))
    assert (chosen(facts)["depth"] == ("3", "call site use.py:2")) is found


def test_what_a_call_gives_in_place_of_nothing(probe_files: Probe) -> None:
    code = """
        import gym
        from torch import nn
        class Net(nn.Module):
            def __init__(self, atoms=5, device=None, env=None, more=None):
                super().__init__()
                if device is not None:
                    self.layer = nn.Linear(env.observation_space.n, atoms)
            def forward(self, x):
                return self.layer(x)
        if __name__ == "__main__":
            env = gym.make("a")
            net = Net(atoms=7, device=env.device, env=env)
    """
    facts = only(probe_files("net.py", files={"net.py": code}))
    site = "call site net.py:13"
    assert {name: origin for name, (_, origin) in chosen(facts).items()} == {
        "atoms": site,
        "device": f"convention; {site} gives it",
        "env": f"convention; {site} gives it",
    }
    assert {p.name: p.shape for p in facts.parameters}["layer.weight"] == (7, 8)


KEYWORDS = """
from torch import nn
class Graph:
    def __init__(self, nodes=5, strategy="uniform"):
        self.nodes = nodes
class Net(nn.Module):
    def __init__(self, graph_args):
        super().__init__()
        self.graph = Graph(**graph_args)
        self.fc = nn.Linear(self.graph.nodes, 3)
    def forward(self, x):
        return self.fc(x)
"""


def test_keywords_that_are_handed_on_may_be_none_at_all(probe_files: Probe) -> None:
    facts = only(probe_files("net.py", files={"net.py": KEYWORDS}))
    assert facts.status == "analysed"
    assert chosen(facts) == {"graph_args": ("{}", "use in the constructor")}


def test_flags_of_recurrent_layers_and_numbers_that_begin_with_nb(probe_files: Probe) -> None:
    code = """
        from torch import nn
        class Speech(nn.Module):
            def __init__(self, nb_layers, nb_classes, hidden_size, bidirectional):
                super().__init__()
                self.rnn = nn.GRU(16, hidden_size, nb_layers, bidirectional=bidirectional)
                self.head = nn.Linear(2 * hidden_size if bidirectional else hidden_size, nb_classes)
            def forward(self, x):
                return self.head(self.rnn(x)[0])
    """
    facts = only(probe_files("speech.py", files={"speech.py": textwrap.dedent(code)}))
    values = {name: value for name, (value, _) in chosen(facts).items()}
    assert (values["nb_layers"], values["nb_classes"], values["bidirectional"]) == ("2", "10", "False")
    assert facts.status == "analysed"
