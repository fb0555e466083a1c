"""Init statements in the user's source against the record of what ran.

For each statement of the user's files that looks like an initialisation: how often it ran, what it
wrote, whether the function around it was seen running, and the conditions around it evaluated against
the model. Nothing is traced for this: recorded frames carry exact source positions.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch

from initlint.facts import Guard, InitStatement, Misread, ParameterFacts, Plain, Site, Tag
from initlint.probe.provenance_ops import SIGNATURES
from initlint.probe.provenance_patches import Applied
from initlint.probe.provenance_store import Event
from initlint.probe.record_lost import Fates
from initlint.probe.sites import make_site, span
from initlint.probe.statements_files import model_classes, read_sources, read_user_file, seen_codes
from initlint.probe.statements_guards import Guards, Place, subjects_of
from initlint.probe.statements_handed import Impossible
from initlint.probe.statements_marks import Marks
from initlint.probe.statements_match import Hits, Matcher
from initlint.probe.statements_meant import Meant
from initlint.probe.statements_missed import Misses
from initlint.probe.statements_names import UNKNOWN, Names, bound, parameters
from initlint.probe.statements_patterns import Patterns
from initlint.probe.statements_ranges import Ranges
from initlint.probe.statements_reach import Reach
from initlint.probe.statements_readings import Readings
from initlint.probe.statements_source import MAKES_MODULE, Call, Candidate, Scope, Source, site_at
from initlint.probe.statements_tags import Tags
from initlint.probe.statements_updates import is_update
from initlint.probe.statements_values import Values
from initlint.records import dataclass

if TYPE_CHECKING:
    from initlint.probe.provenance import Recorder

#: Arguments after the tensor of functions of ``torch.nn.init`` that have no in-place method of the same name.
_POSITIONS = {
    "constant_": ("val",),
    "trunc_normal_": ("mean", "std", "a", "b"),
    "xavier_uniform_": ("gain",),
    "xavier_normal_": ("gain",),
    "kaiming_uniform_": ("a", "mode", "nonlinearity"),
    "kaiming_normal_": ("a", "mode", "nonlinearity"),
    "orthogonal_": ("gain",),
    "sparse_": ("sparsity", "std"),
}
#: Kinds of conditions that select modules or parameters.
_SELECTING = ("isinstance", "type", "class_name", "name", "hasattr", "value")
#: Why a write was lost, what tells most first.
_REASONS = ("generated", "replaced", "temporary")
#: Methods that return another tensor, and how many steps back from a target they are looked for.
_COPIES = frozenset({"clone", "cpu", "cuda", "to", "float", "double", "half", "contiguous"})
_DEEP = 8


@dataclass(frozen=True, slots=True)
class _View:
    """Everything that statements are judged with."""

    matcher: Matcher
    guards: Guards
    reach: Reach
    names: Names
    meant: Meant
    misses: Misses
    patterns: Patterns
    impossible: Impossible
    marks: Marks
    calls: dict[tuple[str, int], int]  # (file, first line of a function) -> how often it was called


@dataclass(frozen=True, slots=True)
class Code:
    """The user's source of a model and what of it was seen running."""

    classes: dict[type, tuple[str, ...]]
    codes: list[Any]
    sources: dict[str, Source]


def read_code(recorder: Recorder, model: torch.nn.Module) -> Code:
    """Read the files that took part in a build."""
    classes, codes = model_classes(recorder, model), seen_codes(recorder)
    return Code(classes, codes, read_sources(recorder, classes, codes))


def init_statements(
    recorder: Recorder, model: torch.nn.Module, fates: Fates, code: Code
) -> tuple[tuple[InitStatement, ...], tuple[Misread, ...], tuple[Tag, ...]]:
    """All statements that look like an initialisation, misread conditions, and marks that none reads."""
    codes, sources = code.codes, code.sources
    names, instances = _names(recorder, model, code)
    subjects = subjects_of(model)
    guards = Guards(names, subjects)
    applied = _applied(recorder)
    paths = {id(m): n for n, m in model.named_modules()}
    ranges = Ranges(names, applied, paths)
    misses = Misses(model, recorder, names, guards, ranges)
    view = _View(
        Matcher(recorder, sources, fates),
        guards,
        Reach(codes, sources, guards, set(instances), [frozenset(keys) for keys in code.classes.values()], applied),
        names,
        Meant(model, names, guards, subjects),
        misses,
        Patterns(model, recorder.patches.matchings),
        Impossible(names, ranges, misses, paths),
        Marks(ranges, sources, paths),
        _call_counts(recorder, codes),
    )
    found: list[InitStatement] = []
    for source in sources.values():
        for candidate in view.matcher.candidates(source):
            found += _describe(candidate, source, view)
    named = tuple(name for name, _ in model.named_parameters(remove_duplicate=False))
    readings = Readings(names, guards, ranges, misses, view.meant, named)
    misread = tuple(item for source in sources.values() for item in readings.of(source))
    ordered = tuple(sorted(found, key=lambda item: (item.site.file, item.site.line, item.site.column or 0)))
    return ordered, misread, tuple(Tags(ranges, misses, sources, paths).unread(ordered))


