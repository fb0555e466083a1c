"""Small models of each architecture's conventions: the bug and its innocent siblings, side by side in one file."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
MODELS = ROOT / "tests" / "corpus" / "architecture"
RULES = (
    *(f"IL30{i}" for i in (3, 6, 8, 9)),
    *(f"IL31{i}" for i in range(3, 10)),
    "IL004",
    "IL321",
    "IL322",
    "IL323",
    "IL324",
    "IL325",
    "IL326",
)
#: What is said of each class, and at which severity; of every other class of the files nothing is said.
EXPECTED: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "recurrent": {
        "HandCell": ("IL303", "warning"),
        "HandCat": ("IL303", "warning"),
        "BiTwo": ("IL303", "warning"),
        "Quarter": ("IL303", "warning"),
        "OutputGate": ("IL303", "warning"),
        "GruNeg": ("IL303", "note"),
        "XavierLSTM": ("IL309", "note"),
    },
    "scalars": {
        "A1": ("IL321", "error"),
        "A2": ("IL321", "warning"),
        "A3": ("IL321", "warning"),
        "A4": ("IL321", "warning"),
        "A8": ("IL321", "warning"),
        "B1": ("IL319", "error"),
        "B2": ("IL319", "error"),
        "B4": ("IL321", "warning"),
        "B5": ("IL319", "error"),
        "B6": ("IL319", "error"),
        "B7": ("IL319", "error"),
        "B9": ("IL319", "error"),
    },
    "priors": {
        "P1": ("IL315", "error"),
        "P3": ("IL315", "warning"),
        "P4": ("IL315", "warning"),
        "P5": ("IL315", "warning"),
        "P7": ("IL315", "warning"),
        "Q2": ("IL315", "warning"),
        "Q3": ("IL316", "error"),
    },
    "experts": {
        "Mix": ("IL317", "warning"),
        "Top1": ("IL004", "warning"),
        "BareZero": ("IL317", "warning"),
        "Repeat": ("IL318", "warning"),
        "LoopCopy": ("IL318", "warning"),
        "BigRouter": ("IL326", "warning"),
    },
    "transforms": {
        "Default": ("IL313", "warning"),
        "OnlyBias": ("IL313", "note"),
        "Swapped": ("IL313", "warning"),
        "Ones": ("IL313", "warning"),
        "ZeroW_DefaultB": ("IL313", "warning"),
        "ResidualDefault": ("IL313", "note"),
        "S": ("IL313", "warning"),
    },
    "strengths": {"Net": ("IL308", "warning"), "N1": ("IL308", "warning"), "N2": ("IL308", "warning")},
    "writers": {
        "T_onlyattn": ("IL306", "warning"),
        "T_qkv": ("IL306", "warning"),
        "T_w1": ("IL306", "warning"),
        "T_mul": ("IL306", "warning"),
        "T_scores": ("IL306", "warning"),
    },
    "modulation": {
        "A_shiftscale": ("IL322", "warning"),
        "A_wrongfirst": ("IL322", "warning"),
        "A_half": ("IL322", "warning"),
    },
    "gates": {"HwPos": ("IL324", "warning"), "HwCarryNeg": ("IL324", "warning")},
    "routers": {
        "Mixture": ("IL326", "warning"),
        "BestTwo": ("IL326", "warning"),
        "Renormalised": ("IL326", "warning"),
        "Dispatched": ("IL326", "warning"),
    },
    "depth_gains": {
        "Chooses": ("IL325", "warning"),
        "NoValues": ("IL325", "note"),
        "NoFeedForward": ("IL325", "warning"),
        "Inverse": ("IL325", "warning"),
        "AlphaForBeta": ("IL325", "warning"),
        "DeepNormChooses": ("IL325", "note"),
    },
    "state_space": {
        "M_rawA": ("IL323", "warning"),
        "M_pos": ("IL323", "warning"),
        "M_dtraw": ("IL314", "warning"),
        "M_dtzero": ("IL314", "note"),
        "H_long": ("IL314", "note"),
        "H_forgets": ("IL314", "warning"),
    },
}


@pytest.fixture(scope="module")
def said() -> dict[str, dict[str, list[tuple[str, str]]]]:
    """What is said of each model, by file and class; of those that were analysed."""
    command = [sys.executable, "-m", "initlint", *(str(MODELS / f"{name}.py") for name in EXPECTED)]
    command += ["--output-format", "json", "--no-cache", "--fail-on", "never", "--select", ",".join(RULES)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    data = json.loads(done.stdout)
    found: dict[str, dict[str, list[tuple[str, str]]]] = {name: {} for name in EXPECTED}
    for model in data["models"]:
        file, _, name = model["target"].rpartition("::")
        if model["status"] != "failed":
            found[Path(file).stem].setdefault(name, [])
    for finding in data["findings"]:
        file, _, name = finding["model"].rpartition("::")
        found[Path(file).stem].setdefault(name, []).append((finding["code"], finding["severity"]))
    return found


@pytest.mark.parametrize("file", list(EXPECTED))
def test_each_bug_is_found_once_and_its_siblings_are_not(
    said: dict[str, dict[str, list[tuple[str, str]]]], file: str
) -> None:
    wanted = {model: [entry] for model, entry in EXPECTED[file].items()}
    assert {model: found for model, found in said[file].items() if found} == wanted
    assert len(said[file]) > len(wanted)  # innocent siblings were looked at too
