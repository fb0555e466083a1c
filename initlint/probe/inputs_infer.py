"""Infer inputs by trying small tensors until the forward passes.

Candidates come from the layers that read an argument (symbolic graph), else from the first
weighted layers; a failing attempt is recorded, and the op that failed says what to change.
"""

from __future__ import annotations

import heapq
import itertools
import math
import re
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from initlint.errors import ProbeError
from initlint.probe import symbolic
from initlint.probe.dependencies import depends_on
from initlint.probe.entrance import NO_FORWARD, has_forward
from initlint.probe.inputs_arguments import Argument, demanded, needed
from initlint.probe.inputs_asserts import stated_shapes
from initlint.probe.inputs_calls import Calls, Told, with_samples
from initlint.probe.inputs_docs import agrees, described, described_guesses, expected, placed
from initlint.probe.inputs_drafts import Given, all_arguments, furthest, noted, noted_tensor, takes
from initlint.probe.inputs_failed import Assignment, Failed, missing_key
from initlint.probe.inputs_leads import first_layers, leads
from initlint.probe.inputs_library import declared_images, library_inputs, library_values
from initlint.probe.inputs_names import by_name
from initlint.probe.inputs_repair import LARGEST_TUPLE, listed, repairs
from initlint.probe.inputs_scale import divisors
from initlint.probe.inputs_settings import named_setting, setting, settings
from initlint.probe.inputs_sizes import converge, flattened
from initlint.probe.inputs_source import keyed, unpacked
from initlint.probe.inputs_spec import HINT, LENGTHS, build, smallest_table
from initlint.probe.inputs_wants import Guess, spatial, tokens, variants
from initlint.probe.recorded import Recorder
from initlint.probe.recorded_cover import cover
from initlint.probe.recorded_state import exporting, preserved, seeded, set_mode
from initlint.probe.submodules import submodule
from initlint.probe.traced import argument_names, batch_of, meta_of, tensors_in, to_device
from initlint.records import dataclass

# Samples: enough for a correlation between samples; fewer for large models, whose runs take long.
_SAMPLES = 4
_LARGE_MODEL = 20_000_000
# Attempts at most; most models pass within five.
_ATTEMPTS = 80
# Cost of a later candidate and of a later repair, in repairs: the search takes the cheapest attempt first. A repair
# that brings the forward further costs half as much.
_NEXT = 0.6
_PROGRESS = 0.5
_RANK = 0.15
# Elements of inputs beyond which trying is too slow: two clips of 16 frames of 224x224 are within, and three pairs of
# images of 896x448.
_LARGEST_INPUT = 8_000_000
# Elements of inputs that take hardly longer than those that are inferred (four images of 90 pixels): a call's own are
# tried first then, larger ones where the first candidate fails.
_QUICK = 100_000
# Share of the model from which on no further combination of inputs is tried (poolers may stay unread).
_REACHED = 0.9
# Repairs taken up from one failed attempt.
_FIXES = 24
# A 3x3 kernel on a map of 4x4 or more sees mostly inside; below, padding would halve the effective fan-in.
_SMALLEST_MAP = 4
_LARGEST_IMAGE = 256
# What there is of each edge of a graph, by its name.
_OF_EDGES = re.compile(r"edge_?(?!index|idx)[a-z]")
# Python code that refuses to run "in training mode", "if training", wants what cannot be guessed (targets, lengths).
_IN_TRAINING = "training"
_DEMANDS = 2


