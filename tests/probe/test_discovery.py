"""What a file's syntax shows, and which files of a folder are looked at."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

from initlint.options import ProbeOptions
from initlint.probe.discovery import discover, walk
from initlint.probe.outcome import Job
from initlint.probe.target import parse_all

LAYERS = """
    from torch import nn
    class Block(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.fc = nn.Linear(width, width)
        def forward(self, x):
            return self.fc(x)
"""


def jobs(folder: Path, text: str = ".") -> list[Job]:
    options = ProbeOptions(cwd=str(folder))
    return discover(parse_all([text], str(folder)), options)


def write(folder: Path, name: str, code: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(code))
    return path


def names(job: Job) -> list[str]:
    return [candidate.name for candidate in job.candidates]


def test_files_without_torch_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, "plain.py", "import os\nclass Net:\n    pass\n")
    write(tmp_path, "layers.py", LAYERS)
    write(tmp_path, "comment.py", "# import torch\nx = 'import torch'\n")
    found = jobs(tmp_path)
    assert [Path(job.target.path).name for job in found] == ["layers.py"]


def test_a_class_on_a_project_base_counts_without_importing_torch_itself(tmp_path: Path) -> None:
    write(tmp_path, "layers.py", LAYERS)
    write(tmp_path, "net.py", "from layers import Block\nclass Net(Block):\n    pass\n")
    (job,) = jobs(tmp_path, "net.py")
    assert names(job) == ["Net"]


ABROAD = """
    import torch
    from torch import nn
    from absent_library import Foundation
    class Common(Foundation):
        def weights(self, module):
            return isinstance(module, nn.Linear)
    class Wide(Common):
        def __init__(self, width):
            super().__init__()
            self.fc = nn.Linear(width, width)
        def forward(self, x):
            return self.fc(x)
    class Wider(Wide):
        pass
    class Plan(Common):
        def describe(self):
            return "no layers"
"""


def test_a_hierarchy_on_a_library_that_is_missing_is_not_lost(tmp_path: Path, probe_files: Callable[..., Any]) -> None:
    write(tmp_path, "net.py", ABROAD)
    (job,) = jobs(tmp_path, "net.py")
    assert names(job) == ["Wide", "Wider"]
    (result,) = probe_files("net.py", files={"net.py": ABROAD})
    assert not result.models
    assert {entry.target for entry in result.not_analysed} == {"net.py::Wide", "net.py::Wider"}
    for entry in result.not_analysed:
        assert entry.reason.startswith("it needs absent_library.Foundation, which cannot be imported here")
        assert entry.hint == "Install absent_library into this environment."


def test_no_torch_import_for_a_folder_without_models(tmp_path: Path) -> None:
    write(tmp_path, "plain.py", "x = 1\n")
    code = (
        "import sys; from initlint.options import ProbeOptions; from initlint.probe import client, target; "
        "results = list(client.probe(target.parse_all(['.']), ProbeOptions())); "
        "assert results == [], results; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=300, env=_environment())


def test_hidden_environment_and_cache_folders_are_skipped(tmp_path: Path) -> None:
    for name in (
        ".hidden/a.py",
        "__pycache__/a.py",
        "venv/a.py",
        "mine/pyvenv.cfg",
        "mine/a.py",
        "x/site-packages/a.py",
    ):
        write(tmp_path, name, "import torch\n")
    write(tmp_path, "tests/a.py", "import torch\n")
    assert [str(Path(path).relative_to(tmp_path)) for path in walk(str(tmp_path))] == ["tests/a.py"]


def test_kinds_of_candidates(tmp_path: Path) -> None:
    write(
        tmp_path,
        "model.py",
        """
        import torch
        from torch import nn, Tensor
        from torch.utils.data import Dataset

        class Data(Dataset):
            def __len__(self): return 0
        class Square(torch.autograd.Function):
            pass
        class Net(nn.Module):
            def __init__(self): super().__init__()
        class Wrapped(Net):
            pass
        def build(): return Net()
        def build_typed(depth=2) -> nn.Module: return None
        def needs(depth): return Net()
        def _private(): return Net()
        def chained():
            model = nn.Sequential(nn.Linear(1, 1))
            return model.to("cpu").eval()
        def helper(): return 3
        def train():
            net = Net()
            net.backward()
            return net
        def example_inputs(): return (torch.zeros(1),)
        ready = Net().eval()
        data = Data()
        """,
    )
    (job,) = jobs(tmp_path, "model.py")
    kinds = {candidate.name: candidate.kind for candidate in job.candidates}
    assert kinds == {
        "ready": "instance",
        "build": "factory",
        "build_typed": "factory",
        "chained": "factory",
        "Net": "class",
        "Wrapped": "class",
    }


def test_wholes_come_before_their_parts(tmp_path: Path) -> None:
    write(
        tmp_path,
        "model.py",
        """
        from torch import nn
        class Part(nn.Module):
            def __init__(self): super().__init__()
        class Whole(nn.Module):
            def __init__(self):
                super().__init__()
                self.part = Part()
        """,
    )
    (job,) = jobs(tmp_path, "model.py")
    assert names(job) == ["Whole", "Part"]
    assert job.candidates[1].inside == ("Whole",)


def test_an_instance_that_needs_data_is_listed_with_the_way_to_build_it(tmp_path: Path) -> None:
    write(
        tmp_path,
        "train.py",
        """
        import torch
        from torch import nn
        from datasets import load_dataset
        class Net(nn.Module):
            def __init__(self, words=3): super().__init__()
        words = load_dataset("x")
        net = Net(len(words))
        """,
    )
    (job,) = jobs(tmp_path, "train.py")
    assert names(job) == ["Net"]
    (missing,) = job.not_analysed
    assert missing.target == "train.py::net"
    assert "initlint 'train.py::net'" in missing.hint


def test_parts_used_in_another_file_of_the_folder_are_known(tmp_path: Path) -> None:
    write(tmp_path, "layers.py", LAYERS)
    write(
        tmp_path,
        "net.py",
        """
        from torch import nn
        from layers import Block
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.block = Block(8)
        """,
    )
    covered = {Path(job.target.path).name: dict(job.target.covered) for job in jobs(tmp_path)}
    assert covered == {"layers.py": {"Block": "net.py::Net"}, "net.py": {}}


def test_parts_of_a_model_that_failed_are_analysed_after_all(tmp_path: Path, probe_files: Callable[..., Any]) -> None:
    whole = """
        from torch import nn
        from layers import Block
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.block = Block(8)
                {fail}
            def forward(self, x):
                return self.block(x)
    """
    results = probe_files(".", files={"layers.py": LAYERS, "net.py": whole.format(fail="")})
    assert [facts.target for result in results for facts in result.models] == ["net.py::Net"]
    results = probe_files(".", files={"layers.py": LAYERS, "net.py": whole.format(fail="raise ValueError")})
    assert [facts.target for result in results for facts in result.models] == ["layers.py::Block"]


HIDDEN = """
    from torch import nn
    {head}
        class Inner(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(4, 4)
            def forward(self, x):
                return self.fc(x)
        {tail}
"""


def test_a_class_inside_a_function_is_said_not_to_be_reached(tmp_path: Path) -> None:
    write(tmp_path, "train.py", HIDDEN.format(head="def train(epochs):", tail="net = Inner()"))
    (job,) = jobs(tmp_path, "train.py")
    assert not job.runs
    (missing,) = job.not_analysed
    assert (missing.target, missing.file, missing.line) == ("train.py::train.Inner", "train.py", 4)
    assert missing.reason == "it is defined inside train() (line 4), which is not executed"
    assert missing.hint == "Move the class out of train() to the top level of train.py."
    assert not missing.harmless


def test_what_a_function_returns_is_reached_through_it(tmp_path: Path) -> None:
    write(tmp_path, "a.py", HIDDEN.format(head="def make():", tail="return Inner()"))
    write(tmp_path, "b.py", HIDDEN.format(head="def make(width):", tail="net = Inner(); return net"))
    write(tmp_path, "c.py", HIDDEN.format(head="def make(width):", tail="return Inner"))
    write(tmp_path, "test_d.py", HIDDEN.format(head="def helper():", tail="Inner()"))
    a, b, c, d = (jobs(tmp_path, name)[0] for name in ("a.py", "b.py", "c.py", "test_d.py"))
    assert (names(a), a.not_analysed) == (["make"], ())
    assert [entry.harmless for job in (b, c, d) for entry in job.not_analysed] == [True, True, True]
    assert b.not_analysed[0].hint == "initlint 'b.py::make(...)' analyses what make() returns."
    assert c.not_analysed[0].hint.startswith("Let a function of c.py")


def test_a_factory_of_a_class_of_its_own_is_built(probe_files: Callable[..., Any]) -> None:
    code = HIDDEN.format(head="def make():", tail="return Inner().eval()")
    (result,) = probe_files("net.py", files={"net.py": code})
    assert [(facts.target, facts.status) for facts in result.models] == [("net.py::make", "analysed")]


OPTIONAL = """
    from torch import nn
    class Tables(nn.Module):
        def __init__(self, width=None, sizes=None, mode="sum"):
            super().__init__()
            if width is not None and sizes is not None:
                self.tables = nn.ModuleList([nn.Embedding(n, width) for n in sizes])
        def forward(self, index):
            return sum(table(index) for table in self.tables)
    class Distance(nn.Module):
        def __init__(self, weight=None):
            super().__init__()
            self.entropy = nn.CrossEntropyLoss(weight)
        def forward(self, a, b):
            return (a - b).square().mean()
"""


def test_a_model_that_its_defaults_leave_empty_is_not_analysed(probe_files: Callable[..., Any]) -> None:
    (result,) = probe_files("net.py", files={"net.py": OPTIONAL})
    assert not result.models
    found = {entry.target: entry for entry in result.not_analysed}
    empty, loss = found["net.py::Tables"], found["net.py::Distance"]
    assert (empty.reason, empty.harmless) == ("built with its defaults it has no parameters", False)
    assert empty.hint.startswith("initlint 'net.py::Tables(width=..., sizes=...)', or a factory function in net.py")
    assert loss.hint == ""
    assert (loss.reason, loss.harmless) == ("it has no parameters", True)


def test_named_models_without_parameters(probe_files: Callable[..., Any]) -> None:
    blind = """
    class Blind(nn.Module):
        def forward(self, session):
            raise RuntimeError(session.frames.what)
    """
    files = {"net.py": OPTIONAL + blind}
    targets = [f"net.py::{name}" for name in ("Tables", "Distance", "Blind")]
    tables, distance, blindly = probe_files(*targets, files=files)
    assert [facts.status for facts in distance.models] == ["analysed"]
    for result, reason in ((tables, "built with its defaults it has no"), (blindly, "it has no parameters, and its")):
        assert not result.models
        (entry,) = result.not_analysed
        assert entry.named
        assert entry.reason.startswith(reason)


def test_a_call_fills_what_the_defaults_leave_empty(probe_files: Callable[..., Any]) -> None:
    call = """
    if __name__ == "__main__":
        import numpy as np
        net = Tables(6, np.array([5, 4]))
    """
    (result,) = probe_files("net.py", files={"net.py": "    import numpy as np" + OPTIONAL + call})
    (facts,) = result.models
    assert [p.shape for p in facts.parameters] == [(5, 6), (4, 6)]
    assert {argument.origin.split(" ")[0] for argument in facts.arguments} == {"call"}


def _environment() -> dict[str, str]:
    import os

    root = str(Path(__file__).resolve().parents[2])
    return {**os.environ, "PYTHONPATH": root}
