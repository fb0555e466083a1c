"""Small models of many kinds, each as it should start and broken in one way that happens in practice.

What must be said of the broken one follows from DESIGN's severity table, worked out by hand beside each case; of the
healthy one nothing at warning or above.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from twins import deep, plain, structured


@dataclass(frozen=True, slots=True)
class Twin:
    """A pair of models: ``model(broken)`` builds either."""

    model: Any
    inputs: Any
    codes: tuple[str, ...]  # one of these is what must be said of the broken one
    lowest: str
    highest: str
    why: str  # how the severity follows


def twin(model: Any, inputs: Any, codes: str, levels: str, why: str) -> Twin:
    lowest, _, highest = levels.partition("-")
    return Twin(model, inputs, tuple(codes.split()), lowest, highest or lowest, why)


def noise(*shape: int) -> Any:
    return lambda: (torch.randn(*shape),)


def half(*shape: int) -> Any:
    return lambda: (torch.randn(*shape, dtype=torch.float16),)


def tokens(*shape: int, size: int = 50) -> Any:
    return lambda: (torch.randint(0, size, shape),)


TWINS: dict[str, Twin] = {
    "cnn_default": twin(plain.cnn_default, noise(4, 3, 16, 16), "IL103 IL205", "error",
        "PyTorch's default keeps 1/6 a layer: 1e-10 of the input-dependent part after 14"),
    "cnn_small": twin(plain.cnn_small, noise(4, 3, 16, 16), "IL101", "error",
        "std .01 at fan 288: 1/69 of He's variance a layer, 1e-24 after 13"),
    "tanh_unit_normal": twin(plain.tanh_unit_normal, noise(16, 64), "IL207 IL101", "error",
        "pre-activations of std 8: 2 Phi(-2/8) = 80 % saturated"),
    "sigmoid_deep": twin(plain.sigmoid_deep, noise(16, 64), "IL203 IL205", "error",
        "sigmoid'^2 is .06 at most: gradients of 10 Xavier layers fall 1e-12"),
    "prelu_gain_as_slope": twin(plain.prelu_gain_as_slope, noise(4, 3, 16, 16), "IL110", "warning-error",
        "2 / (1 + 2) instead of 2 / 1.0625: .35 a layer, 1e-5 after 12: a mistake, from a factor 2"),
    "selu_he": twin(plain.selu_he, noise(16, 64), "IL104", "note-warning",
        "He before SELU: q grows 60-fold over 16 layers, less than the 100 of a warning"),
    "negative_biases": twin(plain.negative_biases, noise(16, 64), "IL208", "error",
        "mean -4 beside std 1: 2/3 and more of the units never fire in 256 samples"),
    "loud_head": twin(plain.loud_head, noise(16, 64), "IL209 IL101", "error",
        "N(0, 1) on 512 features of second moment 1: logits of std 22, many ln C"),
    "half_precision": twin(plain.half_precision, half(16, 64), "IL101 IL210 IL202", "error",
        "N(0, 1) weights of width 64: 32-fold a layer, past 65504 after 7"),
    "ordered_tanh": twin(plain.ordered_tanh, noise(16, 64), "IL205 IL203", "error",
        "sigma_w^2 = .5 and biases N(0, 1): what differs between inputs falls 4-fold a layer, 1e12 over 20"),
    "chaotic_tanh": twin(plain.chaotic_tanh, noise(16, 256), "IL212 IL204 IL207 IL101 IL503", "note-error",
        "gain 4: gradients grow 2.2-fold a layer or more while activations stay within 1"),
    "gru_normal": twin(deep.gru_normal, noise(4, 20, 32), "IL101 IL204 IL207 IL301", "note-warning",
        "gates of N(0, 1) weights saturate; what repeats over time is a warning at most"),
    "vit_normal": twin(deep.vit_normal, noise(2, 3, 32, 32), "IL211 IL101 IL209", "warning-error",
        "queries and keys of std 8 each: logits of std 64 / sqrt(16) per key, one-hot"),
    "mixer_constant": twin(deep.mixer_constant, noise(2, 16, 32), "IL004", "error",
        "constant weights: hidden units stay equal for ever"),
    "residual_unscaled": twin(deep.residual_unscaled, noise(8, 64), "IL202 IL204 IL101", "warning-error",
        "x + f(x) with a branch as large as the stream doubles q a block: 2^40 = 1e12"),
    "post_norm_clones": twin(deep.post_norm_clones, noise(2, 12, 32), "IL006", "note-warning",
        "nn.TransformerEncoder copies one layer: bit-identical, but in series, so that they part"),
    "autoencoder_transposed": twin(structured.autoencoder_transposed, noise(2, 3, 32, 32), "IL106 IL101",
        "warning-error", "fan_in of a transposed convolution read from its output channels"),
    "critic_norm_gain": twin(structured.critic_norm_gain, noise(4, 3, 32, 32), "IL007", "warning-error",
        "batch-norm gains N(0, .02) instead of N(1, .02): 4e-4 of the signal at each"),
    "unet_mean_for_std": twin(structured.unet_mean_for_std, noise(2, 3, 16, 16), "IL109", "note-error",
        "normal_(w, 1.0, 0.02): the mean is one"),
    "mobile_groups": twin(structured.mobile_groups, noise(2, 3, 16, 16), "IL105", "warning-error",
        "fan_out over all groups of a depthwise convolution: 1/64 of the variance a layer, no norm behind"),
    "tied_lm": twin(structured.tied_lm, tokens(2, 16), "IL305 IL209", "warning-error",
        "a table N(0, 1) that is also the head after a norm: logits of std sqrt(256) = 16"),
    "bag_classifier": twin(structured.bag_classifier, tokens(4, 12), "IL101", "warning-error",
        "a table of std 30: 900 times the widest convention"),
}  # fmt: skip