@dataclass(frozen=True, slots=True)
class Found:
    """A call: one that passes, or (``notes`` say so) the one that got furthest."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    origin: str
    recording: Recorder | None = None
    training: bool = True
    notes: tuple[str, ...] = ()
    estimating: bool = True


def infer(
    model: nn.Module, *, seed: int, budget: float, samples: int | None = None, calls: Calls | None = None
) -> Found:
    """Arguments with which the forward passes, else those with which it reaches most layers.

    Args:
        budget: seconds of this process.
        samples: how many, where that is not left to the model's size.
        calls: where the repository calls the model.

    Raises:
        ProbeError: no attempt reached a single layer.
    """
    if not has_forward(model):
        raise ProbeError(NO_FORWARD, "Name a class or function whose result can be called.")
    # Clips and volumes hold so many positions that two do.
    slow = _is_large(model) or any(isinstance(m, nn.Conv3d) for m in model.modules())
    batch = samples or (2 if slow else _SAMPLES)
    search = _Search(model, seed)
    near = list(calls.near(model)) if calls is not None else []
    for training, estimating in ((True, True), (False, True), (False, False)):
        if not training:
            batch = 2  # detection models: they resize images to their own size, and treat boxes one by one
        search.start(training, estimating, budget)
        quick = [told for told in near if told.elements(batch) <= _QUICK]
        found = search.library(batch) or search.told(quick, batch) or search.general(batch, near)
        if found is None and calls is not None and training:
            search.start(training, estimating, budget)  # of which the search has left nothing
            found = search.told(calls.far(model), batch)
        if found is not None:
            return found
        if training and "train" not in search.reason.lower():
            break  # only models that say so behave differently in eval mode (detection wants targets)
    reason = search.best.notes[0] if search.best is not None else search.reason
    if (lacking := search.lacking.get(reason)) is not None:  # other inputs would not help
        if search.best is None:
            raise lacking
        return replace(search.best, notes=(f"{lacking.message}. {lacking.hint}",))
    if search.best is not None:
        note = f"no inputs found for which the forward passes ({reason}); {search.hint}"
        return replace(search.best, notes=(note,))
    raise ProbeError(f"no inputs found for which the forward passes ({reason})", search.hint)


class _Search:
    """Attempts under one budget; remembers the failed one that got furthest."""

    def __init__(self, model: nn.Module, seed: int) -> None:
        self.model, self.seed = model, seed
        self.reason = ""
        self.training = self.estimating = True
        self.until = 0.0
        self._demands = 0
        self.best: Found | None = None
        self.lacking: dict[str, ProbeError] = {}  # by the reason that they gave: of what could not be imported
        self._reached = 0, 0  # weighted layers and parameters, then ops
        self._origin = "inferred"
        self._first: Assignment = {}
        self._drafts: list[Failed] = []
        self._given: Given = {}
        self._leads: tuple[int, dict[str, list[Guess]]] | None = None  # of symbolic tracing, for a number of samples
        self._docs = described(model)
        self._stated = stated_shapes(model)

    @property
    def hint(self) -> str:
        """What to give on the command line, by the arguments that the model has."""
        if not self._first or any(g.kind in ("dict", "object", "list", "scalar") for g in self._first.values()):
            return HINT
        options = " ".join(f"--input '{g.text(n)}'" for n, g in self._first.items() if "[" not in n)
        return f"give inputs that fit, as in {options}, or define example_inputs() in the file"

    def start(self, training: bool, estimating: bool, budget: float) -> None:
        """Begin in another mode, with a budget of its own: seconds of this process, whatever else the machine does."""
        self.training, self.estimating = training, estimating
        self.until = time.process_time() + budget
        self._demands = 0
        self._drafts = []

    @property
    def over(self) -> bool:
        """Whether the budget is spent, or the model has said often enough that it cannot run in this mode."""
        return time.process_time() > self.until or self._demands >= _DEMANDS

    def library(self, batch: int) -> Found | None:
        """Calls that the model's own declarations suggest: the one that reaches most of the model."""
        self._origin = "library"
        best: tuple[float, Found] | None = None
        for args, kwargs in library_inputs(self.model, batch, self.seed):
            found = self.attempt(args, kwargs, noted(kwargs, self._given))
            if isinstance(found, Failed) and not args and takes(self.model, kwargs):
                self._drafts.append(found)
            if isinstance(found, Found) and found.recording is not None:
                reached = cover(self.model, found.recording.graph)[0]
                if best is None or reached > best[0]:
                    best = (reached, found)
            if (best is not None and best[0] >= _REACHED) or self.over:
                break
        return best[1] if best is not None else None

    def told(self, calls: Iterable[Told], batch: int) -> Found | None:
        """Calls that the repository makes itself, with so many samples where they have one or many."""
        for call in calls:
            for told in (with_samples(call, batch), call):
                if told is None or told.elements() > _LARGEST_INPUT or self.over:
                    continue
                self._origin = told.origin
                found = self.attempt((), told.values, {})
                if isinstance(found, Found):
                    depends_on(told.path)
                    return found
        return None

    def general(self, batch: int, calls: Sequence[Told] = ()) -> Found | None:
        """Candidates of the layers, repairs of failed attempts first; ``None`` when the budget is spent.

        ``calls``: what is tried when the first candidate fails.
        """
        self._origin = "inferred"
        arguments = all_arguments(self.model, self._drafts, self._docs)
        required = needed(self.model)
        first = self._assignments(required, batch) if required else iter([Assignment()])
        alone = len(required) == 1 and required[0].name not in self._stated
        if batch < _SAMPLES and alone and (simple := _simplest(self.model, required[0], batch)):
            # Large models: symbolic tracing, to see who reads the argument, would take as long as this attempt.
            first = itertools.chain([simple], first)
        order = itertools.count()
        queue: list[tuple[float, int, Assignment]] = []
        known = (self._keyed, self._unpacked, self._declared, self._described)
        for cost, guesses in itertools.chain.from_iterable(some(required, batch) for some in known):
            heapq.heappush(queue, (cost, next(order), guesses))
        for failed in furthest(self._drafts):
            for cost, guesses in self._mended(failed, required, batch):
                heapq.heappush(queue, (cost, next(order), guesses))
        rest = enumerate(first)
        seen: set[str] = set()
        solved, furthest_yet = False, 0
        while len(seen) < _ATTEMPTS and not self.over:
            index, following = next(rest, (0, None))
            if following is not None:
                heapq.heappush(queue, (_NEXT * index, next(order), following))
            if not queue:
                return None
            cost, _, guesses = heapq.heappop(queue)
            if _elements(guesses) > _LARGEST_INPUT:
                guesses = {n: _fewer(g, batch) for n, g in guesses.items()}
            key = repr(sorted(guesses.items()))
            if key in seen or _elements(guesses) > _LARGEST_INPUT:
                continue
            seen.add(key)
            self._first = self._first or guesses
            found = self._try(arguments, guesses)
            if isinstance(found, Found):
                return self._scaled(arguments, *self._enlarged(arguments, guesses, found))
            if len(seen) == 1 and (told := self.told(calls, batch)) is not None:
                return told
            self._origin = "inferred"
            if not solved and flattened(found, self.model):
                solved = True  # once: the answer does not depend on where the bisection starts
                fitting = self._converged(arguments, found)
                if fitting is not None:
                    return self._scaled(arguments, *fitting)
            reached = len(found.graph.nodes)
            if 0 < furthest_yet < reached:  # what got further than all before was likely mended rightly
                cost -= _PROGRESS
            furthest_yet = max(furthest_yet, reached)
            for more, fix in self._mended(found, [], batch):
                heapq.heappush(queue, (cost + more, next(order), fix))
        return None

    def _keyed(self, required: list[Argument], batch: int) -> Iterator[tuple[float, Assignment]]:
        """Dictionaries with all the entries that the forward reads, each for the layer that reads it."""
        entries = {name: keys for name, keys in keyed(self.model).items() if name in {a.name for a in required}}
        if not entries:
            return
        guesses, read = self._firsts(required, batch)
        for name, keys in entries.items():
            inner = [Argument(key, True, "") for key in keys]
            known = {key: read[f"{name}[{key}]"] for key in keys if f"{name}[{key}]" in read}
            found = _options(self.model, inner, batch, known)
            guesses |= {name: Guess("dict", ()), **{f"{name}[{key}]": found[key][0] for key in keys}}
        yield -1.0, _of_whole(guesses)

    def _unpacked(self, required: list[Argument], batch: int) -> Iterator[tuple[float, Assignment]]:
        """Several tensors in one argument, each for the layer that reads it, before one tensor that falls apart."""
        counts = {name: count for name, count in unpacked(self.model).items() if count <= LARGEST_TUPLE}
        if not counts.keys() & {argument.name for argument in required}:
            return
        guesses, read = self._firsts(required, batch)
        for name, count in counts.items():
            whole = guesses.pop(name, None)
            if whole is not None:
                guesses |= listed(name, [(read.get(f"{name}[{index}]") or [whole])[0] for index in range(count)])
        yield -1.0, guesses

    def _firsts(self, required: list[Argument], batch: int) -> tuple[Assignment, Mapping[str, list[Guess]]]:
        """The first candidate of each argument, and what the layers that read arguments and their items take."""
        options = self._options(required, batch)
        read = self._leads[1] if self._leads is not None else {}
        return {argument.name: options[argument.name][0] for argument in required}, read

    def _declared(self, required: list[Argument], batch: int) -> Iterator[tuple[float, Assignment]]:
        """Images of the size that the model was made for: after the first candidate, which is smaller and faster."""
        declared, only = declared_images(self.model, batch)
        for guess in declared if len(required) == 1 else ():
            stated = self._stated.get(required[0].name)
            guess = (stated.fitted(guess) if stated else None) or guess
            yield -1.0 if only else _NEXT / 2, {required[0].name: guess}

    def _described(self, required: list[Argument], batch: int) -> Iterator[tuple[float, Assignment]]:
        """What the docstring says: arguments that it does not call optional, in the shapes that it gives."""
        names = expected(self._docs, required)
        said = described_guesses(self.model, self._docs, names, batch)
        if not said:
            return
        known = {a.name: a for a in all_arguments(self.model, (), self._docs)}
        options = self._options([known[n] for n in names], batch)
        usual = {n: self._usual(n, batch) for n in names}
        fitting = {n: [g for g in usual[n] if n not in said or agrees(self._docs[n], g)] for n in names}
        first = {n: (fitting[n] or [said[n][0] if n in said else options[n][0]])[0] for n in names}
        surely = all(fitting[n] or (n in said and said[n][1]) for n in names)
        yield (_NEXT / 2 if surely else 1.5 * _NEXT), first
        for name in names:
            for other in [*fitting[name], *options[name][:1]]:
                if other != first[name]:
                    yield 2.0 * _NEXT, {**first, name: other}

    def _usual(self, name: str, batch: int) -> list[Guess]:
        """What a library puts under a name."""
        made = library_values(self.model, name, batch, self.seed)
        return [noted_tensor(name, value, self._given) for value in made]

    def _mended(self, failed: Failed, required: list[Argument], batch: int) -> Iterator[tuple[float, Assignment]]:
        """What to try after a failed attempt, with the cost of each: what it lacks first, then other sizes."""
        lacking = [a for a in required if a.name not in failed.guesses]
        known = [Argument(name, True, "") for name in failed.guesses]
        if further := lacking or demanded(self.model, failed.error, known):
            more = {name: guesses[0] for name, guesses in self._options(further, batch).items()}
            yield 0.0, {**failed.guesses, **more}
        if not lacking:
            fixes = _asked(failed, batch) if failed.missing else repairs(failed, self.model, batch)
            for index, fix in enumerate(itertools.islice(fixes, _FIXES)):
                yield 1.0 + _RANK * index, fix

    def _assignments(self, arguments: list[Argument], batch: int) -> Iterator[Assignment]:
        """First candidates of all arguments, then each argument's others in turn."""
        options = self._options(arguments, batch)
        first = _of_whole({a.name: options[a.name][0] for a in arguments})
        yield first
        longest = max(len(o) for o in options.values())
        for index in range(1, longest):
            for argument in arguments:
                if index < len(options[argument.name]):
                    yield _of_whole({**first, argument.name: options[argument.name][index]})
            if len(arguments) > 1:  # a pair, of which both are something else
                yield _of_whole({a.name: options[a.name][min(index, len(options[a.name]) - 1)] for a in arguments})

    def _options(self, arguments: list[Argument], batch: int) -> dict[str, list[Guess]]:
        """Candidates for arguments: of those that models of a library have by convention, what it puts there."""
        if self._leads is None or self._leads[0] != batch:
            self._leads = batch, _symbolic_leads(self.model, batch)
        found = _options(self.model, arguments, batch, self._leads[1])
        said = described_guesses(self.model, self._docs, [a.name for a in arguments], batch)
        for argument in arguments:
            guesses = self._usual(argument.name, batch)
            others = found[argument.name]
            if argument.name in said and others[0].kind != "scalar":
                guess, surely = said[argument.name]
                known = placed(argument.name, guess)
                if known is not None:
                    self._given[argument.name, guess] = known
                others = [guess, *others] if surely else [*others[:1], guess, *others[1:]]
            found[argument.name] = self._asserted(argument.name, list(dict.fromkeys([*guesses, *others])), batch)
        return found

    def _asserted(self, name: str, guesses: list[Guess], batch: int) -> list[Guess]:
        """Guesses in the shape that the forward asserts of an argument first: with any other it fails."""
        stated = self._stated.get(name)
        if stated is None:
            return guesses
        fitted = [fit for guess in guesses if (fit := stated.fitted(guess)) is not None]
        if not fitted and (alone := stated.alone(batch)) is not None:
            fitted = [alone]
        return list(dict.fromkeys([*fitted, *guesses]))

    def _try(self, arguments: list[Argument], guesses: Assignment) -> Found | Failed:
        given = [a for a in arguments if a.name in guesses or a.variadic]
        args, kwargs = values(given, guesses, self.model, self.seed, self._given)
        return self.attempt(args, kwargs, guesses)

    def _scaled(self, arguments: list[Argument], guesses: Assignment, found: Found) -> Found:
        """Inputs in the unit that the model expects, where it divides them itself."""
        factors = divisors(found.recording.graph) if found.recording is not None else {}
        changed = {
            n: replace(g, fill=f"times {factors[n]:g}")
            for n, g in guesses.items()
            if n in factors and g.dtype.is_floating_point
        }
        if not changed:
            return found
        attempt = self._try(arguments, {**guesses, **changed})
        return attempt if isinstance(attempt, Found) else found

    def _converged(self, arguments: list[Argument], failed: Failed) -> tuple[Assignment, Found] | None:
        """The sizes of maps that a flattening layer wants."""
        passed: list[tuple[Assignment, Found]] = []

        def attempt(guesses: Assignment) -> Failed | None:
            if _elements(guesses) > _LARGEST_INPUT or self.over:
                return failed
            found = self._try(arguments, guesses)
            if isinstance(found, Failed):
                return found
            passed.append((guesses, found))
            return None

        converge(failed, self.model, attempt)
        return passed[0] if passed else None

    def _enlarged(self, arguments: list[Argument], guesses: Assignment, found: Found) -> tuple[Assignment, Found]:
        """Larger images where the maps inside shrink to almost nothing: borders would dominate there."""
        images = [n for n, g in guesses.items() if g.kind == "image"]
        if not images or found.recording is None:
            return guesses, found
        smallest = _smallest_map(found.recording)
        factor = 1
        while smallest * factor < _SMALLEST_MAP:
            factor *= 2
        while factor > 1 and not self.over:
            larger = {n: _magnified(g, factor) if n in images else g for n, g in guesses.items()}
            if max(larger[n].shape[-1] for n in images) <= _LARGEST_IMAGE:
                attempt = self._try(arguments, larger)
                if isinstance(attempt, Found):
                    return larger, attempt
            factor //= 2
        return guesses, found

    def attempt(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], guesses: Assignment) -> Found | Failed:
        """Run the forward once, recorded."""
        batch = batch_of(list(tensors_in((args, kwargs))))
        meta = any(p.is_meta for p in self.model.parameters())
        given = to_device((args, dict(kwargs)), "meta" if meta else None)
        recorder = Recorder(self.model, batch=batch, measure=not meta, answers=meta)
        names = argument_names(self.model, *given)
        with preserved(self.model), seeded(self.seed), exporting(meta), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about arguments that we made up
            set_mode(self.model, self.training, self.estimating)
            try:
                recorder.run(given[0], given[1], names)
            except (Exception, SystemExit) as error:
                recorder.close()
                reason = symbolic.reason_of(error)
                self.reason = self.reason or reason
                if isinstance(error, ProbeError):
                    self.lacking[reason] = error
                self._demands += self.training and _refuses(recorder) and _IN_TRAINING in str(error).lower()
                self._remember(Found(args, dict(kwargs), self._origin, notes=(reason,)), recorder)
                return Failed(guesses, error, recorder.failure, recorder.graph, missing_key(error))
        return Found(args, dict(kwargs), self._origin, recorder, self.training, estimating=self.estimating)

    def _remember(self, found: Found, recorder: Recorder) -> None:
        nodes = recorder.graph.nodes
        reached = sum(n.op in ("call_module", "get_attr") for n in nodes), len(nodes)
        if reached[0] and reached > self._reached:
            self._reached, self.best = reached, found


