"""Inputs told from where the repository calls the model itself; nothing of the call site is run."""

from __future__ import annotations

import ast
from pathlib import Path
from textwrap import dedent

import pytest
import torch

from initlint.facts import ModelFacts
from initlint.options import ProbeOptions
from initlint.probe.callsites import CallSite, Source
from initlint.probe.client import probe
from initlint.probe.evaluate import Unknown
from initlint.probe.evaluate_tensors import Tensors
from initlint.probe.inputs import find
from initlint.probe.inputs_calls import Calls
from initlint.probe.target import parse_all

#: Cameras, frames and sides that no layer shows: the tokens are cut by reshapes alone.
NET = """
import torch
from torch import nn
{imports}

class Net(nn.Module):
    def __init__(self, cameras=3, frames=4, side=32):
        super().__init__()
        self.sizes = cameras, frames, side
        self.embed = nn.Linear(cameras * 3 * frames * 64, 24)
        self.head = nn.Linear(24, 5)

    def forward(self, clip, mask=None):
        b, v, c, t, h, w = clip.shape
        assert (v, t, h) == self.sizes
        x = clip.reshape(b, v * c * t, h // 8, 8, w // 8, 8).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        x = self.embed(x)
        if mask is not None:
            x = x * mask.unsqueeze(-1)
        return self.head(x.mean(1))

"""


def written(folder: Path, tail: str, imports: str = "", **others: str) -> ModelFacts:
    path = folder / "net.py"
    path.write_text(NET.format(imports=imports) + dedent(tail))
    for name, text in others.items():
        (folder / name.replace("__", ".")).write_text(dedent(text))
    [target] = probe(parse_all([f"{path}::Net"]), ProbeOptions(cwd=str(folder)))
    [model] = [m for m in target.models if m.name == "Net"]
    return model


CALLS = {
    "main block": """
        if __name__ == "__main__":
            raise SystemExit("never run")
            side = 32
            net = nn.DataParallel(Net()).cuda()
            x = torch.rand(2, 3, 3, 4, side, side).to("cuda")
            print(net(x).shape)
        """,
    "sizes of a default": """
        def main(cameras=3, size=(32, 32)):
            model = Net(cameras).eval()
            return model.forward(torch.zeros((1, cameras, 3, 4) + size))
        """,
    "a script that exports": """
        net = Net()
        dummy = torch.randn(1, 3, 3, 4, 32, 32, device="cuda", requires_grad=True)
        torch.onnx.export(net, dummy, "net.onnx")
        """,
    "a method": """
        class Test:
            def setUp(self):
                self.net = Net()

            def test_shape(self):
                self.net(clip=torch.ones(2, 3, 3, 4, 32, 32))
        """,
}


@pytest.mark.parametrize("kind", CALLS)
def test_a_call_in_the_file(tmp_path: Path, kind: str):
    model = written(tmp_path, CALLS[kind])
    assert (model.status, model.reason) == ("analysed", "")
    [given] = model.inputs
    assert given.origin.startswith("call site net.py:")
    assert given.name == "clip"
    assert given.shape[1:] == (3, 3, 4, 32, 32)
    assert given.shape[0] >= 2  # one sample would show no correlation
    node = next(node for node in model.nodes if node.op == "input")
    assert node.attrs["second"] == pytest.approx(1.0, abs=0.1)  # a dummy of zeros or U(0, 1) is none of the data


SUMMARIES = {
    "torchsummary": ("from torchsummary import summary", "summary(net, (3, 3, 4, 32, 32))"),
    "torchinfo": ("from torchinfo import summary", "summary(net, input_size=(2, 3, 3, 4, 32, 32))"),
    "thop": ("from thop import profile", "profile(net, inputs=(torch.randn(1, 3, 3, 4, 32, 32),))"),
}


@pytest.mark.parametrize("kind", SUMMARIES)
def test_a_function_that_is_given_the_model(tmp_path: Path, kind: str):
    imports, call = SUMMARIES[kind]
    tail = f"if __name__ == '__main__':\n    {imports}\n    net = Net()\n    {call}\n"
    model = written(tmp_path, tail, imports)
    assert model.status == "analysed"
    assert model.inputs[0].shape[1:] == (3, 3, 4, 32, 32)


def test_a_call_in_a_document(tmp_path: Path):
    text = """
        # Net

        ```python
        net = Net(cameras=3)
        mask = torch.ones(2, 16, dtype=torch.bool)
        net(torch.randn(2, 3, 3, 4, 32, 32), mask)
        ```
        """
    model = written(tmp_path, "", README__md=text)
    assert model.status == "analysed"
    clip, mask = model.inputs
    assert clip.origin.startswith("call site README.md:")
    assert (mask.dtype, mask.shape) == ("bool", (2, 16))


