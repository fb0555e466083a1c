"""Shapes, axis roles and row maps of the results of products with labelled axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from initlint.probe import normalise_axes as axes
from initlint.probe.normalise_builder import ROWS_LIMIT, Builder
from initlint.probe.normalise_labels import Labels, Split
from initlint.probe.normalise_values import Signal


def shape(sizes: Mapping[str, int], labels: Labels) -> tuple[int, ...] | None:
    return tuple(sizes[x] for x in labels) if all(x in sizes for x in labels) else None


def sizes(b: Builder, operands: Sequence[tuple[int, Labels]]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for index, labels in operands:
        shape = b.nodes[index].shape
        if shape is not None and len(shape) == len(labels):
            for label, size in zip(labels, shape, strict=True):
                sizes[label] = max(size, sizes.get(label, 1))
    return sizes


def two_roles(b: Builder, inputs: list[int], left: Labels, right: Labels, result: Labels) -> axes.Roles | None:
    """Free axes keep their roles; channels contracted away leave none."""
    known: dict[str, str] = {}
    for index, labels in ((inputs[0], left), (inputs[1], right)):
        roles = b.roles[index]
        if roles is not None and len(roles) == len(labels):
            for label, role in zip(labels, roles, strict=True):
                known.setdefault(label, role)
    found = [known.get(x, "p") for x in result]
    if found.count("c") > 1:
        last = len(found) - 1 - found[::-1].index("c")
        found = [r if r != "c" or i == last else "p" for i, r in enumerate(found)]
    return tuple(found)


def result_roles(b: Builder, signal: Signal, names: Labels, split: Split, result: Labels) -> axes.Roles | None:
    roles = b.roles[signal.index]
    known = dict(zip(names, roles, strict=True)) if roles is not None and len(roles) == len(names) else {}
    found = []
    for label in result:
        if label in known and label not in split.out:
            role = known[label]
            found.append("b" if role == "b" else ("h" if label in split.stack else "p"))
        elif label in names and label not in split.out:
            found.append("b" if label == names[0] and len(names) > 1 else "p")
        else:
            found.append("c")
    last = len(found) - 1 - found[::-1].index("c") if "c" in found else -1
    if last < 0 and split.stack:  # one value for each head
        return tuple("c" if r == "h" else r for r in found)
    return tuple("h" if r == "c" and i != last else r for i, r in enumerate(found))


def set_rows(
    b: Builder, signal: Signal, shape: tuple[int, ...] | None, result: Labels, split: Split, sizes: Mapping[str, int]
) -> None:
    """Remember which row of the weight each output element comes from."""
    out = [x for x in result if x in split.out or f"{x}'" in split.out]
    if shape is None or not out or math.prod(shape) > ROWS_LIMIT or split.stack or len(shape) != len(result):
        return
    order = [x for x in split.out if x in out]
    if len(order) != len(out):
        return
    ids = torch.arange(math.prod(sizes[x] for x in order)).reshape([sizes[x] for x in order])
    ids = ids.permute([order.index(x) for x in out])
    view = ids.reshape([sizes[x] if x in out else 1 for x in result])
    b.rows[signal.index] = view.expand(shape)