def _refuses(recorder: Recorder) -> bool:
    """Whether the attempt was ended by the model's own check, and not by an op that does not fit."""
    return recorder.failure is None or recorder.failure.target is torch._assert


def _of_whole(guesses: Assignment) -> Assignment:
    """Sizes that belong together: the lengths of sequences that the call names, ``wav_lens`` beside ``wav``, are of all
    of each; beside the edges of a graph there is one entry for each node, and for each edge where a name says so."""
    found = dict(guesses)
    for name, guess in guesses.items():
        owner = guesses.get(re.sub(LENGTHS, "", name.lower()).strip("_")) if guess.kind == "lengths" else None
        if owner is not None and spatial(owner):
            found[name] = replace(guess, high=owner.shape[spatial(owner)[0]] + 1)
    edges = next((guess for guess in guesses.values() if guess.kind == "edges"), None)
    if edges is None or edges.high is None:
        return found
    for name, guess in guesses.items():
        if guess.kind in ("features", "tokens", "ids"):
            count = edges.shape[1] if _OF_EDGES.search(name.lower()) else edges.high
            rest = guess.shape[1:] if guess.kind == "features" else guess.shape[2:]
            found[name] = guess.resized((count, *rest))
    return found


def _elements(guesses: Assignment) -> int:
    return sum(math.prod(g.shape) for g in guesses.values())