def with_computed(
    recorder: Recorder, model: torch.nn.Module, parameters: list[ParameterFacts], code: Code
) -> list[ParameterFacts]:
    """The parameters, each with where the numbers of its last write are computed."""
    values = Values(_names(recorder, model, code)[0], code.sources, lambda path: read_user_file(recorder, path))
    return [
        parameter if (found := values.of(parameter)) is None else replace(parameter, computed=found)
        for parameter in parameters
    ]


def _names(recorder: Recorder, model: torch.nn.Module, code: Code) -> tuple[Names, dict[str, list[Any]]]:
    instances: dict[str, list[Any]] = {}
    for module in model.modules():
        for key in code.classes.get(type(module), ()):
            instances.setdefault(key, []).append(module)
    return Names(code.sources, recorder.seen, instances, recorder.namespaces), instances


def _call_counts(recorder: Recorder, codes: list[Any]) -> dict[tuple[str, int], int]:
    """How often functions were called, where that is known: constructors and functions passed to ``apply``."""
    counts: dict[tuple[str, int], int] = {}
    for code in codes:
        known = recorder.patches.calls.get(id(code), 0)
        known = known or len(recorder.seen.get((code.co_filename, code.co_qualname), ()))
        if known:
            counts[code.co_filename, code.co_firstlineno] = known
    return counts


def _applied(recorder: Recorder) -> dict[tuple[str, int], list[Applied]]:
    """The outermost calls of ``apply``, by file and first line of the function that they were given."""
    found: dict[tuple[str, int], list[Applied]] = {}
    for key, calls in recorder.patches.roots.items():
        code = recorder.patches.applied[key]
        found.setdefault((code.co_filename, code.co_firstlineno), []).extend(calls)
    return found


def _describe(candidate: Candidate, source: Source, view: _View) -> list[InitStatement]:
    hits = view.matcher.hits(candidate)
    if not hits.runs() and (not view.reach.relevant(candidate, source) or is_update(candidate, source, view.names)):
        return []
    guards = view.guards.of((*candidate.tests, *candidate.exits), Place(candidate.scope, source))
    other: tuple[str, ...] = ()  # what the statement was meant for, where its conditions cannot hold
    if not hits.runs():
        idle = view.misses.idle(candidate, source)
        guards = tuple(replace(guard, matched=0) if guard.text in idle else guard for guard in guards)
        other = absent = view.impossible.absent(candidate, source)
        if absent:  # other classes of the model may have an attribute of that name
            guards = tuple(
                replace(guard, kind="hasattr", matched=0) if "attr(" in guard.text else guard for guard in guards
            )
        marked = view.meant.of(view.marks.meant(candidate), candidate)
        if marked:
            other = other or marked
            guards = tuple(replace(g, kind="mark", matched=0) if "attr(" in g.text else g for g in guards)
        apart = view.meant.apart(candidate, source)
        if apart:
            other = other or apart
            guards = tuple(
                replace(g, kind="together") if g.matched == 0 and "hasattr(" in g.text else g for g in guards
            )
    args, settled = _arguments(candidate, source, view.names)
    statement = replace(
        _recorded(candidate, source, hits, view),
        guards=guards,
        args=args,
        settled=settled,
        index=_index(candidate, source, hits),
        parts=view.misses.in_parts(candidate),
        value_site=_value_site(candidate, source),
        caller=None if _made_here(candidate) else _caller(hits, candidate),
    )
    if candidate.result_unused and candidate.op == MAKES_MODULE and hits.touches:
        kept_out = view.meant.behind(candidate, source)
        statement = replace(statement, lost=hits.touches, lost_reason="returned", affected=kept_out)
    elif candidate.result_unused and statement.lost:
        reason = "unkept" if candidate.own else statement.lost_reason
        meant = statement.affected or view.meant.behind(candidate, source)
        statement = replace(statement, lost_reason=reason, affected=meant)
    if candidate.op == "pass":
        return [_passed(statement, candidate, source, view)]
    if not statement.lost or statement.lost_reason == "replaced":
        missed = view.misses.of(candidate, source, hits, statement.parameters)
        statement = replace(
            statement,
            affected=statement.affected if statement.lost else other or _affected(statement, candidate, source, view),
            missed=missed.names if statement.reached else (),
            missed_why=missed.why,
            missed_at=missed.at,
        )
    if statement.lost and candidate.op == "assign":
        # a name that a loop binds stood for that loop's parameters, whatever the value was computed from; what a
        # function computes and hands back to ``apply`` was meant for the layers that its conditions select
        meant = view.meant.through_loop(candidate, source)
        meant = meant or statement.affected or view.meant.never_called(candidate, source)
        statement = replace(statement, affected=meant)
    found = [statement, *_by_call_site(statement, candidate, source, hits, view)]
    found += _handed_tensors(statement, candidate, source, view)
    found += _idle_names(statement, candidate, source, view) + _idle_choices(statement, candidate, source, view)
    return found + _idle_patterns(statement, candidate, source, view)


