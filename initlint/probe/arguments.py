"""Constructor arguments where required ones are missing: from evidence first, by convention last.

The order: the command line, the configuration, call sites in the repository, defaults of configuration
classes, annotations, how the constructor uses the argument, and the field's standard names. Each value
is recorded with its origin, so that the report can show it.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any

from initlint.errors import ProbeError
from initlint.facts import Argument
from initlint.probe import downloads
from initlint.probe.dependencies import depends_on, unwatched
from initlint.probe.target import Call, relative
from initlint.records import dataclass

if TYPE_CHECKING:
    from initlint.probe.callsites import CallSite
    from initlint.probe.script import Script

_CONFIGURED = "configuration"
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Proposal:
    """One set of arguments to try, and where each comes from."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    arguments: tuple[Argument, ...] = ()


def parameters_of(subject: Any) -> list[inspect.Parameter]:
    """The arguments that a class or function takes; empty where Python cannot tell."""
    try:
        return list(inspect.signature(subject).parameters.values())
    except (TypeError, ValueError):
        return []


def required(subject: Any) -> list[str]:
    """Names of the arguments without a default."""
    return [p.name for p in parameters_of(subject) if p.default is p.empty and p.kind not in _VARIADIC]


def propose(
    subject: Any,
    name: str,
    call: Call | None,
    given: Mapping[str, Any],
    script: Script,
    directory: str,
    *,
    guess: bool,
) -> Iterator[Proposal]:
    """Sets of arguments to try, the best first.

    Args:
        call: as written on the command line; when it has arguments, nothing else is tried.
        given: from the configuration; these win over evidence.
        guess: whether conventions may fill what evidence does not.

    Raises:
        ProbeError: the arguments on the command line do not fit, or a required one is known from nowhere.
    """
    if call is not None and call.called:
        yield _from_command_line(subject, name, call)
        return
    chosen = {n: (v, _CONFIGURED) for n, v in given.items()}
    chosen = downloads.by_default(parameters_of(subject)) | chosen
    _check_names(subject, name, given)
    missing = [n for n in required(subject) if n not in given]
    if not missing:
        yield _proposal(subject, chosen)
        # Taken up only where the defaults make nothing: a call says more.
        sites = list(_from_call_sites(subject, name, script, directory, chosen))
        yield from (_proposal(subject, _told(found)) for found in sites if _told(found))
        for found in sites if guess else ():  # what it gives in place of nothing, though its value cannot be told
            given = {n: origin for n, (v, origin) in found.items() if v is _UNTOLD}
            filled, _ = _filled(subject, _told(found), script, directory, guess=guess, optional=given)
            if len(filled) > len(_told(found)):
                yield _proposal(subject, filled)
        return
    sites = [told for found in _from_call_sites(subject, name, script, directory, chosen) if (told := _told(found))]
    complete = [found for found in sites if all(n in found for n in missing)]
    for found in complete:
        yield _proposal(subject, found)
    partial = max(sites, key=len, default=chosen)
    if guess and os.path.isabs(script.path):
        yield from _from_config_files(subject, name, partial, script, directory)
    filled, unknown = _filled(subject, partial, script, directory, guess=guess)
    if unknown:
        noun = "argument" if len(unknown) == 1 else "arguments"
        if not complete:
            raise ProbeError(f"no value is known for the {noun} {', '.join(unknown)}")
        return
    yield _proposal(subject, filled)


def _from_command_line(subject: Any, name: str, call: Call) -> Proposal:
    try:
        bound = inspect.signature(subject).bind(*call.args, **dict(call.kwargs))
    except TypeError as error:
        parameters = ", ".join(
            str(p).split(":")[0] if p.default is p.empty else f"{p.name}={p.default!r}" for p in parameters_of(subject)
        )
        raise ProbeError(f"the arguments do not fit {name}: {error}", f"It is {name}({parameters}).") from None
    except ValueError:
        bound = None
    names = list(bound.arguments) if bound is not None else []
    texts = [(names[int(n)] if n.isdigit() and int(n) < len(names) else n, text) for n, text in call.texts]
    arguments = tuple(Argument(n, text, "command line") for n, text in texts)
    return Proposal(call.args, dict(call.kwargs), arguments)