def _fewer(guess: Guess, batch: int) -> Guess:
    """The same with two samples, for inputs that are large."""
    return guess.resized((2, *guess.shape[1:])) if batch > 2 and guess.shape[:1] == (batch,) else guess


def _smallest_map(recorder: Recorder) -> int:
    """Smallest side of the inputs of convolutions with a kernel larger than one."""
    sides = [1 << 16]
    for node in recorder.graph.nodes:
        if node.op != "call_module" or not node.all_input_nodes:
            continue
        module = submodule(recorder.root, str(node.target))
        shape = meta_of(node.all_input_nodes[0]).shape
        if isinstance(module, nn.Conv2d) and shape is not None and max(module.kernel_size) > 1 and len(shape) == 4:
            sides.append(min(shape[2:]))
    return min(sides)


def _magnified(guess: Guess, factor: int) -> Guess:
    axes = spatial(guess)
    return guess.resized(tuple(n * factor if i in axes else n for i, n in enumerate(guess.shape)))


def _asked(failed: Failed, batch: int) -> Iterable[Assignment]:
    """A composite argument was asked for a key: give it one."""
    owners = [n for n, g in failed.guesses.items() if g.kind in ("dict", "object")]
    found: list[Assignment] = []
    for owner in owners:
        features = Guess("features", (batch, tokens(batch)))
        found.append({**failed.guesses, f"{owner}[{failed.missing}]": by_name(failed.missing, batch, 10) or features})
    return found


