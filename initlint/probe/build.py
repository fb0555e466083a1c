"""Build one model in the child: pick it from the imported file, find its arguments, construct it seeded."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field
from types import FunctionType
from typing import Any

import torch
from torch import nn

from initlint.errors import ProbeError
from initlint.facts import Argument
from initlint.probe import arguments as choosing
from initlint.probe import larger, residual
from initlint.probe.budget import Budget, TooLargeError, out_of_memory
from initlint.probe.limits import size_text
from initlint.probe.meta_build import MixedDevicesError, MostlyMeta
from initlint.probe.outcome import Candidate
from initlint.probe.parameterless import has_tensors, hollow, makes_parameters
from initlint.probe.script import Script, explain
from initlint.probe.standins import relaxed_argparse
from initlint.probe.target import Call
from initlint.records import dataclass

#: How often a name that was not executed is provided and the construction tried again.
_PROVIDED = 20
#: So many of the options that a refusal names are tried, one at a time.
_ASKED = 3


@dataclass(slots=True)
class Built:
    """A constructed model and how it was constructed."""

    model: nn.Module
    name: str
    line: int | None = None
    arguments: tuple[Argument, ...] = ()
    notes: list[str] = field(default_factory=list)
    again: Callable[[bool], nn.Module] | None = None  # constructs it once more, on meta when true
    meta: bool = False  # built without the memory of its large tensors


def seed_everything(seed: int) -> None:
    """Seed torch, ``random`` and, where it is imported, NumPy. Not through ``torch.manual_seed``: that is recorded."""
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        with contextlib.suppress(AttributeError, ValueError):
            numpy.random.seed(seed % 2**32)


def candidates(script: Script, static: Sequence[Candidate]) -> list[Candidate]:
    """What of the file's candidates really are models, in the order to build them in."""
    namespace = script.namespace
    known = {candidate.name: candidate for candidate in static}
    own = set() if script.scan is None else set(script.scan.instances) | set(known)
    found: list[Candidate] = []
    seen: set[int] = set()
    for name, value in list(namespace.items()):
        if isinstance(value, nn.Module) and not name.startswith("_") and name in own and id(value) not in seen:
            seen.add(id(value))
            line = known[name].line if name in known else 0
            found.append(Candidate(name, "instance", line))
    for candidate in static:
        value = namespace.get(candidate.name)
        if candidate.kind == "factory" and isinstance(value, FunctionType):
            found.append(candidate)
    for candidate in static:
        if candidate.kind == "class":
            value = namespace.get(candidate.name)
            failed = candidate.name in script.failed
            if failed or (isinstance(value, type) and issubclass(value, nn.Module)):
                found.append(candidate)
    # Instances whose statement failed come last: their class may have been analysed by then.
    return found + [c for c in static if c.kind == "instance" and c.name in script.failed]


def find(script: Script, name: str) -> Any:
    """The object of a (dotted) name in the file.

    Raises:
        ProbeError: there is none, with the nearest names.
    """
    import difflib

    if name.split(".")[0] not in script.namespace:
        script.provide(name.split(".")[0])
    value: Any = None
    namespace: Mapping[str, Any] = script.namespace
    for position, part in enumerate(name.split(".")):
        if position == 0 and part in namespace:
            value = namespace[part]
        elif (position and hasattr(value, part)) or (not position and script.module and hasattr(script.module, part)):
            value = getattr(value if position else script.module, part)
        else:
            options = [n for n, v in namespace.items() if callable(v) or isinstance(v, nn.Module)]
            close = difflib.get_close_matches(part, options, n=1)
            models = [n for n, v in namespace.items() if isinstance(v, type) and issubclass(v, nn.Module)]
            own = [n for n in models if getattr(namespace[n], "__module__", "") == script.name][:6]
            hint = f"Did you mean {close[0]}?" if close else f"The models there: {', '.join(own)}." if own else ""
            raise ProbeError(f"there is no {part!r} in {script.name}", hint)
    return value


