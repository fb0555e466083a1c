"""The surface that rules are written against: ``Rule``, ``Context`` and small helpers.

A rule is a class in a file of its own. It says what it looks for in a docstring with fixed headings,
has one ``check`` that reads facts and signal, and carries its own bad and good examples, which
are run as tests and printed in the documentation::

    class UninitialisedMemory(Rule):
        '''Parameter that holds uninitialised memory.

        ## What it does
        ...
        '''

        code = "IL001"
        name = "uninitialised-memory"
        family = "values"
        severity = Severity.ERROR
        sources = ("https://github.com/pytorch/torchtitan/pull/2450",)

        def check(self, context: Context) -> Iterator[Outcome]: ...

        @bad
        def never_written() -> nn.Module: ...
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from initlint.errors import RuleError
from initlint.facts import CONVERSIONS, InitStatement, Layer, ModelFacts, ParameterFacts, Scalar, Site
from initlint.findings import Finding, Fix, Related, Severity, Undetermined
from initlint.records import dataclass

if TYPE_CHECKING:
    from initlint.signal import Effect, Nominal, Signal

Outcome = Finding | Undetermined

FAMILIES: Mapping[str, str] = {
    "values": "0",
    "variance": "1",
    "signal": "2",
    "architecture": "3",
    "intent": "4",
    "responsible": "5",
    "tool": "9",
}
HEADINGS = ("What it does", "Why is this bad?", "Example", "Use instead", "Known problems", "References")

#: Parts of a model that cannot be called as a whole whose depth is judged: each costs one more propagation.
PARTS = 8

_CODE = re.compile(r"[A-Z]+\d{3}")
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Settings:
    """What the configuration says to rules (``[tool.initlint]``)."""

    optimizer: str = "adam"  # "sgd" | "adam"
    class_priors: tuple[float, ...] = ()
    policies: tuple[Mapping[str, Scalar], ...] = ()  # [[tool.initlint.policy]] tables
    presets: tuple[str, ...] = ()  # names of ready-made policies ("gpt2")
    options: Mapping[str, Mapping[str, Scalar]] = field(default_factory=dict)  # [tool.initlint.rules.IL101]


class Context:
    """One model as rules see it: facts, predicted signal, and the effect of changing weights.

    Signal and effects are computed when first asked for and kept.
    """

    def __init__(self, facts: ModelFacts, settings: Settings | None = None) -> None:
        self.facts = facts
        self.settings = settings or Settings()
        self._signal: Signal | None = None
        self._actual: Signal | None = None
        self._parts: tuple[Context, ...] | None = None
        self._effects: dict[tuple[tuple[str, Nominal], ...], Effect] = {}
        self._cooled: dict[tuple[tuple[int, float], ...], Signal] = {}
        self._parameters = {name: p for p in facts.parameters for name in (*p.aliases, p.name)}
        self._layers: dict[str, list[Layer]] = {}
        for layer in facts.layers:
            for name in (layer.weight, *layer.parameters):
                known = self._layers.setdefault(name, [])
                if layer not in known:
                    known.append(layer)

    @property
    def signal(self) -> Signal:
        """Predicted moments of every node, forward and backward, for verdicts.

        Where the init record states what weights are drawn from, and the values agree, their nominal moments are
        used, and N(0, 1) for inputs that were drawn from it, so that no verdict hangs on the draw (DESIGN, section 4).
        """
        if self._signal is None:
            from initlint.signal import confirmed, propagate

            self._signal = propagate(self.facts, confirmed(self.facts), self.actual)
        return self._signal

    @property
    def parts(self) -> tuple[Context, ...]:
        """The context; or, of a model that is called part by part, one for each output, whose trunk is that part's."""
        if self._parts is None:
            facts = self.facts
            apart = facts.outputs[:PARTS] if facts.trace.parts and len(facts.outputs) > 1 else ()
            self._parts = tuple(Context(replace(facts, outputs=(end,)), self.settings) for end in apart)
        return self._parts or (self,)

    @property
    def actual(self) -> Signal:
        """The same from the actual weights alone: what this draw does, for reports."""
        if self._actual is None:
            from initlint.signal import propagate

            self._actual = propagate(self.facts)
        return self._actual

    def cooled(self, spreads: Mapping[int, float]) -> Signal:
        """The signal as it would be with logits of std 1 at these attentions, whose std is given by node."""
        key = tuple(sorted(spreads.items()))
        if key not in self._cooled:
            from initlint.signal import confirmed, propagate
            from initlint.signal.spread import cooled

            self._cooled[key] = propagate(cooled(self.facts, spreads), confirmed(self.facts))
        return self._cooled[key]

    def effect(self, changes: Mapping[str, Nominal]) -> Effect:
        """What would change if these parameters had the given moments instead (the counterfactual)."""
        from initlint.signal import counterfactual

        key = tuple(sorted(changes.items()))
        if key not in self._effects:
            self._effects[key] = counterfactual(self.facts, self.signal, changes)
        return self._effects[key]

    def statement_at(self, site: Site | None) -> InitStatement | None:
        """The init statement that a recorded write came from."""
        if site is None:
            return None
        for statement in self.facts.statements:
            at = statement.site
            if at.file == site.file and at.line <= site.line <= (at.end_line or at.line) and statement.runs:
                return statement
        return None

    def computed_at(self, site: Site | None) -> Site | None:
        """Where the value that a write used is computed: the assignment in the same function, else the write."""
        statement = self.statement_at(site)
        return statement.value_site if statement is not None and statement.value_site is not None else site

    def selected_at(self, site: Site | None) -> Site | None:
        """The innermost condition that selected what a write wrote, else the write."""
        statement = self.statement_at(site)
        guard = statement.guards[0] if statement is not None and statement.guards else None
        if statement is None or guard is None or guard.line is None or guard.kind in ("value", "other"):
            return site
        return Site(statement.site.file, guard.line, None, statement.site.function, guard.text)

    def parameter(self, name: str) -> ParameterFacts | None:
        """The parameter or buffer of that name or alias."""
        return self._parameters.get(name)

    def layers_of(self, parameter: str) -> tuple[Layer, ...]:
        """The layers that use this parameter (two or more when it is tied)."""
        fact = self._parameters.get(parameter)
        names = (parameter,) if fact is None else (fact.name, *fact.aliases)
        found: list[Layer] = []
        for name in names:
            found += [layer for layer in self._layers.get(name, ()) if layer not in found]
        return tuple(found)


