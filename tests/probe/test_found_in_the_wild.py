"""What files of public repositories commonly have, which must not keep their models from being analysed."""

from __future__ import annotations

from collections.abc import Callable

from initlint.facts import ModelFacts
from initlint.probe.outcome import ProbeResult

Probe = Callable[..., list[ProbeResult]]


def named(results: list[ProbeResult]) -> dict[str, ModelFacts]:
    return {facts.name: facts for result in results for facts in result.models}


def arguments(facts: ModelFacts) -> dict[str, str]:
    return {argument.name: argument.value for argument in facts.arguments}


PARTS_OF_NO_MODEL = """
from torch import nn
class Cell(nn.Module):
    def __init__(self, dim_in, dim_out):
        super().__init__()
        self.fc = nn.Linear(dim_in, dim_out)
    def forward(self, x):
        return self.fc(x)
class Stack(nn.Module):
    def __init__(self, dim_in, dim_hidden, num_layers):
        super().__init__()
        self.cells = nn.ModuleList([Cell(dim_in if i == 0 else dim_hidden, dim_hidden) for i in range(num_layers)])
    def forward(self, x):
        for cell in self.cells:
            x = cell(x)
        return x
class Trainer(nn.Module):
    def __init__(self, experiment):
        super().__init__()
        self.stack = Stack(experiment.find("width"), 8, 3)
    def forward(self, x):
        return self.stack(x)
"""


def test_a_part_is_analysed_by_itself_when_the_whole_cannot_be(probe_files: Probe) -> None:
    results = probe_files("net.py", files={"net.py": PARTS_OF_NO_MODEL})
    found = named(results)
    assert list(found) == ["Stack"]  # the largest part that can be made; what is inside it is not said twice
    assert arguments(found["Stack"]) == {"dim_in": "16", "dim_hidden": "8", "num_layers": "3"}  # as Trainer makes it
    missing = {what.target: what for what in results[0].not_analysed}
    assert "no value is known for the argument experiment" in missing["net.py::Trainer"].reason
    assert missing["net.py::Cell"].reason == "a part of Stack, which is analysed"


POLICY = """
import numpy as np
import torch
from torch import nn
class Policy(nn.Module):
    def __init__(self, env):
        super().__init__()
        self.fc = nn.Linear(np.array(env.observation_space.shape).prod(), 32)
        self.mean = nn.Linear(32, np.prod(env.action_space.shape))
        self.register_buffer("scale", torch.tensor((env.action_space.high - env.action_space.low) / 2.0))
    def forward(self, x):
        return torch.tanh(self.mean(self.fc(x))) * self.scale
class Values(nn.Module):
    def __init__(self, env):
        super().__init__()
        self.conv = nn.Conv2d(env.observation_space.shape[0], 8, 3)
        self.out = nn.Linear(8, env.action_space.n)
    def forward(self, x):
        return self.out(self.conv(x).mean((2, 3)))
"""


def test_an_environment_is_stood_in_for_by_its_spaces(probe_files: Probe) -> None:
    found = named(probe_files("policy.py", files={"policy.py": POLICY}))
    assert {name: facts.status for name, facts in found.items()} == {"Policy": "analysed", "Values": "analysed"}
    sizes = {p.name: p.shape for p in found["Policy"].parameters}
    assert sizes["fc.weight"] == (32, 8)
    assert sizes["mean.weight"] == (8, 32)


WRAPPERS = """
from torch import nn
class Encoder(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.hidden = hidden
        self.fc = nn.Linear(hidden, hidden)
    def forward(self, x):
        return self.fc(x)
class Annotated(nn.Module):
    def __init__(self, encoder: Encoder, vocab_size):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.hidden, vocab_size)
    def forward(self, x):
        return self.head(self.encoder(x))
class Asserted(nn.Module):
    def __init__(self, net):
        super().__init__()
        assert isinstance(net, Encoder), "an Encoder"
        self.net = net
        self.head = nn.Linear(net.hidden, 1)
    def forward(self, x):
        return self.head(self.net(x))
"""