def _check_names(subject: Any, name: str, given: Mapping[str, Any]) -> None:
    known = parameters_of(subject)
    if not known or any(p.kind is p.VAR_KEYWORD for p in known):
        return
    wrong = [n for n in given if n not in {p.name for p in known}]
    if wrong:
        names = ", ".join(p.name for p in known)
        raise ProbeError(
            f"the configuration gives {name} an argument {wrong[0]!r}, which it does not have", f"It has: {names}."
        )


Chosen = dict[str, tuple[Any, str]]  # name -> value, origin
_UNTOLD = object()  # a value that a call gives, and that cannot be told without running it


def _told(found: Chosen) -> Chosen:
    return {name: entry for name, entry in found.items() if entry[0] is not _UNTOLD}


def _from_call_sites(subject: Any, name: str, script: Script, directory: str, chosen: Chosen) -> Iterator[Chosen]:
    """What calls in the repository give, beside what is chosen already and the configuration's word, which stands."""
    from initlint.probe import callsites

    if not os.path.isabs(script.path):
        return
    known = {p.name for p in parameters_of(subject)}
    with unwatched():
        sites = callsites.find(name.rpartition(".")[2], script.path)
    for site in sites:
        found = _evaluated(subject, site, script, directory) if callsites.means(site, script.path) else None
        if found:
            depends_on(site.source.path)
            yield {
                **chosen,
                **{n: downloads.without(n, *v) for n, v in found.items() if n in known},
                **{n: v for n, v in chosen.items() if v[1] == _CONFIGURED},
            }


def _evaluated(subject: Any, site: CallSite, script: Script, directory: str) -> Chosen | None:
    """The arguments of one call, ``_UNTOLD`` where the value cannot be; ``None`` when the call does not fit."""
    from initlint.probe.callsites import takes_rest
    from initlint.probe.evaluate import Evaluator, Unknown

    evaluator = Evaluator(site, script.namespace, script.name)
    try:
        bound = inspect.signature(subject).bind_partial(
            *[a for a in site.call.args if not isinstance(a, ast.Starred)],
            **{k.arg: k.value for k in site.call.keywords if k.arg is not None},
        )
    except (TypeError, ValueError):
        return None
    origin = f"call site {relative(site.source.path, directory)}:{site.line}"
    found: Chosen = {}
    for name, node in bound.arguments.items():
        if isinstance(node, ast.expr):
            try:
                found[name] = (evaluator.value(node), origin)
            except Unknown:
                found[name] = (_UNTOLD, origin)
    for keyword in site.call.keywords:
        if keyword.arg is None:  # **config
            if isinstance(keyword.value, ast.Name) and takes_rest(site, keyword.value.id):
                continue
            try:
                values = evaluator.value(keyword.value)
            except Unknown:
                return None
            found |= {str(name): (value, origin) for name, value in dict(values).items()}
    starred = any(isinstance(a, ast.Starred) for a in site.call.args)
    return None if starred else found


def _from_config_files(subject: Any, name: str, chosen: Chosen, script: Script, directory: str) -> Iterator[Proposal]:
    """What the project's configurations give for the arguments, or for the entries that are read from one of them."""
    from initlint.probe import config_files, config_formats, configs, conventions

    def note(found: config_files.Found) -> str:
        for path in found.paths:
            depends_on(path)
        return f"configuration {relative(found.paths[0], directory)}"

    known = [p for p in parameters_of(subject) if p.kind not in _VARIADIC and p.name not in chosen]
    missing = [p.name for p in known if p.default is p.empty]
    with unwatched():
        others = [p.name for p in known if p.default is not p.empty]
        direct = config_files.arguments_for(name.rpartition(".")[2], missing, others, script.path)
    if direct is not None:
        origin = note(direct)
        yield _proposal(subject, chosen | {n: (v, origin) for n, v in direct.values.items()})
        return
    found = dict(chosen)
    for argument, paths in configs.entries(subject).items():
        if argument in missing and paths and _namesake(argument, script, directory)[0] is conventions.NOTHING:
            with unwatched():
                config = config_files.entries_for(list(paths), script.path)
            if config is not None:
                rest = {path: usage for path, usage in paths.items() if not config_formats.has(config.values, path)}
                values = configs.made(rest, argument)
                if values is not conventions.NOTHING:
                    found[argument] = (config_files.joined(config.values, values), note(config))
    if len(found) > len(chosen):
        filled, unknown = _filled(subject, found, script, directory, guess=True)
        if not unknown:
            yield _proposal(subject, filled)


