"""What files of public repositories commonly have, which must not keep their models from being analysed."""

from __future__ import annotations

from collections.abc import Callable

from initlint.facts import ModelFacts
from initlint.probe.outcome import ProbeResult
from initlint.signal.identity import parallel_twins

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


BROKEN = {
    "package/__init__.py": "from package.trainer import Trainer\nfrom package.net import Net\n",
    "package/trainer.py": """
        import ctypes
        library = ctypes.CDLL("libkernels_of_another_world.so")
        class Trainer:
            step = library.step
        """,
    "package/net.py": """
        from torch import nn
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.out = nn.Linear(8, 4)
            def forward(self, x):
                return self.out(x)
        """,
}


def test_a_package_whose_other_modules_need_a_library_that_does_not_load(probe_files: Probe) -> None:
    (facts,) = named(probe_files("package/net.py", files=BROKEN)).values()
    assert facts.status == "analysed"
    assert any("CDLL" in note and "OSError" in note for note in facts.notes)


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
    assert {p.name: p.shape for p in found["GPT"].parameters} == {"emb.weight": (120, 24)}
    assert found["GPT"].arguments[0].origin == "defaults of Small"
    assert arguments(found["Mixer"])["layer_id"] == "0"


SAYING = """
import a_library_that_is_missing as lib
from torch import nn
class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        lib.warn(f"Net of {width} is under review", category=UserWarning, stacklevel=5)
        self.fc = nn.Linear(width, width)
    def forward(self, x):
        return self.fc(x)
class Initialised(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.fc = nn.Linear(width, width)
        lib.trunc_normal_(self.fc.weight)
    def forward(self, x):
        return self.fc(x)
class Sized(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.fc = nn.Linear(lib.make_divisible(width), width)
    def forward(self, x):
        return self.fc(x)
"""


def test_a_missing_function_that_only_says_something_is_not_missed(probe_files: Probe) -> None:
    (result,) = probe_files("net.py", files={"net.py": SAYING})
    assert list(named([result])) == ["Net"]
    reasons = {what.target: what.reason for what in result.not_analysed}
    assert "needs a_library_that_is_missing.trunc_normal_" in reasons["net.py::Initialised"]
    assert "needs a_library_that_is_missing.make_divisible" in reasons["net.py::Sized"]


AGENT = """
import torch
from torch import nn
class Agent(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.critic = nn.Sequential(nn.Linear(8, width), nn.Tanh(), nn.Linear(width, 1))
        self.actor = nn.Sequential(nn.Linear(8, width), nn.Tanh(), nn.Linear(width, 4))
    def get_value(self, x):
        return self.critic(x)
    def get_action_and_value(self, x, action=None):
        logits = self.actor(x)
        action = torch.distributions.Categorical(logits=logits).sample() if action is None else action
        return action, torch.log_softmax(logits, -1), self.critic(x)
"""


def test_an_agent_without_forward_is_called_by_its_method_that_uses_most(probe_files: Probe) -> None:
    facts = named(probe_files("agent.py", files={"agent.py": AGENT}))["Agent"]
    assert facts.status == "analysed"
    assert facts.trace.coverage == 1.0
    assert {layer.name for layer in facts.layers} == {"actor.0", "actor.2", "critic.0", "critic.2"}


RANKS = """
import torch
from torch import nn
class Experts(nn.Module):
    def __init__(self, dim, num_experts=4):
        super().__init__()
        self.num_experts = num_experts
        self.gate = nn.Parameter(torch.randn(dim, num_experts) * dim**-0.5)
        self.out = nn.Linear(num_experts, dim)
    def forward(self, inputs):
        b, n, d, e = *inputs.shape, self.num_experts
        return self.out(torch.einsum("...bnd,...de->...bne", inputs, self.gate).reshape(b, n, e))
class Attending(nn.Module):
    def __init__(self, in_features, n_heads=4):
        super().__init__()
        self.n_heads = n_heads
        self.fc = nn.Linear(in_features, n_heads)
    def forward(self, h, adj_mat):
        n = h.shape[0]
        scores = self.fc(h)[:, None, :] + self.fc(h)[None, :, :]
        assert adj_mat.shape[1] == n
        assert adj_mat.shape[2] in (1, self.n_heads)
        return torch.einsum("ijh,jh->ih", torch.softmax(scores * adj_mat, 1), self.fc(h))
"""


def test_inputs_whose_rank_shows_in_what_the_forward_takes_apart(probe_files: Probe) -> None:
    found = named(probe_files("ranks.py", files={"ranks.py": RANKS}))
    assert {name: facts.status for name, facts in found.items()} == {"Experts": "analysed", "Attending": "analysed"}
    assert len(found["Experts"].inputs[0].shape) == 3
    assert found["Attending"].inputs[1].shape[2] in (1, 4)


ROUTED = """
import copy
import torch
from torch import nn
class Experts(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.experts = nn.ModuleList([nn.Linear(width, 4)])
        self.experts.append(copy.deepcopy(self.experts[0]))
    def forward(self, x):
        out = x.new_zeros(x.shape[0], 4)
        for i, expert in enumerate(self.experts):
            index = torch.eq(torch.arange(x.shape[0]) % 2, i).nonzero(as_tuple=True)[0]
            out[index, :] = expert(x[index, :])
        return out
class Heads(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.one = nn.Linear(width, 4)
        self.two = copy.deepcopy(self.one)
    def forward(self, x):
        return self.one(x[:, :8]) + self.two(x[:, :8])
"""


def test_experts_that_get_samples_of_their_own_do_not_stay_equal(probe_files: Probe) -> None:
    found = named(probe_files("routed.py", files={"routed.py": ROUTED}))
    assert not parallel_twins(found["Experts"])  # each gets the samples that are routed to it
    assert ("one.weight", "two.weight") in parallel_twins(found["Heads"])