def test_a_sub_model_is_made_where_its_class_is_named(probe_files: Probe) -> None:
    found = named(probe_files("wrap.py", files={"wrap.py": WRAPPERS}))
    assert {name: facts.status for name, facts in found.items()} == {"Annotated": "analysed", "Asserted": "analysed"}
    assert arguments(found["Annotated"])["encoder"] == "Encoder(...)"
    assert arguments(found["Asserted"])["net"] == "Encoder(...)"
    assert {p.name for p in found["Asserted"].parameters} >= {"net.fc.weight", "head.weight"}


README = """
```python
from package import Encoder
from package.mae import Masked
encoder = Encoder(width=12)
model = Masked(encoder=encoder, depth=3)
```
"""
PACKAGE = {
    "package/__init__.py": "from package.encoder import Encoder\nfrom package.trainer import Trainer\n",
    "package/encoder.py": """
        from torch import nn
        class Encoder(nn.Module):
            def __init__(self, width):
                super().__init__()
                self.width, self.fc = width, nn.Linear(width, width)
            def forward(self, x):
                return self.fc(x)
        """,
    "package/trainer.py": """
        import a_library_that_is_missing as lib
        from another_missing_library import Base, track
        class Callback(Base):
            pass
        @track
        class Trainer:
            limits = lib.limits(3)
        """,
    "package/mae.py": """
        from torch import nn
        class Masked(nn.Module):
            def __init__(self, encoder, depth):
                super().__init__()
                self.encoder = encoder
                self.out = nn.Sequential(*[nn.Linear(encoder.width, encoder.width) for _ in range(depth)])
            def forward(self, x):
                return self.out(self.encoder(x))
        """,
    "README.md": README,
    "setup.py": "",
}


def test_a_package_whose_other_modules_miss_a_library(probe_files: Probe) -> None:
    (facts,) = named(probe_files("package/mae.py", files=PACKAGE)).values()
    assert facts.status == "analysed"
    assert arguments(facts) == {"encoder": "Encoder(...)", "depth": "3"}  # as the README makes it
    assert any("trainer.py, line" in note and "stand-in" in note for note in facts.notes)


ENDLESS = """
import a_library_that_is_missing as lib
from torch import nn
names = lib.names()
found = "x" in lib.registry
total = [n for n in lib.registry]
class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.fc = nn.Linear(width, sum(1 for _ in total))
    def forward(self, x):
        return self.fc(x)
"""


def test_looking_into_what_is_missing_ends(probe_files: Probe) -> None:
    (result,) = probe_files("net.py", files={"net.py": ENDLESS}, timeout=20)
    (missing,) = result.not_analysed
    assert "a_library_that_is_missing" in missing.reason


CONFIGURED = """
from torch import nn
class Config:
    embd_pdrop = 0.1
    def __init__(self, vocab_size, **more):
        self.vocab_size = vocab_size
class Small(Config):
    n_embd = 24
class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.emb = nn.Embedding(config.vocab_size, config.n_embd)
        self.drop = nn.Dropout(config.embd_pdrop)
    def forward(self, ids):
        return self.drop(self.emb(ids))
class Mixer(nn.Module):
    def __init__(self, settings, layer_id):
        super().__init__()
        self.fc = nn.Linear(settings.n_embd, settings.n_embd)
        self.drop = nn.Dropout(settings.resid_pdrop)
        self.first = layer_id == 0
        self.fused = settings.use_fused_kernel
    def forward(self, x):
        return self.drop(self.fc(x))
"""


def test_configurations_with_entries_of_the_class_and_of_the_instance(probe_files: Probe) -> None:
    found = named(probe_files("gpt.py", files={"gpt.py": CONFIGURED}))
    assert {name: facts.status for name, facts in found.items()} == {"GPT": "analysed", "Mixer": "analysed"}
    assert {p.name: p.shape for p in found["GPT"].parameters} == {"emb.weight": (100, 24)}
    assert found["GPT"].arguments[0].origin == "defaults of Small"
    assert arguments(found["Mixer"])["layer_id"] == "0"
