"""What each torch function does to memory, decided by its name, once per function."""

from __future__ import annotations

from collections.abc import Mapping
from types import FunctionType
from typing import Any, Final

from initlint.probe.provenance_words import words
from initlint.records import dataclass

SKIP: Final = 0  # reads metadata only
MAKE: Final = 1  # may return new memory or a view
OVERWRITE: Final = 2  # in place; earlier values do not matter
MODIFY: Final = 3  # in place; reads the earlier values
SETITEM: Final = 4
ASSIGN: Final = 5  # ``t.data = other``
EXPOSE: Final = 6  # hands the memory to code that no Python hook sees
INIT: Final = 7  # a Python function of torch.nn.init, or what a library put in its place
DEEPCOPY: Final = 8
#: Roles that change the memory of the first argument.
WRITES: Final = (OVERWRITE, MODIFY, SETITEM)


@dataclass(frozen=True, slots=True)
class Operation:
    """A torch function as the recorder sees it."""

    name: str
    role: int
    random: bool = False
    uninitialised: bool = False  # returns memory that nobody wrote
    partial: bool = False  # writes only some elements of its target


_VIEW_PROPERTIES = frozenset({"data", "T", "mT", "H", "mH", "real", "imag"})
_EXPOSING = frozenset(
    {"numpy", "__array__", "__dlpack__", "data_ptr", "untyped_storage", "storage", "_typed_storage", "to_dlpack"}
)
_METADATA = words("""
    dim size numel nelement ndimension stride storage_offset element_size get_device type_as_name is_contiguous
    is_floating_point is_complex is_signed is_shared is_pinned is_same_size is_set_to is_conj is_neg is_inference
    is_nonzero_meta is_tensor is_storage __len__ __hash__ __format_meta__ __dir__ __reduce_ex__ __setstate__
    requires_grad_ retain_grad detach_ rename_ share_memory_ register_hook register_post_accumulate_grad_hook
    _set_grad_enabled set_grad_enabled _parse_to dense_dim sparse_dim names result_type can_cast promote_types
    get_default_dtype set_default_dtype get_device_module has_names has_torch_function _is_view _is_zerotensor
    backward squeeze_ unsqueeze_ t_ transpose_ swapaxes_ swapdims_ resize_as_meta_ align_to as_subclass
    manual_seed is_grad_enabled is_inference_mode_enabled _has_compatible_shallow_copy_type numpy_T
    __torch_function__ is_deterministic get_rng_state set_rng_state nbytes itemsize layout
    _make_subclass _make_wrapper_subclass untyped_size stride_ dim_order""")
_OVERWRITES = words("""
    normal_ uniform_ fill_ zero_ copy_ exponential_ geometric_ cauchy_ log_normal_ random_ bernoulli_ set_
    zeros_ ones_ constant_ trunc_normal_ _foreach_zero_ _foreach_copy_ _foreach_fill_""")
_PARTIAL = words("""
    masked_fill_ masked_scatter_ index_fill_ index_copy_ index_put_ index_add_ scatter_ scatter_add_ put_
    fill_diagonal_ index_reduce_ scatter_reduce_ _index_put_impl_""")
_INPLACE_DUNDERS = frozenset(
    f"__i{name}__" for name in words("add sub mul truediv floordiv mod pow and or xor lshift rshift matmul")
)
_RANDOM = words("""
    normal_ uniform_ exponential_ geometric_ cauchy_ log_normal_ random_ bernoulli_ randn rand randint randperm
    normal multinomial bernoulli rand_like randn_like randint_like poisson binomial dropout rrelu rrelu_
    _standard_gamma _sample_dirichlet trunc_normal_ kaiming_uniform_ kaiming_normal_ xavier_uniform_
    xavier_normal_ orthogonal_ sparse_""")
#: Functions that give memory as they find it.
UNINITIALISED = words("empty empty_like new_empty empty_strided new_empty_strided new empty_permuted")


def classify(function: Any) -> Operation:
    """Role of a function given to ``__torch_function__``."""
    name = str(getattr(function, "__name__", ""))
    if name in ("__get__", "__set__", "__delete__"):
        return _property(name, str(getattr(getattr(function, "__self__", None), "__name__", "")))
    if name == "__deepcopy__":
        return Operation("deepcopy", DEEPCOPY)
    if name in _METADATA:
        return Operation(name, SKIP)
    if name in _EXPOSING:
        return Operation(name, EXPOSE)
    if name == "__setitem__":
        return Operation("setitem", SETITEM, partial=True)
    chance = name in _RANDOM
    if name in _INPLACE_DUNDERS:
        return Operation(name[3:-2] + "_", MODIFY)
    if name.endswith("_") and not name.endswith("__"):
        if isinstance(function, FunctionType):
            return Operation(name, INIT, chance)
        role = OVERWRITE if name in _OVERWRITES else MODIFY
        return Operation(name, role, chance, partial=name in _PARTIAL)
    return Operation(name.strip("_") if name.startswith("__") else name, MAKE, chance, name in UNINITIALISED)


def _property(access: str, name: str) -> Operation:
    if access == "__set__":
        return Operation("data", ASSIGN) if name == "data" else Operation(name, SKIP)
    return Operation(name, MAKE if name in _VIEW_PROPERTIES else SKIP)


#: Positional arguments of in-place methods and factories under the names that ``torch.nn.init`` uses.
SIGNATURES: Mapping[str, tuple[tuple[str, float | None], ...]] = {
    "normal_": (("mean", 0.0), ("std", 1.0)),
    "uniform_": (("a", 0.0), ("b", 1.0)),
    "fill_": (("val", None),),
    "zero_": (),
    "exponential_": (("lambd", 1.0),),
    "log_normal_": (("mean", 1.0), ("std", 2.0)),
    "cauchy_": (("median", 0.0), ("sigma", 1.0)),
    "geometric_": (("p", None),),
    "bernoulli_": (("p", 0.5),),
    "random_": (("a", None), ("b", None)),
    "mul_": (("other", None),),
    "div_": (("other", None),),
    "add_": (("other", None),),
    "sub_": (("other", None),),
    "pow_": (("exponent", None),),
    "clamp_": (("min", None), ("max", None)),
    "clip_": (("min", None), ("max", None)),
    "clamp_min_": (("min", None),),
    "clamp_max_": (("max", None),),
    "fill_diagonal_": (("val", None),),
    "masked_fill_": (("mask", None), ("val", None)),
    "index_fill_": (("dim", None), ("index", None), ("val", None)),
    "full": (("size", None), ("val", None)),
    "full_like": (("input", None), ("val", None)),
    "new_full": (("size", None), ("val", None)),
    "normal": (("mean", 0.0), ("std", 1.0)),
    "linspace": (("start", None), ("end", None), ("steps", None)),
    "arange": (("start", None), ("end", None), ("step", None)),
}
#: Keyword names of torch's methods that differ from the names of ``torch.nn.init``.
RENAMED: Mapping[str, str] = {"from": "a", "to": "b", "value": "val", "fill_value": "val", "probs": "p"}