def _recorded(candidate: Candidate, source: Source, hits: Hits, view: _View) -> InitStatement:
    """What the record says about a statement."""
    calls: dict[int, list[Event]] = {}
    for event in hits.events:
        calls.setdefault(event.call, []).append(event)
    written: dict[str, None] = {}
    affected: dict[str, None] = {}
    lost, reason = 0, ""
    for events in calls.values():
        outcomes = [view.matcher.fates.of(event) for event in events]
        reached = [name for outcome in outcomes for name in outcome.parameters]
        written.update(dict.fromkeys(reached))
        # An init function may write temporaries of its own beside its target.
        gone = min((o for o in outcomes if o.lost), key=lambda o: _REASONS.index(o.reason), default=None)
        if gone is not None and not reached:
            lost, reason = lost + 1, gone.reason
            affected.update(dict.fromkeys(gone.affected))
    ran = bool(hits.runs()) or view.reach.reached(candidate.scope)
    op = hits.events[0].op if hits.events and not hits.events[0].creation else candidate.op
    return InitStatement(
        site=site_at(candidate.node, source, candidate.scope),
        op=op,
        target="" if candidate.target is None else source.segment(candidate.target),
        runs=hits.runs(),
        reached=ran,
        parameters=tuple(written),
        lost=lost,
        lost_reason=reason,
        affected=tuple(affected),
        calls=view.calls.get((source.path, candidate.scope.first_line)) if candidate.scope.node else None,
        referenced=view.reach.referenced(candidate.scope, source),
        named=None if ran else view.reach.named(candidate.scope, source),
    )


def _affected(statement: InitStatement, candidate: Candidate, source: Source, view: _View) -> tuple[str, ...]:
    """Parameters that the statement was meant for and did not write."""
    if statement.runs:
        return view.meant.other_than_tested(candidate, source, statement.parameters)
    if not statement.reached:
        return view.misses.selected(candidate, source) or view.meant.never_called(candidate, source)
    args = dict(statement.args)
    found = view.meant.kin(candidate, source, statement.guards, {}, args)
    if not found and any(guard.matched == 0 and guard.kind in _SELECTING for guard in statement.guards):
        found = view.meant.lacking(view.misses.kin(candidate, source), candidate.op, args)
    return found


def _passed(statement: InitStatement, candidate: Candidate, source: Source, view: _View) -> InitStatement:
    """A branch that does nothing: how often it was taken follows from its conditions."""
    counts = [guard.matched for guard in statement.guards]
    if not statement.reached or not counts or any(count is None or count == 0 for count in counts):
        return statement
    modules = [g.matched for g in statement.guards if g.kind != "value" and g.matched is not None]
    outer = [test.expr for test in candidate.tests[1:] if not test.chain]
    siblings = [
        other
        for other in source.candidates
        if other.scope is candidate.scope
        and other.op != "pass"
        and all(any(expr is test.expr for test in other.tests) for expr in outer)
    ]
    affected = view.meant.passed_over(candidate, siblings, source)
    return replace(statement, runs=min(modules, default=1), affected=affected)


