"""The op table: for each canonical op (docs/ops.md) one small forward and one small backward rule."""

from __future__ import annotations

from collections.abc import Mapping

from initlint.signal import (
    attention,
    elementwise,
    extremum,
    linear,
    merge,
    norm,
    objective,
    opaque,
    pooling,
    recurrent,
    sampling,
    shape,
)
from initlint.signal.scene import Op

OPS: Mapping[str, Op] = {
    **shape.OPS,
    **elementwise.OPS,
    **linear.OPS,
    **merge.OPS,
    **extremum.OPS,
    **norm.OPS,
    **pooling.OPS,
    **attention.OPS,
    **recurrent.OPS,
    **sampling.OPS,
    **objective.OPS,
    **opaque.OPS,
}
