"""Fixtures that all tests may use."""

from __future__ import annotations

import compileall
import os
import subprocess
import sys
import textwrap
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent

# An installation compiles what it installs; a checkout is compiled as it is imported, unless the environment sets
# PYTHONDONTWRITEBYTECODE: then each of the hundreds of processes that the tests start would compile 300 files anew.
for _source in ("initlint", "rules"):
    compileall.compile_dir(ROOT / _source, quiet=2)


# How long one example takes says something about the machine, not about the code.
hypothesis.settings.register_profile("initlint", deadline=None)
hypothesis.settings.load_profile("initlint")


@dataclass(frozen=True)
class Result:
    """What a call of the command line gave."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Standard output as JSON."""
        import json

        return json.loads(self.out)


@pytest.fixture
def lines_run() -> Callable[[Callable[[], object]], int]:
    """How many lines of Python a call runs: a cost that is the same on every machine, however busy."""

    def count(call: Callable[[], object]) -> int:
        lines = 0

        def trace(_frame: types.FrameType, event: str, _arg: object) -> Callable[..., Any]:
            nonlocal lines
            lines += event == "line"
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            call()
        finally:
            sys.settrace(before)
        return lines

    return count


@pytest.fixture
def shared() -> Path:
    """The folder of shared models beside the checkout; the test is skipped where it is absent."""
    path = ROOT.parent / "shared"
    if not path.is_dir():
        pytest.skip("needs the models that are kept beside the repository")
    return path


@pytest.fixture
def run_cli(tmp_path: Path) -> Callable[..., Result]:
    """Call initlint in a process of its own: ``run_cli("model.py", "--select", "IL1", cwd=folder)``.

    The working directory is ``tmp_path`` unless given; ``env`` is added to the environment.
    """

    def call(*arguments: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> Result:
        environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
        path = os.pathsep.join(filter(None, (str(ROOT), environment.get("PYTHONPATH", ""))))
        environment |= {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", **(env or {})}
        done = subprocess.run(
            [sys.executable, "-m", "initlint", *map(str, arguments)],
            cwd=cwd or tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def analyse(tmp_path: Path) -> Callable[..., Any]:
    """Facts of the model in a piece of source, probed in this process: ``analyse("class Net(nn.Module): ...")``.

    The source gets the usual imports (torch, nn, F, math). The last ``nn.Module`` subclass in it is built without
    arguments, unless ``name`` says which.
    """

    def call(source: str, *, name: str = "", inputs: Any = None, **options: Any) -> Any:
        import importlib.util

        from torch import nn

        from initlint.options import ProbeOptions
        from initlint.probe import pipeline

        file = tmp_path / "model.py"
        head = "import math\nimport torch\nimport torch.nn.functional as F\nfrom torch import nn\n"
        file.write_text(head + textwrap.dedent(source), "utf-8")
        spec = importlib.util.spec_from_file_location("model_under_test", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        classes = [
            key
            for key, value in vars(module).items()
            if isinstance(value, type) and issubclass(value, nn.Module) and value.__module__ == module.__name__
        ]
        chosen = name or classes[-1]
        return pipeline.analyse(
            getattr(module, chosen),
            name=chosen,
            target=f"model.py::{chosen}",
            options=ProbeOptions(cwd=str(tmp_path), **options),
            namespace=vars(module),
            inputs=inputs,
        )

    return call
