"""Small models whose initialisation is right, each with inputs: the linter has nothing to say on them.

``HEALTHY`` holds models of the common kinds, ``SUSPICIOUS`` those that look wrong and are not. The tests of silence and
the benchmark on mutations share them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from . import dense, generative, sequence, vision


@dataclass(frozen=True, slots=True)
class Case:
    """A model: how it is built, arguments for its forward, what family it is of."""

    build: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Any, ...]]
    family: str


def _floats(*shape: int) -> Callable[[], tuple[Any, ...]]:
    return lambda: (torch.randn(*shape),)


def _tokens(high: int = 100, count: int = 1, shape: tuple[int, int] = (4, 12)) -> Callable[[], tuple[Any, ...]]:
    return lambda: tuple(torch.randint(1, high, shape) for _ in range(count))


_IMAGE = _floats(4, 3, 32, 32)
_TEXT = _tokens()

HEALTHY: Mapping[str, Case] = {
    "default_mlp": Case(dense.default_mlp, _floats(8, 784), "mlp"),
    "nerf": Case(dense.RadianceField, _floats(16, 63), "mlp"),
    "he_mlp": Case(dense.he_mlp, _floats(16, 128), "mlp"),
    "selu": Case(dense.SelfNormalising, _floats(16, 128), "mlp"),
    "tanh_orthogonal": Case(dense.TanhOrthogonal, _floats(16, 96), "mlp"),
    "autoencoder": Case(dense.autoencoder, _floats(8, 784), "mlp"),
    "vae": Case(dense.VariationalAutoencoder, _floats(8, 784), "mlp"),
    "actor_critic": Case(dense.ActorCritic, _floats(16, 24), "mlp"),
    "pointnet": Case(dense.PointNet, _floats(4, 3, 40), "mlp"),
    "gcn": Case(dense.GraphConvolution, dense.graph_inputs, "mlp"),
    "lora": Case(dense.lora_mlp, _floats(8, 64), "mlp"),
    "resnet": Case(vision.ResNet, _IMAGE, "conv"),
    "se_resnet": Case(partial(vision.ResNet, gated=True), _IMAGE, "conv"),
    "mobilenet": Case(vision.MobileNet, _IMAGE, "conv"),
    "convnext": Case(vision.ConvNeXt, _IMAGE, "conv"),
    "fixup": Case(vision.FixupNet, _floats(4, 3, 16, 16), "conv"),
    "norm_free": Case(vision.NormFreeNet, _floats(4, 3, 16, 16), "conv"),
    "unet": Case(vision.SegmentationUNet, _IMAGE, "conv"),
    "detection": Case(vision.DetectionHead, _floats(2, 3, 16, 16), "conv"),
    "mixer": Case(vision.Mixer, _IMAGE, "conv"),
    "lstm": Case(sequence.LSTMClassifier, _TEXT, "sequence"),
    "seq2seq": Case(sequence.Translator, _tokens(count=2), "sequence"),
    "gpt": Case(sequence.GPT, _TEXT, "transformer"),
    "t5": Case(sequence.T5Encoder, _TEXT, "transformer"),
    "bert": Case(sequence.BERT, _TEXT, "transformer"),
    "vit": Case(sequence.ViT, _IMAGE, "transformer"),
    "encoder": Case(sequence.DefaultEncoder, _floats(4, 10, 64), "transformer"),
    "mamba": Case(sequence.Mamba, _tokens(shape=(2, 6)), "sequence"),
    "dcgan_generator": Case(generative.dcgan_generator, _floats(4, 64, 1, 1), "generative"),
    "dcgan_discriminator": Case(generative.dcgan_discriminator, _IMAGE, "generative"),
    "spectral_norm": Case(generative.spectral_discriminator, _IMAGE, "generative"),
    "diffusion_unet": Case(
        generative.DiffusionUNet, lambda: (torch.randn(2, 3, 16, 16), torch.tensor([3, 700])), "generative"
    ),
}

SUSPICIOUS: Mapping[str, Case] = {
    "zero_last_layer": Case(dense.zero_last_layer, _floats(8, 32), "mlp"),
    "zero_conv_and_adaln": Case(
        generative.DiffusionTransformer, lambda: (torch.randn(4, 16, 48), torch.tensor([1, 2, 3, 4])), "generative"
    ),
    "zero_gamma": Case(partial(vision.ResNet, zero_gamma=True), _IMAGE, "conv"),
    "lora_reversed": Case(partial(dense.lora_mlp, reverse=True), _floats(8, 64), "mlp"),
    "lora_embedding": Case(dense.LowRankEmbedding, _TEXT, "mlp"),
    "fan_out_throughout": Case(vision.fan_out_convs, _floats(2, 3, 16, 16), "conv"),
    "zero_positions": Case(partial(sequence.GPT, zero_positions=True), _TEXT, "transformer"),
    "zero_biaffine": Case(sequence.BiaffineParser, _TEXT, "sequence"),
    "zero_classifier": Case(dense.zero_classifier, _floats(8, 50), "mlp"),
    "centre_bias": Case(vision.CentreHeads, _IMAGE, "conv"),
    "siren": Case(dense.siren, _floats(64, 2), "mlp"),
    "equalised_mapping": Case(generative.EqualisedMapping, _floats(16, 64), "generative"),
    "equalised_discriminator": Case(generative.EqualisedDiscriminator, _IMAGE, "generative"),
    "default_two_layers": Case(partial(dense.default_mlp, depth=2), _floats(8, 784), "mlp"),
    "default_five_layers": Case(partial(dense.default_mlp, depth=5), _floats(8, 784), "mlp"),
    "convnext_head_scale": Case(partial(vision.ConvNeXt, head_scale=1.0), _IMAGE, "conv"),
}