def test_token_ids_of_one_sample_are_drawn_anew_for_several(tmp_path: Path):
    path = tmp_path / "lm.py"
    path.write_text(
        dedent(
            """
            import torch
            from torch import nn

            class LM(nn.Module):
                def __init__(self, vocabulary=50):
                    super().__init__()
                    self.table, self.head = nn.Embedding(vocabulary, 16), nn.Linear(16, vocabulary)

                def forward(self, codes):
                    return self.head(self.table(codes)).mean(1)

            model = LM()
            model(torch.randint(0, 50, (1, 12)))
            """
        )
    )
    [target] = probe(parse_all([f"{path}::LM"]), ProbeOptions(cwd=str(tmp_path)))
    [model] = target.models
    assert model.inputs[0].shape == (4, 12)
    assert model.inputs[0].origin.startswith("call site")
    measured = next(node.measured for node in model.nodes if node.op == "embedding")
    assert measured is not None
    assert measured.correlation is not None
    assert measured.correlation < 0.5  # samples differ


def test_calls_that_do_not_fit_or_cannot_be_told_are_passed_over(tmp_path: Path):
    tail = """
        def train(loader, other):
            net = Net()
            for x, y in loader:
                net(x)
            net(torch.randn(2, 7))
            net(open("data").read())
            other(torch.randn(2, 3, 3, 4, 32, 32))
            net(torch.randn(10 ** 9, 10 ** 9))
            net(torch.load("x.pt"))
            net(torch.randn(2, 3, 3, 4, 32, 32))
        """
    model = written(tmp_path, tail)
    assert model.status == "analysed"
    assert model.inputs[0].shape == (2, 3, 3, 4, 32, 32)


def test_inputs_are_the_same_every_time_and_the_random_state_stays(tmp_path: Path):
    path = tmp_path / "net.py"
    path.write_text(NET.format(imports="") + "\nnet = Net()\nnet(torch.zeros(1, 3, 3, 4, 32, 32))\n")
    scope: dict[str, object] = {"__file__": str(path), "__name__": "net"}
    exec(NET.format(imports=""), scope)
    model = scope["Net"]()  # type: ignore[operator]
    state = torch.get_rng_state()
    first, second = (find(model, scope, calls=Calls(["Net"], scope, str(tmp_path), 0)) for _ in range(2))
    assert first.facts[0].origin == "call site net.py:24"
    assert first.facts[0].shape[0] > 1
    assert torch.equal(first.kwargs["clip"], second.kwargs["clip"])
    assert torch.equal(torch.get_rng_state(), state)


def test_example_inputs_stand_above_calls(tmp_path: Path):
    tail = """
        def example_inputs():
            return torch.randn(3, 3, 3, 4, 32, 32)

        Net()(torch.randn(2, 3, 3, 4, 32, 32))
        """
    model = written(tmp_path, tail)
    assert model.inputs[0].origin == "example_inputs"


@pytest.mark.parametrize(
    "text",
    [
        "torch.randint(0, 9, (10**5, 10**5))",
        "torch.zeros(1).expand(10**9).contiguous()",
        "torch.zeros(10**4, 1) + torch.zeros(1, 10**4)",
        "torch.zeros(2, 3).repeat(10**7, 1)",
        "torch.eye(10**5)",
        "torch.cat([torch.zeros(10**6)] * 9)",
        "torch.load('x.pt')",
        "torch.zeros(3).tolist()",
        "torch.zeros(3).numpy()",
    ],
)
def test_what_is_too_large_or_no_matter_of_shapes_is_not_computed(text: str):
    with pytest.raises(Unknown):
        evaluated(text)


def evaluated(text: str):
    source = Source(__file__, ast.parse(f"import torch\nf({text})"))
    call = source.tree.body[1].value
    assert isinstance(call, ast.Call)
    return Tensors(CallSite(source, call), {}, "m").value(call.args[0])


@pytest.mark.parametrize(
    ("text", "dtype", "shape"),
    [
        ("torch.empty(2, 3, dtype=torch.long).random_(5)", torch.int64, (2, 3)),
        ("torch.FloatTensor(2, 3).cuda()", torch.float32, (2, 3)),
        ("torch.LongTensor([1, 2]).unsqueeze(0).repeat(2, 2)", torch.int64, (2, 4)),
        ("torch.randn((2,) + (3, 4)).permute(0, 2, 1)", torch.float32, (2, 4, 3)),
        ("torch.arange(4)[None]", None, ()),
        ("torch.ones(2, torch.zeros(5, 7).shape[1]) > 0", torch.bool, (2, 7)),
        ("2 * torch.rand(3, 4) - 1", torch.float32, (3, 4)),
        ("torch.full((2, 2), 7)", torch.int64, (2, 2)),
        ("torch.cat([torch.ones(2, 1), torch.zeros(2, 3)], dim=1).bool()", torch.bool, (2, 4)),
    ],
)
def test_what_torch_makes_of_sizes(text: str, dtype: torch.dtype | None, shape: tuple[int, ...]):
    if dtype is None:  # an index is left to inference
        with pytest.raises(Unknown):
            evaluated(text)
        return
    value = evaluated(text)
    assert (value.dtype, tuple(value.shape)) == (dtype, shape)
    assert not value.is_floating_point() or bool(value.isfinite().all())
