"""Files that are generated are what their generator writes now."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("generator_under_test", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_rules_page_is_current() -> None:
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _figures_aside(text: str) -> str:
    """Digits and drawings aside: figures may differ in their last digits from one processor to the next."""
    return re.sub(r"<svg.*?</svg>", "", re.sub(r"[-+]?\d[\d.,e+-]*", "0", text), flags=re.DOTALL)


@pytest.mark.parametrize("page", ["README.md", "docs/guide.md"])
def test_shown_outputs_are_current(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    generator = _load(ROOT / "docs" / "generate.py")
    assert text.count("<!-- output of: ") == len(generator._OUTPUT.findall(text)) > 0
    now = generator.with_outputs(text)
    assert _figures_aside(now) == _figures_aside(text), f"{page}: run python docs/generate.py"
    assert "OUTPUT" not in text


def test_the_gallery_is_current(tmp_path: Path) -> None:
    gallery = ROOT / "reports" / "gallery"
    if not gallery.is_dir():
        pytest.skip("the gallery is not part of a source distribution")
    made = _load(gallery / "generate.py").reports(tmp_path)
    assert sorted(made) == sorted(file.name for file in gallery.iterdir() if file.suffix in (".html", ".txt"))
    for name, text in made.items():
        kept = (gallery / name).read_text("utf-8")
        assert _figures_aside(text) == _figures_aside(kept), f"{name}: run python reports/gallery/generate.py"
