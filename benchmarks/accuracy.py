"""Predicted against measured log10 standard deviations at every parameterised layer, from models that ``zoo.py`` kept.

    PYTHONPATH=. python benchmarks/zoo.py --shared ../shared --zoo shared --facts /tmp/facts
    PYTHONPATH=. python benchmarks/zoo.py --shared ../shared --zoo torchvision --every 5 --facts /tmp/facts
    PYTHONPATH=. python benchmarks/zoo.py --shared ../shared --zoo timm --per-file --facts /tmp/facts
    PYTHONPATH=. python benchmarks/zoo.py --shared ../shared --zoo transformers --widths own --every 8 --facts /tmp/facts
    PYTHONPATH=. python benchmarks/zoo.py --shared ../shared --zoo torchvision --every 5 --from 2 --facts /tmp/facts
    PYTHONPATH=. python benchmarks/zoo.py --shared ../shared --zoo timm --sample 60 --seed 7 --facts /tmp/facts
    PYTHONPATH=. python benchmarks/zoo.py --shared ../shared --zoo transformers --widths own --every 8 --from 4 --facts /tmp/facts
    PYTHONPATH=. python benchmarks/accuracy.py /tmp/facts [--out docs/accuracy.md --svg docs/accuracy.svg]

Both twins of the shared bugs and the classics, two fifths of torchvision, one variant of each of timm's model files and sixty of all
variants, a quarter of the architectures of transformers: those that build and run at such sizes.

A layer is compared at its output: the standard deviation of the signal, and that of the gradient where the model's outputs
get independent gradients of unit variance. What rests on a measurement of the op itself, because no rule describes it, is
counted and left out of the errors.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from initlint.codec import from_plain
from initlint.facts import ModelFacts
from initlint.signal import propagate

#: Second moments that float32 cannot tell from zero are compared on neither side.
TINY = 1e-60
#: Goals: median and 95th percentile of |log10 predicted - log10 measured|, and the share of layers predicted.
GOALS = {"forward": (0.03, 0.15), "gradient": (0.06, 0.30)}
COVERED = 0.97
ZOOS = ("shared", "torchvision", "timm", "transformers")
#: Why the worst are off, by model: found by following the error to the op where it arises.
REASONS = Path(__file__).with_name("accuracy_reasons.json")


@dataclass(frozen=True, slots=True)
class Layer:
    """log10 standard deviations of one layer, predicted and measured; None where there is no such number."""

    name: str
    forward: tuple[float, float] | None
    gradient: tuple[float, float] | None
    why: str = ""  # not predicted by rules, and why


@dataclass(frozen=True, slots=True)
class Model:
    zoo: str
    name: str
    layers: tuple[Layer, ...]
    nodes: int
    seconds: float

    def errors(self, key: str) -> list[float]:
        """|predicted - measured| of the layers that rules predict."""
        found = [getattr(layer, key) for layer in self.layers if not layer.why]
        return [abs(pair[0] - pair[1]) for pair in found if pair is not None]


def load(folder: Path) -> Iterator[Model]:
    """Predict every model kept in a folder."""
    for file in sorted(folder.glob("*/*.json")):
        facts = from_plain(ModelFacts, json.loads(file.read_text()))
        started = time.perf_counter()
        signal = propagate(facts)
        seconds = time.perf_counter() - started
        layers = []
        for layer in facts.layers:
            for index in dict.fromkeys(layer.nodes):
                got, found = facts.nodes[index].measured, signal.built[index]
                if got is None or not got.finite or got.second <= TINY:
                    continue
                why = found.undetermined or ("rests on a measured op" if found.numeric else "")
                why = why or ("" if found.q > TINY else "predicted to be zero")
                layers.append(
                    Layer(layer.name, _pair(found.q, got.second), _pair(found.p, got.gradient_second or 0.0), why)
                )
        if layers:
            yield Model(file.parent.name, file.stem.replace("~", "/"), tuple(layers), len(facts.nodes), seconds)


def _pair(predicted: float, measured: float) -> tuple[float, float] | None:
    if predicted <= TINY or measured <= TINY:
        return None
    return 0.5 * math.log10(predicted), 0.5 * math.log10(measured)


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else math.nan


def table(models: Sequence[Model]) -> list[str]:
    """One row for each zoo and one for all."""
    lines = [
        "| models | count | layers | predicted | forward median | 95 % | gradient median | 95 % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in (*ZOOS, "all"):
        chosen = [m for m in models if name in (m.zoo, "all")]
        layers = [layer for m in chosen for layer in m.layers]
        if not layers:
            continue
        cells = [name, str(len(chosen)), str(len(layers)), f"{sum(not x.why for x in layers) / len(layers):.1%}"]
        for key in GOALS:
            errors = [e for m in chosen for e in m.errors(key)]
            cells += [f"{quantile(errors, 0.5):.4f}", f"{quantile(errors, 0.95):.3f}"]
        lines.append(f"| {' | '.join(cells)} |")
    goals = " | ".join(f"{value}" for pair in GOALS.values() for value in pair)
    lines.append(f"| *goal* | | | {COVERED:.0%} | {goals} |")
    return lines


def worst(models: Sequence[Model], count: int) -> list[str]:
    """The models whose layers are furthest off, and why."""
    reasons: dict[str, str] = json.loads(REASONS.read_text()) if REASONS.exists() else {}
    rows = []
    for model in models:
        for key, (_, far) in GOALS.items():
            errors = model.errors(key)
            beyond = sum(error > far for error in errors)
            if beyond:
                rows.append((beyond, key, model, quantile(errors, 0.5), max(errors), len(errors)))
    rows.sort(key=lambda row: -row[0])
    lines = ["| model | what | layers beyond the goal | median | largest | reason |", "|---|---|---|---|---|---|"]
    for beyond, key, model, middle, largest, total in rows[:count]:
        why = reasons.get(model.name, "")
        lines.append(f"| {model.name} | {key} | {beyond} of {total} | {middle:.3f} | {largest:.2f} | {why} |")
    return lines


def missing(models: Sequence[Model]) -> list[str]:
    """Layers that no rule predicts, by model and reason."""
    found: dict[tuple[str, str], int] = {}
    for model in models:
        for layer in model.layers:
            if layer.why:
                found[model.name, layer.why] = found.get((model.name, layer.why), 0) + 1
    rows = sorted(found.items(), key=lambda row: -row[1])
    return ["| model | layers | why |", "|---|---|---|", *(f"| {m} | {n} | {why} |" for (m, why), n in rows[:15])]


def svg(models: Sequence[Model]) -> str:
    """Predicted over measured, forward and gradient; one mark for all layers that fall on the same spot."""
    size, low, high = 340, -8.0, 6.0
    scale = size / (high - low)
    head = f'viewBox="0 0 {2 * size + 90} {size + 60}" font-family="sans-serif" font-size="11"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {head}>']
    for panel, (key, colour) in enumerate((("forward", "#2563eb"), ("gradient", "#c2410c"))):
        left = 45 + panel * (size + 30)
        parts.append(f'<rect x="{left}" y="20" width="{size}" height="{size}" fill="none" stroke="#999"/>')
        parts.append(f'<path d="M{left} {20 + size}L{left + size} 20" stroke="#bbb"/>')
        parts.append(f'<text x="{left}" y="14">{key}: log10 std, predicted over measured</text>')
        for value in range(int(low), int(high) + 1, 2):
            offset = (value - low) * scale
            parts.append(f'<text x="{left + offset - 6:.0f}" y="{size + 34}">{value}</text>')
            parts.append(f'<text x="{left - 18}" y="{24 + size - offset:.0f}">{value}</text>')
        spots = set()
        for model in models:
            for layer in model.layers:
                pair = getattr(layer, key)
                if pair is not None and not layer.why:
                    x, y = left + (pair[1] - low) * scale, 20 + size - (pair[0] - low) * scale
                    if left <= x <= left + size and 20 <= y <= 20 + size:
                        spots.add((round(x / 2) * 2, round(y / 2) * 2))
        marks = "".join(f"M{x} {y}h0" for x, y in sorted(spots))
        parts.append(f'<path d="{marks}" stroke="{colour}" stroke-width="2.6" stroke-linecap="round"/>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def page(models: Sequence[Model], count: int, beside: str, made: str = "") -> str:
    """The whole page; ``made``: which code traced and measured, and which predicted."""
    nodes, seconds = sum(m.nodes for m in models), sum(m.seconds for m in models)
    return "\n".join(
        [
            "# How accurate the predictions are",
            "",
            "Written by `benchmarks/accuracy.py`, which says how to repeat it. |log10 predicted - log10 measured| standard",
            "deviation at the output of every parameterised layer, in train mode at initialisation: of the signal, and of",
            "the gradient where the outputs get independent gradients of unit variance. The weights, what is computed from them",
            "alone, the moments of the input and masks are known; nothing measured of a signal enters a prediction that is",
            "counted here. The measurement is one forward and backward on one batch of four (sixteen images where a batch norm",
            "would see fewer than sixteen values), with its own chance.",
            "",
            *table(models),
            "",
            f"{len(models)} models, {nodes} nodes predicted in {seconds:.0f} s on one busy core.",
            *([made] if made else []),
            "",
            "![Predicted over measured](accuracy.svg)",
            "",
            "## The worst, and why",
            "",
            *worst(models, count),
            "",
            "## Layers that no rule predicts",
            "",
            "They rest on what was measured at an op without a rule, or one whose rule its own measurement contradicts; such",
            "numbers are marked in every report.",
            "",
            *missing(models),
            "",
            beside,
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, help="the page to write")
    parser.add_argument("--svg", type=Path, help="the plot to write")
    parser.add_argument("--beside", type=Path, help="Markdown to append: AnyInit on the same models")
    parser.add_argument("--worst", type=int, default=20)
    parser.add_argument("--made", default="", help="a sentence on which code made the facts, and which the predictions")
    arguments = parser.parse_args()
    models = list(load(arguments.folder))
    print("\n".join([*table(models), "", *worst(models, arguments.worst), "", *missing(models)]))
    if arguments.out:
        beside = arguments.beside.read_text() if arguments.beside else ""
        arguments.out.write_text(page(models, arguments.worst, beside, arguments.made).rstrip() + "\n")
    if arguments.svg:
        arguments.svg.write_text(svg(models))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
