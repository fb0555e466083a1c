"""What looks wrong and is right: reported again and again as bugs in public repositories, and always intended.

Each pattern has a source where it was asked about; the linter must say nothing at warning or above.
"""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import healthy_models  # noqa: E402  (benchmarks/, put on the path by the conftest beside this file)

import initlint  # noqa: E402
from initlint.findings import Severity  # noqa: E402

#: Three draws; the second and third cost minutes and are marked so.
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))]

#: model -> where somebody took it for a bug
SOURCES = {
    "zero_last_layer": "facebookresearch/DiT#82, openai/improved-diffusion#130",
    "zero_conv_and_adaln": "facebookresearch/DiT#82, ckczzj/PDAE#3",
    "zero_gamma": "google-deepmind/sonnet#185, tensorpack/tensorpack#420",
    "lora_reversed": "microsoft/LoRA#76, huggingface/peft#1060: exactly one factor must be zero, either one",
    "lora_embedding": "microsoft/LoRA#98",
    "fan_out_throughout": "ClementPinard/FlowNetPytorch#19: the ratios telescope",
    "zero_positions": "karpathy/minGPT#62",
    "zero_biaffine": "yzhangcs/parser#100",
    "zero_classifier": "jthickstun/pytorch_musicnet#4",
    "centre_bias": "xingyizhou/CenterNet#590: -2.19 is a prior of 0.1",
    "siren": "vsitzmann/siren#4, #17",
    "equalised_mapping": "lucidrains/stylegan2-pytorch#112",
    "equalised_discriminator": "nashory/pggan-pytorch#32",
    "default_two_layers": "the default of nn.Linear is no error by itself",
    "default_five_layers": "the default of nn.Linear is no error by itself",
    "convnext_head_scale": "huggingface/pytorch-image-models#1718",
}


def test_every_pattern_has_a_source() -> None:
    assert set(SOURCES) == set(healthy_models.SUSPICIOUS)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", [*SOURCES, "dcgan_generator", "dcgan_discriminator", "lora"])
def test_correct_pattern_is_silent(name: str, seed: int) -> None:
    case = {**healthy_models.HEALTHY, **healthy_models.SUSPICIOUS}[name]
    torch.manual_seed(seed)
    run = initlint.check(case.build, inputs=case.inputs(), seed=seed, name=name)
    assert run.models, run.not_analysed
    loud = [(f.code, f.message, f.parameters[:3], f.effect) for f in run.findings if f.severity >= Severity.WARNING]
    assert not loud