def _arguments(
    candidate: Candidate,
    source: Source,
    names: Names,
    call: tuple[Call, Source] | None = None,
    known: Mapping[str, Plain] | None = None,
) -> tuple[dict[str, Plain], bool]:
    """Arguments of the statement that can be evaluated without running it, and whether these are all.

    ``call``: as this call of the function around it passes them on. ``known``: values that variables had.
    """
    node = candidate.node
    if not isinstance(node, ast.Call):
        return {}, False
    method = isinstance(node.func, ast.Attribute) and node.func.value is candidate.target
    ordered = _POSITIONS.get(candidate.op) or tuple(key for key, _ in SIGNATURES.get(candidate.op, ()))
    exprs = list(zip(ordered, node.args[0 if method else 1 :], strict=False))
    exprs += [(keyword.arg, keyword.value) for keyword in node.keywords if keyword.arg not in (None, "tensor")]
    found: dict[str, Plain] = {}
    for name, expr in exprs:
        values = names.values(expr, candidate.scope, source)
        if call is not None and isinstance(expr, ast.Name) and expr.id in parameters(candidate.scope):
            passed = bound(expr.id, candidate.scope, call[0].node)
            default = names.default(expr.id, candidate.scope, source)
            values = default if passed is None else names.values(passed, call[0].scope, call[1])
        if known is not None and isinstance(expr, ast.Name) and expr.id in known:
            values = [known[expr.id]]
        if name and len(values) == 1 and isinstance(values[0], bool | int | float | str):
            found[name] = values[0]
    return found, len(found) == len(exprs)


def _index(candidate: Candidate, source: Source, hits: Hits) -> str:
    """The index of a target's part; "" for none, for one that plainly means all (``w[:]``), for a container's key."""
    node = candidate.node if isinstance(candidate.node, ast.Subscript) else candidate.target
    while isinstance(node, ast.Attribute) and node.attr == "data":
        node = node.value
    if not isinstance(node, ast.Subscript) or (isinstance(node.ctx, ast.Load) and _looked_up(node, hits)):
        return ""
    text = source.segment(node.slice)
    return text if any(isinstance(part, ast.Name | ast.Attribute | ast.Call) for part in ast.walk(node.slice)) else ""


def _looked_up(node: ast.Subscript, hits: Hits) -> bool:
    """``weights[name]``: an index other than a slice changes a tensor's shape, a key gives the parameter as it is."""
    if not hits.events or any(isinstance(part, ast.Slice) for part in ast.walk(node.slice)):
        return False
    for event in hits.events:
        held = [registration.tensor() for registration in event.store.registrations]
        if not any(tensor is not None and tuple(tensor.shape) == event.region.size for tensor in held):
            return False
    return True


def _value_site(candidate: Candidate, source: Source) -> Site | None:
    """The one assignment of the local variable that the arguments are computed from."""
    if not isinstance(candidate.node, ast.Call):
        return None
    args = [*candidate.node.args, *(keyword.value for keyword in candidate.node.keywords)]
    for arg in args:
        if arg is candidate.target:
            continue
        for node in ast.walk(arg):
            local = candidate.scope.assigned.get(node.id, []) if isinstance(node, ast.Name) else []
            if len(local) == 1:
                return site_at(local[0], source, candidate.scope)
    return None


def _caller(hits: Hits, candidate: Candidate) -> Site | None:
    """The user's frame around the function of the statement, as first recorded."""
    for event in hits.events:
        for inner, outer in pairwise(event.frames):
            if inner[0].co_firstlineno == candidate.scope.first_line:
                where = span(outer)
                return None if where is None else make_site(outer[0].co_filename, where, outer[0].co_qualname)
    return None


def _made_here(candidate: Candidate) -> bool:
    """Whether the target, or what a loop takes it from, is a copy that the function itself made."""
    node: ast.expr | None = candidate.target
    for _ in range(_DEEP):
        if isinstance(node, ast.Name):
            loop = candidate.scope.loops.get(node.id)
            node = loop[0] if loop is not None else candidate.scope.only(node)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in _COPIES:
                return True
            node = node.func.value
        elif isinstance(node, ast.Attribute | ast.Subscript):
            node = node.value
        else:
            return False
    return False


def _idle_names(statement: InitStatement, candidate: Candidate, source: Source, view: _View) -> list[InitStatement]:
    """One entry for each name in ``"a" in name or "b" in name`` that no parameter has.

    The condition may also choose an argument: ``gain=beta if "v_proj" in name else 1.0``.
    """
    if not statement.runs:
        return []
    exprs = [test.expr for test in candidate.tests if test.positive]
    for node in ast.walk(candidate.node):
        if isinstance(node, ast.IfExp):
            exprs.append(candidate.scope.only(node.test))
    found = []
    for expr in exprs:
        for guard in view.guards.unmatched_names(expr, Place(candidate.scope, source)):
            site = site_at(expr, source, candidate.scope)
            found.append(replace(statement, site=site, runs=0, parameters=(), affected=(), guards=(guard,)))
    return found


