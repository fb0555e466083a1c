"""Importing a model's file executes what its models need, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from initlint.probe.distributions import remedy
from initlint.probe.outcome import ProbeResult

Probe = Callable[..., list[ProbeResult]]

GAN = """
import argparse
import os
import sys
import torch
import torch.nn as nn
import numpy_like_library_that_is_missing.ops as ops
from another_missing_library import datasets, transforms

os.makedirs("images")
parser = argparse.ArgumentParser()
parser.add_argument("--latent_dim", type=int, default=5)
parser.add_argument("--width", type=int, default=7)
parser.add_argument("--data", required=True)
parser.add_argument("output")
opt = parser.parse_args()
print(opt)

cuda = torch.cuda.is_available()

def weights_init(m):
    if isinstance(m, nn.Linear):
        nn.init.constant_(m.weight, 0.5)

class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(opt.latent_dim, opt.width)
    def forward(self, z):
        return torch.tanh(self.fc(z))

class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(opt.width, 1)
    def forward(self, x):
        return torch.sigmoid(self.fc(x))

generator = Generator()
discriminator = Discriminator()
if cuda:
    generator.cuda()
generator.apply(weights_init)
open("downloaded", "w").write("")
loader = torch.utils.data.DataLoader(datasets.MNIST("data", download=True))
optimizer = torch.optim.Adam(generator.parameters())
for epoch in range(3):
    open("trained", "w").write("")
    sys.exit("training ran")
while True:
    open("trained", "w").write("")