def construct(
    script: Script,
    name: str,
    call: Call | None,
    *,
    seed: int,
    given: Mapping[str, Any],
    directory: str = "",
    guess: bool = True,
    meta: bool = False,
    limit: int = 0,
    recorder: Any = None,
) -> Built:
    """Construct the named class, call the named factory, or take the named instance.

    Args:
        call: arguments written on the command line.
        given: arguments from the configuration.
        directory: what reported paths are relative to.
        guess: whether arguments may be chosen by annotation and convention.
        meta: build large tensors on the meta device.
        limit: bytes of memory; a model that needs more is built on meta (0: no limit).
        recorder: records what is built, and forgets the attempts that are given up.

    Raises:
        ProbeError: there is no such model, or constructing it fails.
    """
    subject = find(script, name)
    line = _line(subject)
    if isinstance(subject, nn.Module):
        return Built(subject, name, line)
    if not callable(subject):
        raise ProbeError(f"{name} is a {type(subject).__name__}, neither a model, a class nor a function")
    proposals = choosing.propose(subject, name, call, given, script, directory, guess=guess)
    first: ProbeError | None = None
    tried: list[object] = []
    empty: Built | None = None  # built, but without what its constructor makes where it is given more
    mark: Any = None

    def attempt(proposal: choosing.Proposal) -> Built | ProbeError:
        if recorder is not None:
            recorder.rollback(mark)  # what an attempt that was given up wrote is no part of the model's history

        def make(on_meta: bool, mode: Any = None) -> nn.Module:
            device = mode if mode is not None else torch.device("meta") if on_meta else contextlib.nullcontext()
            return _make(script, subject, name, proposal, seed, device)

        notes: list[str] = []
        try:
            if meta:
                model, on_meta = _mostly_meta(make), True
            else:
                model, on_meta = _fitting(make, limit, notes)
        except ProbeError as error:
            return error
        return Built(model, name, line, proposal.arguments, notes, again=make, meta=on_meta)

    for proposal in proposals:
        if any(proposal.kwargs == other for other in tried) and not proposal.args:
            continue
        tried.append(proposal.kwargs)
        mark = recorder.mark() if recorder is not None else None
        built = _refitted(proposal, attempt)
        if isinstance(built, ProbeError) and not proposal.args:
            others = itertools.islice(choosing.asked_for(subject, proposal, built.message), _ASKED)
            built = next((b for other in others if isinstance(b := _refitted(other, attempt), Built)), built)
        if isinstance(built, Built) and (zeros := hollow(built.model)):
            built = _filled_out(proposal, built, attempt, subject, zeros[0][0])
        apart = len(set(larger.guessed(proposal).values())) > 1
        if isinstance(built, Built) and not built.meta and apart and residual.adds_input(subject):
            built = _with_equal_widths(proposal, built, attempt, lambda m: residual.mismatch(m, script.namespace, seed))
        if isinstance(built, ProbeError):
            first = first or built
        elif has_tensors(built.model) or not isinstance(subject, type) or not makes_parameters(subject):
            return built
        else:
            empty = empty or built
    if empty is not None:
        return empty
    if first is not None:
        raise first
    raise ProbeError(f"no arguments are known for {name}{signature_text(subject)}", example_call(subject, name))


def _refitted(
    proposal: choosing.Proposal, attempt: Callable[[choosing.Proposal], Built | ProbeError]
) -> Built | ProbeError:
    """What a proposal builds, with other sizes in place of guesses that do not fit (see ``larger``)."""
    built = attempt(proposal)
    if isinstance(built, ProbeError):
        further = map(attempt, larger.after_refusal(proposal, built.__cause__))
        return next((other for other in further if isinstance(other, Built)), built)
    empty = larger.empty_lists(built.model)
    if not empty or not any(True for _ in larger.deeper(proposal, "")):
        return built
    fruitless = 0
    for other in larger.deeper(proposal, ", ".join(sorted(path or "the model" for path in empty)[:2])):
        deep = attempt(other)
        if isinstance(deep, ProbeError):
            continue
        if empty - larger.empty_lists(deep.model):
            return deep
        fruitless += 1
        if fruitless == larger.FRUITLESS:
            break
    again = attempt(proposal)
    return again if isinstance(again, Built) else built


def _filled_out(
    proposal: choosing.Proposal,
    built: Built,
    attempt: Callable[[choosing.Proposal], Built | ProbeError],
    subject: Any,
    zero: str,
) -> Built | ProbeError:
    """What a proposal builds, with numbers in place of zeros where those leave a parameter without an element."""
    other = larger.not_zero(proposal, subject, zero)
    if other is None:
        return built
    full = attempt(other)
    return full if isinstance(full, Built) and not hollow(full.model) else attempt(proposal)