def _idle_choices(statement: InitStatement, candidate: Candidate, source: Source, view: _View) -> list[InitStatement]:
    """One entry for each argument chosen by a name that nothing has: ``std=small if name == "proj" else std``."""
    if not statement.runs or not isinstance(candidate.node, ast.Call):
        return []
    scope, found = candidate.scope, []
    for keyword in candidate.node.keywords:
        choice = scope.only(keyword.value)
        if not isinstance(choice, ast.IfExp):
            continue
        guard = view.guards.never(scope.only(choice.test), Place(scope, source))
        if guard is None:
            continue
        others = [other for other in candidate.node.keywords if other is not keyword]
        taken = ast.Call(candidate.node.func, candidate.node.args, [*others, ast.keyword(keyword.arg, choice.body)])
        chosen = replace(candidate, node=ast.copy_location(taken, candidate.node))
        args, settled = _arguments(chosen, source, view.names)
        idle = replace(statement, runs=0, reached=True, parameters=(), affected=(), guards=(guard,))
        found.append(replace(idle, args=args, settled=settled, missed=(), missed_at=None))
    return found


def _idle_patterns(statement: InitStatement, candidate: Candidate, source: Source, view: _View) -> list[InitStatement]:
    """One entry for each pattern that names were tested against and that none of them matched."""
    found = []
    for idle in view.patterns.idle(candidate, source):
        guard = Guard("name", source.segment(idle.test), (idle.pattern,), 0, idle.test.lineno)
        args, settled = _arguments(candidate, source, view.names, known=idle.known)
        found.append(
            replace(
                statement,
                runs=0,
                reached=True,
                parameters=(),
                guards=(guard,),
                affected=idle.names,
                args=args,
                settled=settled,
                missed=(),
                missed_at=None,
            )
        )
    return found


def _by_call_site(
    statement: InitStatement, candidate: Candidate, source: Source, hits: Hits, view: _View
) -> list[InitStatement]:
    """One entry for each call of the function that selected nothing while other calls did.

    ``apply(weight_init(nn.Conv2d))`` and ``apply(weight_init(nn.Linear))`` run the same statement; the
    first may match no module at all.
    """
    mentioned = {node.id for test in candidate.tests for node in ast.walk(test.expr) if isinstance(node, ast.Name)}
    found: list[InitStatement] = []
    scope: Scope | None = candidate.scope if hits.events else None
    while scope is not None and scope.node is not None:
        chosen = [name for name in parameters(scope) if name in mentioned]
        for call, caller in view.names.call_sites(scope, source) if chosen else ():
            if view.reach.reached(call.scope) and not _through(call, caller, hits.events):
                bindings = _bindings(chosen, scope, call, caller, view.names)
                judged = view.guards.of(candidate.tests, Place(candidate.scope, source, bindings))
                if bindings and any(guard.matched == 0 and guard.kind != "value" for guard in judged):
                    kin = view.meant.kin(candidate, source, judged, bindings, dict(statement.args))
                    selector = site_at(call.node, caller, call.scope)
                    found.append(
                        replace(statement, runs=0, parameters=(), guards=judged, affected=kin, selector=selector)
                    )
        scope = scope.parent
    return found


def _handed_tensors(statement: InitStatement, candidate: Candidate, source: Source, view: _View) -> list[InitStatement]:
    """One entry for each call that hands over a tensor where a module is asked for."""
    found = []
    for handed in view.impossible.handed(candidate, source):
        if not view.reach.reached(handed.call.scope):
            continue
        text = source.segment(handed.test)
        guard = Guard("hasattr", text, (), 0, getattr(handed.test, "lineno", None))
        args, settled = _arguments(candidate, source, view.names, (handed.call, handed.caller))
        selector = site_at(handed.call.node, handed.caller, handed.call.scope)
        found.append(
            replace(
                statement,
                runs=0,
                parameters=(),
                guards=(guard,),
                affected=handed.names,
                selector=selector,
                args=args,
                settled=settled,
                missed=(),
                missed_at=None,
            )
        )
    return found


def _bindings(chosen: list[str], scope: Scope, call: Call, caller: Source, names: Names) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in chosen:
        expr = bound(name, scope, call.node)
        values = [] if expr is None else names.values(expr, call.scope, caller)
        if len(values) == 1 and values[0] is not UNKNOWN:
            found[name] = values[0]
    return found


def _through(call: Call, caller: Source, events: list[Event]) -> bool:
    """Whether any event was recorded while this call, or the statement around it, was running."""
    first, last = call.node.lineno, call.node.end_lineno or call.node.lineno
    for event in events:
        for code, lasti in event.frames:
            if code.co_filename == caller.path and code.co_firstlineno == call.scope.first_line:
                where = span((code, lasti))
                if where is not None and where[0] <= first and where[1] >= last:
                    return True
    return False