"""


def test_a_training_script_is_not_run(probe_files: Probe, tmp_path: Path) -> None:
    (result,) = probe_files("gan.py", files={"gan.py": GAN})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gan.py"]
    assert result.output == ""
    models = {facts.name: facts for facts in result.models}
    assert list(models) == ["generator", "discriminator"]
    weight = models["generator"].parameter("fc.weight")
    assert weight is not None
    assert weight.shape == (7, 5)
    assert weight.stats is not None
    assert (weight.stats.minimum, weight.stats.maximum) == (0.5, 0.5)
    assert weight.writes[-1].op == "constant_"
    assert weight.writes[-1].site is not None
    assert "nn.init.constant_" in Path(tmp_path, "gan.py").read_text().splitlines()[weight.writes[-1].site.line - 1]


def test_stand_ins_are_noted_once_each(probe_files: Probe) -> None:
    (result,) = probe_files("gan.py", files={"gan.py": GAN})
    notes = [note for note in result.models[0].notes if "stand-in" in note]
    assert len(notes) == 3
    assert notes[0].startswith("line 7: numpy_like_library_that_is_missing.ops could not be imported")
    assert any("data" in note and "left empty" in note for note in result.models[0].notes)


def test_full_import_runs_the_file(probe_files: Probe, tmp_path: Path) -> None:
    code = "from torch import nn\nfor i in range(2):\n    open('ran', 'w').write('')\nnet = nn.Linear(2, 2)\n"
    (result,) = probe_files("run.py", files={"run.py": code}, import_mode="full")
    assert (tmp_path / "ran").exists()
    assert [facts.name for facts in result.models] == ["net"]


def test_the_main_block_is_not_run_and_a_name_used_late_is_provided(probe_files: Probe, tmp_path: Path) -> None:
    code = """
    import torch
    from torch import nn
    def make(name):
        return globals()[name]
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(getattr(Net, "width", 3), eval("WIDTH"))
        def forward(self, x):
            return self.fc(x)
    WIDTH = max(4, 2)
    if __name__ == "__main__":
        open("ran", "w").write("")
    """
    (result,) = probe_files("late.py", files={"late.py": code})
    assert [facts.name for facts in result.models] == ["Net"]
    assert result.models[0].parameters[0].shape == (4, 3)
    assert not (tmp_path / "ran").exists()


def test_files_in_packages_have_their_real_names(probe_files: Probe) -> None:
    files = {
        "app/__init__.py": "from .models import net\n",
        "app/models/__init__.py": "",
        "app/models/layers.py": """
            from torch import nn
            class Block(nn.Module):
                def __init__(self):
                    super().__init__()
                    self.fc = nn.Linear(2, 2)
                def forward(self, x):
                    return self.fc(x)
            """,
        "app/models/net.py": """
            import torch
            from torch import nn
            from .layers import Block
            from ..config import WIDTH
            class Net(nn.Module):
                def __init__(self):
                    super().__init__()
                    assert __name__ == "app.models.net", __name__
                    self.block = Block()
                    self.head = nn.Linear(2, WIDTH)
                def forward(self, x):
                    return self.head(self.block(x))
            for i in range(2):
                open("trained", "w").write("")
            """,
        "app/config.py": "WIDTH = 3\n",
    }
    (result,) = probe_files("app/models/net.py", files=files)
    (facts,) = result.models
    assert facts.target == "app/models/net.py::Net"
    assert {m.cls for m in facts.modules} >= {"app.models.net.Net", "app.models.layers.Block"}
    (result,) = probe_files("app.models.net:Net", files=files)
    assert result.models[0].target == "app.models.net:Net"


def test_relative_imports_without_init_files(probe_files: Probe) -> None:
    files = {
        "src/parts.py": "from torch import nn\nWIDTH = 3\n",
        "src/net.py": """
            from torch import nn
            from .parts import WIDTH
            class Net(nn.Module):
                def __init__(self):
                    super().__init__()
                    self.fc = nn.Linear(WIDTH, 2)
                def forward(self, x):
                    return self.fc(x)
            """,
    }
    (result,) = probe_files("src/net.py", files=files)
    assert [facts.name for facts in result.models] == ["Net"]


def test_modules_are_found_from_the_project_root(probe_files: Probe) -> None:
    files = {
        "pyproject.toml": "",
        "common/sizes.py": "WIDTH = 3\n",
        "scripts/deep/net.py": """
            from torch import nn
            from common.sizes import WIDTH
            class Net(nn.Module):
                def __init__(self):
                    super().__init__()
                    self.fc = nn.Linear(WIDTH, 2)
                def forward(self, x):
                    return self.fc(x)
            """,
    }
    (result,) = probe_files("scripts/deep/net.py", files=files)
    assert [facts.name for facts in result.models] == ["Net"]


def test_a_missing_module_that_the_model_needs_is_named(probe_files: Probe) -> None:
    code = """
    from torch import nn
    from missing_library import Base, size, typed
    class Built(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(size(3), 2)
    class Derived(Base):
        def forward(self, x):
            return x
    class Annotated(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 2)
        @typed
        def forward(self, x: "Base[int]") -> Base["3"]:
            return self.fc(x) if not isinstance(x, Base) else x
    """
    (result,) = probe_files("model.py", files={"model.py": code})
    assert [facts.name for facts in result.models] == ["Annotated"]
    found = {m.target: m for m in result.not_analysed}
    for name in ("Built", "Derived"):
        assert "missing_library" in found[f"model.py::{name}"].reason
        assert found[f"model.py::{name}"].hint == "Install missing_library into this environment."


def test_a_syntax_error_is_one_line(probe_files: Probe) -> None:
    (result,) = probe_files("bad.py", files={"bad.py": "import torch\nclass Net(:\n"})
    (missing,) = result.not_analysed
    assert missing.reason == "bad.py:2: syntax error: invalid syntax"


def test_file_names_that_python_has_itself(probe_files: Probe) -> None:
    code = """
    from torch import nn
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 2)
        def forward(self, x):
            return self.fc(x)
    """
    results = probe_files("types.py", "my-model.py", files={"types.py": code, "my-model.py": code})
    assert [facts.target for result in results for facts in result.models] == ["types.py::Net", "my-model.py::Net"]
    assert [facts.status for result in results for facts in result.models] == ["analysed", "analysed"]


def test_example_inputs_and_lines_survive_the_cut(probe_files: Probe) -> None:
    code = """
    import torch
    from torch import nn
    SHAPE = (4, 3)
    print("never")
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 2)
            raise_at = __import__("sys")._getframe().f_lineno
            assert raise_at == 10, raise_at
        def forward(self, x):
            return self.fc(x)
    def example_inputs():
        return (torch.zeros(SHAPE),)
    """
    (result,) = probe_files("model.py", files={"model.py": code})
    (facts,) = result.models
    assert facts.inputs[0].shape == (4, 3)
    assert facts.line == 6
    created = facts.parameters[0].created
    assert created is not None
    assert (created.line, created.text) == (9, "self.fc = nn.Linear(3, 2)")


LIGHTNING = """
import lightning.of_another_world as pl
from torch import nn
class Lit(pl.LightningModule):
    def __init__(self, hidden=32, lr=1e-3):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Linear(8, self.hparams.hidden)
    def forward(self, x):
        return self.net(x)
