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


def _environment() -> dict[str, str]:
    import os

    root = str(Path(__file__).resolve().parents[2])
    return {**os.environ, "PYTHONPATH": root}