def values(
    arguments: list[Argument], guesses: Assignment, model: nn.Module, seed: int, given: Given
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Tensors for an assignment, as a call."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    with seeded(seed):
        for argument in arguments:
            value = _value(argument.name, guesses, model, given)
            if argument.keyword:
                kwargs[argument.name] = value
            else:
                args.append(value)
    return tuple(args), kwargs


def _value(name: str, guesses: Assignment, model: nn.Module, given: Given) -> Any:
    guess = guesses[name]
    if (name, guess) in given:
        return given[name, guess]
    if guess.kind in ("dict", "object"):
        parts = {n[len(name) + 1 : -1]: _value(n, guesses, model, given) for n in guesses if n.startswith(f"{name}[")}
        return parts if guess.kind == "dict" else SimpleNamespace(**parts)
    if guess.kind == "list":
        return tuple(_value(n, guesses, model, given) for n in guesses if n.startswith(f"{name}["))
    if guess.kind == "scalar" and guess.fill == "device":
        return torch.device("meta" if any(p.is_meta for p in model.parameters()) else "cpu")
    if guess.kind == "scalar":
        return {"1": 1, "1.0": 1.0, "False": False, "True": True, "": "", "dtype": torch.float32}.get(guess.fill)
    return build(guess.spec(), model)


def _is_large(model: nn.Module) -> bool:
    return sum(p.numel() for p in model.parameters() if not torch.nn.parameter.is_lazy(p)) >= _LARGE_MODEL


def _simplest(model: nn.Module, argument: Argument, batch: int) -> Assignment | None:
    """What the first weighted layer accepts, where that is a table of tokens or takes images.

    Images are four times the usual size: large networks halve them five times, and ``_enlarged`` would run them again.
    """
    layers = first_layers(model, batch)
    guess = layers[0][0] if layers else None
    if guess is None or guess.kind not in ("ids", "image") or (guess.kind == "image" and not _is_large(model)):
        return None
    return {argument.name: _magnified(guess, 4) if guess.kind == "image" else guess}


def _options(
    model: nn.Module, arguments: list[Argument], batch: int, found: Mapping[str, list[Guess]]
) -> dict[str, list[Guess]]:
    layers = first_layers(model, batch)
    high = smallest_table(model)
    options: dict[str, list[Guess]] = {}
    known = settings(model, arguments)
    for index, argument in enumerate(arguments):
        if argument.name in known:
            options[argument.name] = [setting(known[argument.name])]
            continue
        scalar = _SCALARS.get(argument.annotation)
        if scalar is not None:
            options[argument.name] = [Guess("scalar", (), fill=scalar)]
            continue
        guesses = list(found.get(argument.name, ()))
        named = by_name(argument.name, batch, high)
        if named is not None:
            # The structure comes first; a name decides the rank of indices, and is the second choice otherwise.
            alike = not guesses or guesses[0].kind == named.kind
            alike = alike or (named.kind == "mask" and guesses[0].kind == "ids")  # ``x[mask]`` reads as a lookup
            if alike and guesses and named.kind != "mask":
                named = replace(named, high=guesses[0].high)
            if guesses or index > 0 or argument.keyword or named.kind in ("ids", "wave"):
                guesses.insert(0 if alike else 1, named)
        guesses = list(dict.fromkeys(guesses))
        others = [g for layer in layers for g in layer]
        for guess in others:
            if guess not in guesses:
                guesses.append(guess)
        guesses.extend(v for g in guesses[:2] for v in variants(g) if v not in guesses)
        named = named_setting(argument.name)
        if named is not None:  # unless it is an index into a table: of a category of that name
            guesses.insert(1 if found.get(argument.name) and guesses[0].kind == "ids" else 0, named)
        options[argument.name] = guesses or [Guess("features", (batch, 16)), Guess("image", (batch, 3, 32, 32))]
    return options


_SCALARS = {"int": "1", "float": "1.0", "bool": "False", "str": ""}


def _symbolic_leads(model: nn.Module, batch: int) -> dict[str, list[Guess]]:
    with preserved(model):
        try:
            return leads(symbolic.trace_whole(model).graph, model, batch)
        except ProbeError:
            return {}
