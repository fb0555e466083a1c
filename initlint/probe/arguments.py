"""Constructor arguments where required ones are missing: from evidence first, by convention last."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from initlint.errors import ProbeError
from initlint.facts import Argument
from initlint.probe.target import Call

if TYPE_CHECKING:
    from initlint.probe.script import Script


class Evidence(Protocol):
    """Where call sites come from."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """One set of arguments to try, and where each comes from."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    arguments: tuple[Argument, ...] = ()
    guessed: bool = False


def required(subject: Any) -> list[str]:
    """Names of the arguments without a default."""
    try:
        parameters = inspect.signature(subject).parameters.values()
    except (TypeError, ValueError):
        return []
    return [
        p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]


def propose(
    subject: Any,
    name: str,
    call: Call | None,
    given: Mapping[str, Any],
    script: Script,
    evidence: Evidence | None,
    *,
    guess: bool,
) -> Iterator[Proposal]:
    """Sets of arguments, the best first."""
    if call is not None and call.called:
        yield Proposal(call.args, dict(call.kwargs), tuple(Argument(n, t, "command line") for n, t in call.texts))
        return
    missing = [n for n in required(subject) if n not in given]
    if not missing:
        yield Proposal((), dict(given), tuple(Argument(n, repr(v), "configuration") for n, v in given.items()))
        return
    raise ProbeError(f"{name} needs the arguments {', '.join(missing)}")