def _with_equal_widths(
    proposal: choosing.Proposal,
    built: Built,
    attempt: Callable[[choosing.Proposal], Built | ProbeError],
    mismatch: Callable[[nn.Module], tuple[int, int] | None],
) -> Built | ProbeError:
    """What a proposal builds, with guessed widths made equal where the forward cannot add what it makes otherwise."""
    sizes = mismatch(built.model)
    if sizes is None:
        return built
    for other in larger.alike(proposal, sizes):
        equal = attempt(other)
        if isinstance(equal, Built) and mismatch(equal.model) is None:
            return equal
    return attempt(proposal)


def signature_text(subject: Any) -> str:
    """``(depth, width=4)``, or nothing where it cannot be told."""
    try:
        parameters = inspect.signature(subject).parameters.values()
    except (TypeError, ValueError):
        return ""
    return "(" + ", ".join(p.name if p.default is p.empty else f"{p.name}={p.default!r}"[:40] for p in parameters) + ")"


def example_call(subject: Any, name: str) -> str:
    """A call with a place for every required argument: ``Net(depth=..., width=...)``."""
    return f"{name}({', '.join(f'{p}=...' for p in choosing.required(subject))})"


def _fitting(make: Callable[..., nn.Module], limit: int, notes: list[str]) -> tuple[nn.Module, bool]:
    """The model in memory, or mostly on meta where it is too large."""
    if not limit:
        return make(False), False
    try:
        with Budget(limit, lambda: _mostly_meta(make)):
            return make(False), False
    except TooLargeError as error:
        why = f"its parameters take at least {size_text(error.size)}, the limit is {size_text(limit)}"
    except ProbeError as error:
        if not out_of_memory(error.__cause__):
            raise
        why = "there is not enough memory for it"
    notes.append(f"built on the meta device, statistics are those of the recorded init: {why}")
    return _mostly_meta(make), True


def _mostly_meta(make: Callable[..., nn.Module]) -> nn.Module:
    try:
        return make(True, MostlyMeta())
    except (MixedDevicesError, ProbeError):
        return make(True)  # where small real tensors are in the way, all of it on meta


def _modules_in(value: Any, depth: int = 2) -> Iterator[nn.Module]:
    """The models in what a factory returns: ``(model, optimizer)``, ``({"network": model}, optimizer)``."""
    if isinstance(value, nn.Module):
        yield value
    elif isinstance(value, tuple | list | dict) and depth:
        for item in value.values() if isinstance(value, dict) else value:
            yield from _modules_in(item, depth - 1)


def _make(script: Script, subject: Any, name: str, chosen: choosing.Proposal, seed: int, device: Any) -> nn.Module:
    for _ in range(_PROVIDED):
        seed_everything(seed)
        try:
            with device, _quiet_arguments(script):
                model = subject(*chosen.args, **chosen.kwargs)
        except NameError as error:
            if error.name and script.provide(error.name):
                continue
            reason = explain(error, script.path, "building it")
            if script.unknown:
                reason = ProbeError(
                    reason.message, f"It may come with {script.unknown}, which cannot be imported here."
                )
            raise reason from error
        except (Exception, SystemExit) as error:
            raise explain(error, script.path, "building it") from error
        model = next(_modules_in(model), model)
        if not isinstance(model, nn.Module):
            raise ProbeError(f"{name} returned a {type(model).__name__}, not an nn.Module")
        return model
    raise ProbeError(f"building it needs too many names that were not executed ({name})", "Try --import full.")


@contextlib.contextmanager
def _quiet_arguments(script: Script) -> Iterator[None]:
    with relaxed_argparse(script.path, script.notes):
        yield


def _line(subject: Any) -> int | None:
    if isinstance(subject, nn.Module):
        subject = type(subject)
    try:
        if isinstance(subject, type):
            return inspect.getsourcelines(subject)[1] or None
        code = getattr(inspect.unwrap(subject), "__code__", None)
        return code.co_firstlineno if code is not None else None
    except (OSError, TypeError, IndexError):
        return None