"""


def test_a_missing_lightning_module_is_replaced_by_a_torch_module(probe_files: Probe) -> None:
    (result,) = probe_files("lit.py", files={"lit.py": LIGHTNING})
    (facts,) = result.models
    assert (facts.status, facts.parameters[0].shape) == ("analysed", (32, 8))
    assert any("lightning.of_another_world could not be imported" in note for note in facts.notes)


REGISTERED = """
from torch import nn
from a_private_library import Registry, HubMixin
MODELS = Registry("models")
@MODELS.register_module(name="net")
class Net(nn.Module, HubMixin, Registry, license="mit", tags=["audio"]):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 4)
    def forward(self, x):
        return self.layer(x)
"""


def test_missing_registries_and_mixins_are_left_out(probe_files: Probe) -> None:
    (result,) = probe_files("net.py", files={"net.py": REGISTERED})
    (facts,) = result.models
    assert facts.status == "analysed"
    assert any("Net is defined without @MODELS.register_module(name='net')" in note for note in facts.notes)


STAND_INS = """
import absent_library
from absent_library import ops
from torch import nn


class Versioned(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(3, 8, 3, padding=1)
        self.two = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x):
        if tuple(int(i) for i in absent_library.__version__.split(".")[:2]) >= (0, 9):
            return self.two(self.one(x))
        raise RuntimeError("too old")


class Calling(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(16, 8)

    def forward(self, x):
        return ops.suppress(self.one(x))


class Comparing(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(16, 8)

    def forward(self, x):
        return self.one(x) if absent_library.LEVEL > 2 else x
"""


def test_a_stand_in_has_a_version(probe_files: Probe) -> None:
    (result,) = probe_files("model.py", files={"model.py": STAND_INS})
    facts = next(m for m in result.models if m.name == "Versioned")
    assert (facts.status, facts.trace.ran, facts.trace.coverage) == ("analysed", True, 1.0)


def test_where_a_stand_in_fails_no_inputs_are_asked_for(probe_files: Probe) -> None:
    (result,) = probe_files("model.py", files={"model.py": STAND_INS})
    for name, what in (("Calling", "absent_library.ops.suppress"), ("Comparing", "absent_library.LEVEL")):
        facts = next(m for m in result.models if m.name == name)
        assert facts.status == "partial"
        assert f"it needs {what}, which cannot be imported here: No module named 'absent_library'" in facts.reason
        assert "Install absent_library into this environment." in facts.reason
        assert "--input" not in facts.reason


def test_what_to_install_is_a_distribution() -> None:
    assert remedy("cv2.dnn", "") == "Install opencv-python into this environment."
    assert remedy("utils.draw", "No module named 'PIL'") == "Install pillow into this environment."
    assert remedy("pkg_resources", "") == "Install 'setuptools<81' into this environment."
    assert remedy("absent.part", "No module named 'absent'") == "Install absent into this environment."
    there = remedy("json.absent", "cannot import name 'absent' from 'json'")
    assert there == "Install a version of json in which that import works, or mend the import."
