"""AnyInit (PyPI) and initlint on the same models: predicted against measured scales, and the time both take.

    pip install --no-deps anyinit
    PYTHONPATH=. python benchmarks/compare_anyinit.py ../shared [--zoo torchvision] [--limit 10]

AnyInit initialises a model and reports, for each layer, the second moment it predicts after the layer's activation
and the one it measures there. initlint then predicts the same model, as AnyInit left it, and is compared with a real
forward at the outputs of the same layers. Errors are |log10 of std, predicted over measured|.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from initlint.options import ProbeOptions
from initlint.probe import pipeline
from initlint.signal import propagate

Build = Callable[[], torch.nn.Module]


@dataclass(frozen=True, slots=True)
class Row:
    """Errors in decades of standard deviation by layer, and seconds."""

    errors: list[float]
    seconds: float
    problem: str = ""


def models(shared: Path, zoo: str, limit: int) -> Iterator[tuple[str, Build, Any]]:
    """The classics, then models of a zoo: name, what builds it, inputs."""
    for file in sorted((shared / "classics").glob("m*.py")):
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        # AnyInit measures on thousands of samples: a batch of eight would charge its chance to the prediction
        inputs = (
            torch.randn(512, *x.shape[1:]) if x.dim() == 2 and x.is_floating_point() else x
            for x in module.example_inputs()
        )
        yield file.stem, module.Model, tuple(inputs)
    if zoo:
        sys.path.insert(0, str(shared / "zoo"))
        import zoo_shim  # noqa: F401
        from torchvision import models as vision

        names = "resnet18 vgg11 alexnet densenet121 mobilenet_v2 squeezenet1_1 shufflenet_v2_x0_5 mnasnet0_5 vit_b_32"
        names += " convnext_tiny efficientnet_b0 googlenet"
        for name in names.split()[:limit]:
            size = 224 if "vit" in name else 96
            yield name, (lambda name=name: vision.get_model(name, weights=None)), (torch.randn(8, 3, size, size),)


def anyinit_row(model: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> Row:
    """What AnyInit predicts of the model that it has just initialised, against what it measures itself."""
    import anyinit

    start = time.perf_counter()
    try:
        report = anyinit.initialize(model, "analytic", inputs[0] if inputs[0].is_floating_point() else None, seed=0)
    except Exception as error:
        return Row([], time.perf_counter() - start, f"{type(error).__name__}: {str(error)[:60]}")
    rows = [r for r in report.layers if _positive(r.predicted) and _positive(r.measured)]
    return Row(
        [_off(r.predicted, r.measured) for r in rows], time.perf_counter() - start, report.validation_error or ""
    )


def own_row(model: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> Row:
    """The same for initlint at the outputs of all layers; the time is that of tracing, measuring and predicting."""
    start = time.perf_counter()
    facts = pipeline.analyse_live(model, inputs, ProbeOptions(seed=0))
    signal = propagate(facts)
    seconds = time.perf_counter() - start
    errors = []
    for node in {index for layer in facts.layers for index in layer.nodes}:
        measured, found = facts.nodes[node].measured, signal.built[node]
        known = measured is not None and _positive(measured.second) and _positive(found.q)
        if measured is not None and known and not found.undetermined:
            errors.append(_off(found.q, measured.second))
    return Row(errors, seconds)


def _positive(value: float | None) -> bool:
    return value is not None and 0.0 < value < math.inf


def _off(predicted: float, measured: float) -> float:
    return abs(0.5 * math.log10(predicted / measured))


def _text(row: Row) -> str:
    if not row.errors:
        return f"nothing ({row.problem or 'no layer with both numbers'})"
    tail = sorted(row.errors)[int(0.95 * len(row.errors))] if len(row.errors) > 1 else row.errors[0]
    return f"{len(row.errors):4d} layers, median {statistics.median(row.errors):.4f}, 95 % {tail:.3f}, {row.seconds:5.2f} s"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--zoo", default="", choices=("", "torchvision"))
    parser.add_argument("--limit", type=int, default=12)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    theirs, ours = [], []
    for name, build, inputs in models(arguments.shared, arguments.zoo, arguments.limit):
        torch.manual_seed(0)
        model = build()
        first = anyinit_row(model, inputs)
        second = own_row(model, inputs)
        theirs.append(first)
        ours.append(second)
        print(f"{name:26s} AnyInit {_text(first)}\n{'':26s} initlint {_text(second)}", flush=True)
    for label, rows in (("AnyInit", theirs), ("initlint", ours)):
        errors = [e for row in rows for e in row.errors]
        whole = Row(errors, sum(row.seconds for row in rows))
        print(f"{label}: {sum(bool(row.errors) for row in rows)} of {len(rows)} models, {_text(whole)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