def _proposed(fix: str) -> Fix:
    """A line to write, or advice in words where the text is no Python."""
    try:
        compile(fix, "<fix>", "exec", 0x400)  # ast.PyCF_ONLY_AST: parse alone, without importing ast
    except (SyntaxError, ValueError):
        return Fix(title=fix)
    return Fix(title=f"write: {fix}", snippet=fix)


class Rule:
    """Base class of all rules; see the module's docstring. Subclasses are checked when defined.

    Raises:
        RuleError: a class attribute is missing or malformed; the message starts with ``file:line``.
    """

    code: ClassVar[str]
    name: ClassVar[str]
    family: ClassVar[str]
    severity: ClassVar[Severity]  # ceiling: the engine lowers anything above it
    sources: ClassVar[tuple[str, ...]]
    aliases: ClassVar[tuple[str, ...]] = ()
    thorough: ClassVar[bool] = False  # needs facts that only --thorough collects
    needs_config: ClassVar[bool] = False  # says something only when configured
    several: ClassVar[bool] = False  # says something only of a model that several processes hold
    generic: ClassVar[bool] = False  # yields to any more specific rule that reports the same cause
    by_engine: ClassVar[bool] = False  # the engine reports it; check() says nothing and no examples are needed

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__dict__.get("abstract", False) is True:
            return
        problem = _problem(cls)
        if problem:
            raise RuleError(
                f"{_where(cls)}: {cls.__name__}: {problem}", "See docs/writing-rules.md for the form of a rule."
            )

    def check(self, context: Context) -> Iterable[Outcome]:
        """Yield findings (and ``Undetermined`` for what could not be decided). Pure."""
        raise NotImplementedError

    # -- helpers for check() ------------------------------------------------------------------

    def finding(
        self,
        context: Context,
        message: str,
        *,
        parameters: Iterable[str] = (),
        severity: Severity | None = None,
        site: Site | None = None,
        related: Iterable[Related] = (),
        expected: Mapping[str, Scalar] | None = None,
        actual: Mapping[str, Scalar] | None = None,
        effect: Effect | str | None = None,
        fix: Fix | str | None = None,
        topic: str = "scale",
        why: str = "",
        sources: Iterable[str] | None = None,
    ) -> Finding:
        """A finding of this rule on this model; layers and the effect's number are filled in.

        ``fix`` as a string is the line to write instead. ``effect`` may be an ``Effect`` or a sentence.
        """
        names = tuple(dict.fromkeys(parameters))
        layers = tuple(dict.fromkeys(layer.name for name in names for layer in context.layers_of(name)))
        sentence = effect if isinstance(effect, str) else effect.sentence if effect is not None else ""
        number = None if effect is None or isinstance(effect, str) else effect.log10
        return Finding(
            code=self.code,
            name=self.name,
            severity=min(self.severity, self.severity if severity is None else severity),
            message=message,
            model=context.facts.target,
            site=site,
            parameters=names,
            layers=layers,
            related=tuple(related),
            expected=dict(expected or {}),
            actual=dict(actual or {}),
            effect=sentence,
            effect_log10=number,
            sources=self.sources if sources is None else tuple(sources),
            fix=_proposed(fix) if isinstance(fix, str) else fix,
            topic=topic,
            why=why,
        )

    def undetermined(self, context: Context, reason: str, parameters: Iterable[str] = ()) -> Undetermined:
        """An outcome that could not be decided, with the reason."""
        return Undetermined(self.code, reason, context.facts.target, tuple(parameters))

    # -- examples -----------------------------------------------------------------------------

    @classmethod
    def examples(cls, kind: str) -> Iterator[Callable[[], Any]]:
        """The zero-argument example factories marked ``bad`` or ``good``, in order of definition."""
        for value in vars(cls).values():
            function = value.__func__ if isinstance(value, staticmethod) else value
            if getattr(function, "_initlint_example", None) == kind:
                yield function


