"""Other values for arguments that were guessed: where the constructor refuses the first ones or makes nothing of them.

The first guesses are small. Widths that are refused become 32, 64, 96, 128 or 192. Depths that are refused, or leave a
list of layers empty, become 3, 4, 8, 10, 11, 16, 18, 20, 28, 34 or 50. The first that fits is taken.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from initlint.probe import residual
from initlint.probe.arguments import Proposal, text_of
from initlint.probe.configs import entries
from initlint.probe.conventions import COUNT, NOTHING, by_name, is_width

#: GroupNorm has 32 groups by default (Wu and He 2018), heads have 64 or 128 features; 96 and 192 suit 3, 6, 12 heads.
SIZES = (32, 64, 96, 128, 192)
#: 8 = 6n + 2 (CIFAR ResNets), 10 = 6n + 4 (wide ResNets, DenseNets), 11 = 9n + 2 (bottlenecks; VGG), then those of
#: VGG, ResNets and wide ResNets.
DEPTHS = (3, 4, 8, 10, 11, 16, 18, 20, 28, 34, 50)
#: Up to 11 every one of these formulas has a value: a list that is empty for the first five does not hang on the depth.
FRUITLESS = 5
_GUESSES = ("convention", "annotation", "use in the constructor")
_REFUSALS = (ValueError, AssertionError, RuntimeError, KeyError, ZeroDivisionError)


def guessed(proposal: Proposal) -> dict[str, int]:
    """Whole numbers that nothing but their names and uses speaks for."""
    names = [argument.name for argument in proposal.arguments if argument.origin in _GUESSES]
    values = {name: proposal.kwargs[name] for name in names if name in proposal.kwargs}
    return {n: v for n, v in values.items() if isinstance(v, int) and not isinstance(v, bool) and v >= COUNT}


def after_refusal(proposal: Proposal, error: BaseException | None) -> Iterator[Proposal]:
    """The proposal with other sizes for the arguments whose values the exception names, else for all of one kind."""
    if not isinstance(error, _REFUSALS):
        return
    known = guessed(proposal)
    said = {int(number) for number in re.findall(r"(?<![\w.])\d{1,6}(?![\w.]*\d)", str(error))}
    named = {n: v for n, v in known.items() if v in said}
    counts = {n: v for n, v in (named or known).items() if v == COUNT}
    widths = named.keys() - counts if named else {n for n in known if n not in counts and is_width(n)}
    for names, sizes in ((widths, SIZES), (counts, DEPTHS)):
        for size in sizes if names else ():
            changes = {name: size for name in names if known[name] < size}
            if changes:
                yield _with(proposal, changes, {name: f"{known[name]} was refused" for name in changes})


def deeper(proposal: Proposal, empty: str) -> Iterator[Proposal]:
    """The proposal with other numbers of layers, for one argument after the other."""
    for name, value in guessed(proposal).items():
        if value == COUNT:
            for depth in DEPTHS:
                yield _with(proposal, {name: depth}, {name: f"{value} left {empty} empty"})


def not_zero(proposal: Proposal, subject: Any, hollow: str) -> Proposal | None:
    """The proposal with small numbers in place of the zeros that a class reads from a configuration's defaults."""
    changed: dict[str, tuple[Any, str]] = {}
    for argument in proposal.arguments:
        value = proposal.kwargs.get(argument.name)
        if not argument.origin.startswith("defaults of ") or value is None:
            continue
        read = [path[0] for path in entries(subject).get(argument.name, {}) if len(path) == 1]
        sizes = {name: _small(name) for name in read if _is_zero(getattr(value, name, None))}
        sizes = {name: size for name, size in sizes.items() if size}
        try:
            other = copy.copy(value)
            for name, size in sizes.items():
                object.__setattr__(other, name, size)  # frozen ones, too
        except Exception:  # a configuration class of user code may refuse for any reason
            continue
        if sizes:
            given = " and ".join(f"{name}={size}" for name, size in sizes.items())
            changed[argument.name] = (other, f"{argument.origin}, but {given}: 0 left {hollow} empty")
    if not changed:
        return None
    arguments = tuple(
        replace(a, value=text_of(changed[a.name][0]), origin=changed[a.name][1]) if a.name in changed else a
        for a in proposal.arguments
    )
    return Proposal(proposal.args, {**proposal.kwargs, **{n: v for n, (v, _) in changed.items()}}, arguments)


def _is_zero(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value == 0


def _small(name: str) -> int:
    """The usual size of what an entry is called; 0 where the field takes zero for granted (a padding, a rate)."""
    usual = by_name(name)
    if usual is NOTHING:
        return COUNT
    return usual if isinstance(usual, int) and not isinstance(usual, bool) else 0


def alike(proposal: Proposal, sizes: tuple[int, int]) -> Iterator[Proposal]:
    """The proposal with one guess changed to what it is added to, whose width its own did not match."""
    known = guessed(proposal)
    for name, size in residual.equal(known, sizes):
        other = sum(sizes) - known[name]
        yield _with(proposal, {name: size}, {name: f"{known[name]} does not fit the {other} that it is added to"})


def empty_lists(model: nn.Module) -> set[str]:
    """Paths of the containers without a module in them."""
    kinds = (nn.ModuleList, nn.Sequential, nn.ModuleDict)
    return {path for path, module in model.named_modules() if isinstance(module, kinds) and not len(module)}


def _with(proposal: Proposal, changes: Mapping[str, int], why: Mapping[str, str]) -> Proposal:
    arguments = tuple(
        replace(a, value=text_of(changes[a.name]), origin=f"{a.origin}; {why[a.name]}") if a.name in changes else a
        for a in proposal.arguments
    )
    return Proposal(proposal.args, {**proposal.kwargs, **changes}, arguments)