def _filled(
    subject: Any,
    chosen: Chosen,
    script: Script,
    directory: str,
    *,
    guess: bool,
    optional: Mapping[str, str] | None = None,
) -> tuple[Chosen, list[str]]:
    """Fill the missing required arguments; returns also the names for which nothing is known.

    Args:
        optional: arguments to fill, too, where they are nothing by default, and the calls that give them.
    """
    from initlint.probe import configs, conventions
    from initlint.probe import items as sequences

    read: Mapping[str, Any] | None = None
    uses = conventions.uses(subject)
    namespace = script.namespace
    filled = dict(chosen)
    unknown: list[str] = []
    items = sequences.read(subject)
    beside = {p.name: p.default for p in parameters_of(subject)} | {n: v for n, (v, _) in chosen.items()}
    for parameter in parameters_of(subject):
        if parameter.name in filled or parameter.kind in _VARIADIC:
            continue
        given = (optional or {}).get(parameter.name, "") if parameter.default is None else ""
        if parameter.default is not parameter.empty and not given:
            continue
        usage = uses.get(parameter.name, conventions.Usage())
        usage.counted |= parameter.name in items and items[parameter.name].repeated
        annotation = _annotation(parameter, namespace)
        kinds = [annotation, *(namespace.get(name) for name in usage.checked)]
        if usage.called < 0:  # what the constructor calls is a class, and no part
            kinds.append(_class_called(parameter.name, namespace))
        value, origin = _part(kinds, script, directory) if guess else (conventions.NOTHING, "")
        if value is conventions.NOTHING:
            value, origin = _namesake(parameter.name, script, directory)
        if value is not conventions.NOTHING:
            pass
        elif isinstance(annotation, type) and annotation is not parameter.empty and annotation.__module__ != "builtins":
            value = conventions.by_annotation(parameter.name, annotation, usage, namespace)
            origin = f"defaults of {annotation.__name__}"
        elif not usage.iterated:
            if usage.attributes:
                value, origin = conventions.config_for(usage.attributes, namespace)
            if value is conventions.NOTHING and usage.called < 0 and not usage.module:  # no configuration is called
                read = read if read is not None else configs.entries(subject)
                if paths := read.get(parameter.name):
                    value, origin = configs.made(paths, parameter.name), "convention"
                    declared, options = _options(paths, script, directory)
                    # real sizes are large: where small ones can be made up, these do; a word is none that they fit
                    if value is conventions.NOTHING or any(
                        isinstance(option, str) and not isinstance(value.get(name, ""), str)
                        for name, option in declared.items()
                    ):
                        value, origin = configs.made(paths, parameter.name, declared), options
        if value is conventions.NOTHING and guess:
            value, origin = conventions.config_called(parameter.name, subject, namespace)
        if value is conventions.NOTHING and guess and not usage.attributes:  # a number has no entries
            if annotation is parameter.empty:
                value, origin = conventions.counted(parameter.name), "convention"
            if value is conventions.NOTHING:
                value, origin = conventions.value_for(parameter.name, annotation, usage, namespace)
            value = sequences.fitted(parameter.name, value, items, beside)
        if value is conventions.NOTHING:
            unknown.append(parameter.name)
        else:
            filled[parameter.name] = (value, f"{origin}; {given} gives it" if given else origin)
    return filled, unknown


def _namesake(name: str, script: Script, directory: str) -> tuple[Any, str]:
    """What the file itself gives to a name of its top level that is called like the argument: ``config = {...}``."""
    from initlint.probe import callsites, conventions
    from initlint.probe.evaluate import Evaluator, Unknown

    site = callsites.module_level(name, script.path) if os.path.isabs(script.path) else None
    if site is None:
        return conventions.NOTHING, ""
    try:
        value = Evaluator(site, script.namespace, script.name).value(ast.Name(name))
    except Unknown:
        return conventions.NOTHING, ""
    plain = isinstance(value, (int, float, str, tuple, list, dict)) and value not in ((), [], {}, "")
    return (value, f"`{name}` in {relative(script.path, directory)}") if plain else (conventions.NOTHING, "")