def bad(function: _F) -> staticmethod[..., Any]:
    """Mark a factory of a model on which the rule must report. torch is imported inside it."""
    function._initlint_example = "bad"  # type: ignore[attr-defined]
    return staticmethod(function)


def good(function: _F) -> staticmethod[..., Any]:
    """Mark a factory of a model on which the rule must be silent. torch is imported inside it."""
    function._initlint_example = "good"  # type: ignore[attr-defined]
    return staticmethod(function)


def site_of(parameter: ParameterFacts | None) -> Site | None:
    """Where a parameter's value is to be mended: the last write by user code, else its creation.

    A change of type or device (``self.half()``) carries values over and is no place to mend them.
    """
    if parameter is None:
        return None
    for write in reversed(parameter.writes):
        if write.site is not None and write.origin != "torch" and write.op not in CONVERSIONS:
            return write.site
    return parameter.created


def by_cause(parameters: Iterable[ParameterFacts]) -> dict[tuple[str, int], list[ParameterFacts]]:
    """Group parameters by the line that is to be mended; one finding per group."""
    groups: dict[tuple[str, int], list[ParameterFacts]] = {}
    for parameter in parameters:
        site = site_of(parameter)
        groups.setdefault((site.file, site.line) if site else ("", 0), []).append(parameter)
    return groups


def _where(cls: type) -> str:
    try:
        return f"{inspect.getsourcefile(cls)}:{inspect.getsourcelines(cls)[1]}"
    except (OSError, TypeError):
        return cls.__module__


def _problem(cls: type[Rule]) -> str:
    needed: Mapping[str, type] = {"code": str, "name": str, "family": str, "severity": Severity, "sources": tuple}
    for attribute, expected in needed.items():
        if not isinstance(getattr(cls, attribute, None), expected):
            return f"`{attribute}` is missing or not a {expected.__name__}"
    if not _CODE.fullmatch(cls.code):
        return f"code {cls.code!r} is not letters and three digits, as in IL101"
    if not _NAME.fullmatch(cls.name):
        return f"name {cls.name!r} is not kebab-case"
    if cls.family not in FAMILIES:
        return f"family {cls.family!r} is none of {', '.join(FAMILIES)}"
    if cls.code.startswith("IL") and cls.code[2] != FAMILIES[cls.family]:
        return f"code {cls.code} does not belong to the family {cls.family} (IL{FAMILIES[cls.family]}xx)"
    if not cls.sources:
        return "`sources` is empty: name the paper and equation, or the issue"
    doc = inspect.getdoc(cls) or ""
    missing = [heading for heading in HEADINGS if f"## {heading}" not in doc]
    if missing:
        return f"the docstring lacks the heading(s) {', '.join(missing)}"
    for kind in ("bad", "good"):
        exempt = cls.needs_config or cls.by_engine or cls.thorough or cls.several  # these have tests of their own
        if not exempt and next(cls.examples(kind), None) is None:
            return f"there is no @{kind} example"
    return ""
