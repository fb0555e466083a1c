"""Conditions around init statements that do not test what they plainly mean, beside such as look alike."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from initlint.facts import Misread
from initlint.probe.provenance import Recorder

MODEL = """
import torch
from torch import nn

HEADS = ("head",)
DEBUG = "on"


class Wide(nn.Linear):
    pass


class Model(nn.Module):
    def __init__(self, act="tanh", extra=None, prefix="x"):
        super().__init__()
        self.act = act
        self.stem, self.mid = nn.Linear(4, 4), Wide(4, 4)
        self.conv = nn.Conv1d(4, 4, 1)
        self.head = nn.Linear(4, 2)
        for name, m in self.named_modules():
            kind = type(m).__name__
            if not hasattr(m, "weight"):
                continue
            if CONDITION:
                nn.init.normal_(m.weight, std=0.01)
            else:
                nn.init.ones_(m.weight)
"""


def misread(folder: Path, text: str) -> list[Misread]:
    path = folder / "model.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("misread_model", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with Recorder() as recorder:
        spec.loader.exec_module(module)
        model = module.Model()
    return list(recorder.record(model).misread)


def layers(names: tuple[str, ...]) -> str:
    return " ".join(name.removesuffix(".weight") for name in names if name.endswith(".weight"))


@pytest.mark.parametrize(
    ("condition", "beyond", "lacking"),
    [
        ('"stem" or "head" in name', "mid conv", ""),
        ('"stem" in name or "head"', "mid conv", ""),
        ('"stem" in name or "head" or "mid" in name', "conv", ""),
        ('name == "stem" or "head"', "mid conv", ""),
        ('name == "stem" or ("mid", "head")', "conv", ""),
        ('name in ("stem", "mid") or "head"', "conv", ""),
        ('name.startswith("st") or "he"', "mid conv", ""),
        ('name.endswith("stem") or "head"', "mid conv", ""),
        ('name.find("stem") != -1 or "head"', "mid conv", ""),
        ('kind.find("Conv") >= 0 or "Wide"', "stem head", ""),
        ('kind == "Conv1d" or "Wide"', "stem head", ""),
        ("isinstance(m, nn.Conv1d) or Wide", "stem head", ""),
        ("isinstance(m, nn.Conv1d) or (Wide, nn.Bilinear)", "stem head", ""),
        ("type(m) == nn.Conv1d or Wide", "stem head", ""),
        ("type(m) is Wide or nn.Conv1d or nn.Bilinear", "stem head", ""),
        ("m.__class__ in (nn.Conv1d, nn.Bilinear) or Wide", "stem head", ""),
        ('"stem" not in name or "head"', "stem head", ""),
        ("not isinstance(m, nn.Conv1d) or Wide", "mid conv", ""),
        ('m.bias is not None and ("stem" or "head" in name)', "mid conv", ""),
        ('"m" and "ste" in name', "", ""),
        ('"d" and "e" in name', "stem", ""),
        ('("stem" or "head") in name', "", "head"),
        ('name == ("stem" or "head")', "", "head"),
        ('name.startswith("st" or "he")', "", "head"),
        ('("d" and "e") in name', "stem", ""),
        ('act == "relu" or "gelu"', "stem mid conv head", ""),
        ('self.act == "relu" or "gelu"', "stem mid conv head", ""),
    ],
)
def test_read_as_it_is_meant(tmp_path: Path, condition: str, beyond: str, lacking: str) -> None:
    found = misread(tmp_path, MODEL.replace("CONDITION", condition))
    assert [(layers(item.beyond), layers(item.lacking)) for item in found] == (
        [(beyond, lacking)] if beyond or lacking else []
    )
    for item in found:
        assert item.text == condition
        assert (item.first, item.otherwise) == (item.site.line + 1, True)
        # what is taken away from a branch is due to it
        (due,) = item.due
        assert due.site.line == item.site.line + (3 if beyond else 1)
        assert layers(due.parameters) == (beyond or lacking)


@pytest.mark.parametrize(
    "condition",
    [
        '"stem" in name or "head" in name',
        'name in ("stem", "head")',
        'name == "stem" or name == "head"',
        'any(key in name for key in ("stem", "head"))',
        "isinstance(m, nn.Conv1d) or isinstance(m, Wide)",
        "isinstance(m, (nn.Conv1d, Wide))",
        'True or "stem" in name',
        '1 or "stem" in name',
        '"stem" in name or True',
        'DEBUG or "stem" in name',  # a switch
        'prefix or "stem" in name',  # an option of the caller's
        "isinstance(m, nn.Conv1d) or extra",  # which may be absent
        '"" or "stem" in name',
        '(name or "root") == "stem"',
        '(extra or "stem") in name',
        'name.startswith(extra or "st")',
        'act == "tanh" or "relu"',
        'name == "stem" or HEADS',
        "m.bias is None or nn.Linear",  # what is compared with the class cannot be told
        "callable(extra) or print",
    ],
)
def test_what_looks_alike(tmp_path: Path, condition: str) -> None:
    assert not misread(tmp_path, MODEL.replace("CONDITION", condition))


def test_function_given_to_apply(tmp_path: Path) -> None:
    (found,) = misread(
        tmp_path,
        """
        |from torch import nn
        |
        |
        |def init(m):
        |    cls = m.__class__.__name__
        |    if cls.find("Conv") != -1 or "Linear" and hasattr(m, "weight"):
        |        nn.init.normal_(m.weight, std=0.02)
        |
        |
        |class Model(nn.Module):
        |    def __init__(self):
        |        super().__init__()
        |        self.conv, self.norm, self.fc = nn.Conv1d(2, 2, 1), nn.LayerNorm(2), nn.Linear(2, 2)
        |        for layer in self.children():
        |            layer.apply(init)
        """.replace("        |", ""),
    )
    assert layers(found.beyond) == "norm"
    assert not found.otherwise
    assert not found.due


def test_parameters_by_name(tmp_path: Path) -> None:
    (found,) = misread(
        tmp_path,
        """
        |from torch import nn
        |
        |
        |class Model(nn.Module):
        |    def __init__(self):
        |        super().__init__()
        |        self.rnn = nn.GRU(3, 3)
        |        for name, p in self.rnn.named_parameters():
        |            if ("weight_ih" or "weight_hh") in name:
        |                nn.init.orthogonal_(p)
        """.replace("        |", ""),
    )
    assert (found.beyond, found.lacking) == ((), ("rnn.weight_hh_l0",))
    assert found.due[0].parameters == ("rnn.weight_hh_l0",)
