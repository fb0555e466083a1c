"""Names of torch functions, methods and modules -> canonical ops, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


#: Elementwise functions: name -> (canonical fn, ((argument in facts, position, keyword, default), ...)).
Spec = tuple[str, tuple[tuple[str, int, str, float | None], ...]]


def _simple(*names: str) -> dict[str, Spec]:
    return {name: (name, ()) for name in names}


ACTIVATIONS: Mapping[str, Spec] = {
    **_simple(
        "relu",
        "relu6",
        "selu",
        "silu",
        "mish",
        "softsign",
        "tanh",
        "sigmoid",
        "logsigmoid",
        "hardswish",
        "hardsigmoid",
        "tanhshrink",
        "sin",
        "cos",
        "tan",
        "exp",
        "expm1",
        "log",
        "log1p",
        "log2",
        "log10",
        "sqrt",
        "rsqrt",
        "abs",
        "sign",
        "square",
        "reciprocal",
        "erf",
        "erfc",
        "asinh",
        "sinh",
        "cosh",
        "acos",
        "asin",
        "acosh",
        "atanh",
        "exp2",
        "sinc",
        "logit",
        "erfinv",
        "i0",
        "digamma",
        "lgamma",
    ),
    "swish": ("silu", ()),
    "log_sigmoid": ("logsigmoid", ()),
    "expit": ("sigmoid", ()),
    "absolute": ("abs", ()),
    "atan": ("arctan", ()),
    "arctan": ("arctan", ()),
    "arcsinh": ("asinh", ()),
    "sgn": ("sign", ()),
    "leaky_relu": ("leaky_relu", (("negative_slope", 1, "negative_slope", 0.01),)),
    "elu": ("elu", (("alpha", 1, "alpha", 1.0),)),
    "celu": ("celu", (("alpha", 1, "alpha", 1.0),)),
    "softplus": ("softplus", (("beta", 1, "beta", 1.0), ("threshold", 2, "threshold", 20.0))),
    "hardtanh": ("hardtanh", (("min", 1, "min_val", -1.0), ("max", 2, "max_val", 1.0))),
    "hardshrink": ("hardshrink", (("lambd", 1, "lambd", 0.5),)),
    "softshrink": ("softshrink", (("lambd", 1, "lambd", 0.5),)),
    "threshold": ("threshold", (("threshold", 1, "threshold", 0.0), ("value", 2, "value", 0.0))),
    "clamp": ("clamp", (("min", 1, "min", None), ("max", 2, "max", None))),
    "clip": ("clamp", (("min", 1, "min", None), ("max", 2, "max", None))),
    "clamp_min": ("clamp", (("min", 1, "min", None),)),
    "clamp_max": ("clamp", (("max", 1, "max", None),)),
    "rrelu": ("rrelu", (("lower", 1, "lower", 1 / 8), ("upper", 2, "upper", 1 / 3))),
}

#: Modules without parameters -> (function name, names of the attributes that are its further arguments).
STATELESS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "ReLU": ("relu", ()), "ReLU6": ("relu6", ()), "SELU": ("selu", ()), "SiLU": ("silu", ()), "Mish": ("mish", ()),
    "Softsign": ("softsign", ()), "Tanh": ("tanh", ()), "Sigmoid": ("sigmoid", ()), "LogSigmoid": ("logsigmoid", ()),
    "Hardswish": ("hardswish", ()), "Hardsigmoid": ("hardsigmoid", ()), "Tanhshrink": ("tanhshrink", ()),
    "LeakyReLU": ("leaky_relu", ("negative_slope",)), "ELU": ("elu", ("alpha",)), "CELU": ("celu", ("alpha",)),
    "Softplus": ("softplus", ("beta", "threshold")), "Hardtanh": ("hardtanh", ("min_val", "max_val")),
    "Hardshrink": ("hardshrink", ("lambd",)), "Softshrink": ("softshrink", ("lambd",)),
    "Threshold": ("threshold", ("threshold", "value")), "RReLU": ("rrelu", ("lower", "upper")),
    "GELU": ("gelu", ("approximate",)), "GLU": ("glu", ("dim",)),
    "Softmax": ("softmax", ("dim",)), "Softmin": ("softmin", ("dim",)), "LogSoftmax": ("log_softmax", ("dim",)),
    "Identity": ("contiguous", ()), "Flatten": ("flatten", ("start_dim", "end_dim")),
    "Unflatten": ("unflatten", ("dim", "unflattened_size")),
    "Dropout": ("dropout", ("p", "training")), "Dropout1d": ("dropout1d", ("p", "training")),
    "Dropout2d": ("dropout2d", ("p", "training")), "Dropout3d": ("dropout3d", ("p", "training")),
    "AlphaDropout": ("alpha_dropout", ("p", "training")),
    "FeatureAlphaDropout": ("feature_alpha_dropout", ("p", "training")),
    "PixelShuffle": ("pixel_shuffle", ("upscale_factor",)),
    "PixelUnshuffle": ("pixel_unshuffle", ("downscale_factor",)), "ChannelShuffle": ("channel_shuffle", ("groups",)),
    "Unfold": ("im2col", ("kernel_size", "dilation", "padding", "stride")),
    "CosineSimilarity": ("cosine_similarity", ()),
}  # fmt: skip

#: Moments unchanged: views and rearrangements of the same elements.
RESHAPES = words(
    "view reshape permute transpose t flatten unflatten unsqueeze squeeze swapaxes swapdims movedim moveaxis view_as "
    "reshape_as pixel_shuffle pixel_unshuffle channel_shuffle roll flip fliplr flipud rot90 T mT H ravel adjoint "
    "native_channel_shuffle atleast_1d atleast_2d atleast_3d view_as_real view_as_complex real_view sort"
)
#: The same elements again, several times.
REPEATS = words("expand expand_as repeat tile repeat_interleave broadcast_to im2col unfold broadcast_tensors")
#: Part of the elements.
SELECTS = words(
    "chunk split split_with_sizes tensor_split unbind narrow select getitem index_select gather take_along_dim "
    "masked_select unsafe_chunk unsafe_split hsplit vsplit dsplit index take diagonal triu tril topk real imag "
    "narrow_copy select_copy slice"
)
#: The value itself.
IDENTITIES = words(
    "contiguous clone to type type_as float double half bfloat16 cpu cuda requires_grad retain_grad alias positive "
    "pin_memory nan_to_num view_again identity checkpoint conj resolve_conj data as_tensor asarray tensor "
    "set align_to refine_names rename lift_fresh wait_tensor"
)
#: No gradient passes.
STOPS = words(
    "detach argmax argmin argsort eq ne lt le gt ge isnan isinf isfinite logical_not logical_and logical_or "
    "logical_xor floor ceil round trunc frac int long bool short byte char one_hot bincount searchsorted bucketize "
    "multinomial nonzero unique unique_consecutive item tolist any all floordiv floor_divide bitwise_and bitwise_or "
    "bitwise_not bitwise_xor heaviside equal allclose is_nonzero count_nonzero histc invert not and or xor is is_not "
    "isclose signbit mod remainder fmod not_equal greater less greater_equal less_equal tril_indices triu_indices "
    "numpy isin bernoulli lshift rshift where_indices contains"
)
#: Dtypes that carry no gradient.
INTEGER = frozenset(("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"))

REDUCES: Mapping[str, str] = {
    "mean": "mean", "sum": "sum", "amax": "max", "amin": "min", "max": "max", "min": "min", "logsumexp": "logsumexp",
    "prod": "prod", "var": "var", "std": "std", "norm": "norm", "vector_norm": "norm", "median": "median",
    "nanmean": "mean", "nansum": "sum", "nanmedian": "median", "quantile": "median", "kthvalue": "median",
    "matrix_norm": "norm", "frobenius_norm": "norm",
}  # fmt: skip
#: Reductions that return (value, statistic) or (value, indices).
PAIRED = {"var_mean": ("var", "mean"), "std_mean": ("std", "mean"), "aminmax": ("min", "max")}

#: In-place and reflected spellings -> plain names.
ALIASES: Mapping[str, str] = {
    "iadd": "add", "isub": "sub", "imul": "mul", "itruediv": "div", "truediv": "div", "true_divide": "div",
    "divide": "div", "multiply": "mul", "subtract": "sub", "imatmul": "matmul", "ipow": "pow", "ifloordiv": "floordiv",
    "radd": "add", "rmul": "mul", "rtruediv": "rdiv", "negative": "neg", "concat": "cat", "concatenate": "cat",
    "float_power": "pow", "dot": "vdot", "mm": "matmul", "bmm": "matmul", "mv": "matmul",
    "imod": "mod", "invert": "bitwise_not", "special_softmax": "softmax", "log_softmax_": "log_softmax",
    "multi_head_attention_forward": "multi_head_attention_forward", "row_stack": "vstack",
    "embedding_bag_": "embedding_bag", "native_layer_norm": "layer_norm", "cudnn_convolution": "conv2d",
    "_softmax": "softmax", "upsample": "interpolate", "upsample_nearest": "interpolate",
    "upsample_bilinear": "interpolate", "einsum_": "einsum", "special_expit": "sigmoid", "special_erf": "erf",
    "swapdims": "transpose", "swapaxes": "transpose", "moveaxis": "movedim", "special_log_softmax": "log_softmax",
    "pairwise_distance": "pairwise_distance", "special_logsumexp": "logsumexp", "view_copy": "view",
}  # fmt: skip

LOSSES = words(
    "cross_entropy nll_loss mse_loss l1_loss smooth_l1_loss huber_loss binary_cross_entropy "
    "binary_cross_entropy_with_logits kl_div ctc_loss hinge_embedding_loss cosine_embedding_loss margin_ranking_loss "
    "multi_margin_loss multilabel_margin_loss soft_margin_loss triplet_margin_loss poisson_nll_loss gaussian_nll_loss "
    "multilabel_soft_margin_loss triplet_margin_with_distance_loss"
)
LOSS_MODULES: Mapping[str, str] = {
    "CrossEntropyLoss": "cross_entropy", "NLLLoss": "nll_loss", "MSELoss": "mse_loss", "L1Loss": "l1_loss",
    "SmoothL1Loss": "smooth_l1_loss", "HuberLoss": "huber_loss", "BCELoss": "binary_cross_entropy",
    "BCEWithLogitsLoss": "binary_cross_entropy_with_logits", "KLDivLoss": "kl_div", "CTCLoss": "ctc_loss",
}  # fmt: skip

#: Queries whose answer depends on the shape and type of a signal only.
QUERIES = words(
    "size dim ndimension numel nelement stride is_floating_point is_complex element_size is_contiguous get_device "
    "new_zeros new_ones new_full new_empty new_tensor zeros_like ones_like full_like empty_like rand_like randn_like "
    "randint_like len shape dtype device ndim is_cuda requires_grad result_type can_cast is_tensor broadcast_shapes "
    "layout is_sparse names itemsize nbytes storage_offset data_ptr is_meta isinstance hasattr type_query is_quantized "
    "is_nested is_leaf grad_fn grad is_inference is_pinned promote_types get_default_dtype untyped_storage"
)


def spec_arguments(call_plain: Any, spec: Spec) -> dict[str, float]:
    """The arguments of an elementwise function from a call's ``plain`` method."""
    found: dict[str, float] = {}
    for name, position, keyword, default in spec[1]:
        value = call_plain(position, keyword, default)
        if isinstance(value, torch.Tensor) and value.numel() == 1 and not value.is_meta:
            value = value.item()
        if isinstance(value, (int, float)):
            found[name] = float(value)
        elif value is None and default is not None:
            found[name] = default
    return found