def _options(paths: Mapping[tuple[str, ...], Any], script: Script, directory: str) -> tuple[Mapping[str, Any], str]:
    """Values that a script of the repository gives to what a configuration is asked for, and where they come from."""
    from initlint.probe.commandline import options_for

    if not os.path.isabs(script.path):
        return {}, "convention"
    with unwatched():
        options = options_for({path[0] for path in paths if len(path) == 1}, script.path)
    if options is None:
        return {}, "convention"
    depends_on(options.path)
    return options.values, f"options of {relative(options.path, directory)}"


def _class_called(name: str, namespace: Mapping[str, Any]) -> Any:
    """The class of the module that is called like an argument: ``Encoder`` for ``encoder``."""
    wanted = name.replace("_", "").lower()
    return next((v for n, v in namespace.items() if n.lower() == wanted and n != name and isinstance(v, type)), None)


def _part(classes: Sequence[Any], script: Script, directory: str) -> tuple[Any, str]:
    """A sub-model of the class that the annotation names, that the constructor asks for by ``isinstance``, or that is
    called like the argument."""
    from torch import nn

    from initlint.probe import conventions

    for cls in classes:
        if not isinstance(cls, type) or not issubclass(cls, nn.Module) or cls in (nn.Module, *_making):
            continue
        _making.append(cls)
        try:
            for proposal in propose(cls, cls.__name__, None, {}, script, directory, guess=True):
                with contextlib.suppress(Exception):  # its code may refuse for any reason
                    return cls(*proposal.args, **proposal.kwargs), f"an instance of {cls.__name__}"
        except ProbeError:
            continue
        finally:
            _making.pop()
    return conventions.NOTHING, ""


_making: list[type] = []  # sub-models being made, so that none is made inside itself


def _annotation(parameter: inspect.Parameter, namespace: Mapping[str, Any]) -> Any:
    """The annotation, with one written as a string looked up in the module (names and simple types only)."""
    annotation = parameter.annotation
    if not isinstance(annotation, str):
        return annotation
    try:
        tree = ast.parse(annotation, mode="eval")
        allowed = (ast.Expression, ast.Name, ast.Attribute, ast.Subscript, ast.BinOp, ast.BitOr, ast.Tuple, ast.List)
        if all(isinstance(node, (*allowed, ast.Constant, ast.Load)) for node in ast.walk(tree)):
            return eval(compile(tree, "<annotation>", "eval"), dict(namespace))
    except Exception:  # an annotation need not make sense when evaluated
        return annotation
    return annotation


def _proposal(subject: Any, chosen: Chosen) -> Proposal:
    from initlint.probe import conventions

    chosen = {name: (conventions.completed(name, value, subject), origin) for name, (value, origin) in chosen.items()}
    positional_only = [p.name for p in parameters_of(subject) if p.kind is p.POSITIONAL_ONLY]
    args = tuple(chosen[name][0] for name in positional_only if name in chosen)
    kwargs = {name: value for name, (value, _) in chosen.items() if name not in positional_only}
    arguments = tuple(Argument(name, text_of(value), origin) for name, (value, origin) in chosen.items())
    return Proposal(args, kwargs, arguments)


def asked_for(subject: Any, proposal: Proposal, message: str) -> Iterator[Proposal]:
    """The same with one of the optional arguments that a refusal names: "either heads or width has to be set"."""
    from initlint.probe import conventions

    words = set(re.findall(r"\w+", message))
    for parameter in parameters_of(subject):
        unset = parameter.default is None or parameter.default == -1
        if parameter.name not in words or parameter.name in proposal.kwargs or not unset:
            continue
        value = conventions.by_name(parameter.name)
        if value is not conventions.NOTHING:
            told = Argument(parameter.name, text_of(value), "asked for by the constructor")
            kwargs = {**proposal.kwargs, parameter.name: value}
            yield Proposal(proposal.args, kwargs, (*proposal.arguments, told))


def text_of(value: Any) -> str:
    """Source text for a value, as it could be written in a call; one short line."""
    if isinstance(value, type) or inspect.isfunction(value):
        module = "nn." if getattr(value, "__module__", "").startswith("torch.nn.modules") else ""
        return f"{module}{value.__qualname__}"
    if hasattr(value, "named_parameters"):  # a sub-model: its layers would fill the page
        return f"{type(value).__qualname__}(...)"
    text = " ".join(repr(value).split())
    return text if len(text) <= 120 else f"{text[:117]}..."
