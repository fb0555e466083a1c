"""Correct models of the common kinds: nothing above a note, whatever the draw (DESIGN, section 4)."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import healthy_models  # noqa: E402  (benchmarks/, put on the path by the conftest beside this file)

import initlint  # noqa: E402
from initlint.findings import Severity  # noqa: E402

#: Three draws; the second and third cost minutes and are marked so.
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", healthy_models.HEALTHY)
def test_healthy_model_is_silent(name: str, seed: int) -> None:
    case = healthy_models.HEALTHY[name]
    torch.manual_seed(seed)
    run = initlint.check(case.build, inputs=case.inputs(), seed=seed, name=name)
    assert run.models, run.not_analysed
    loud = [(f.code, f.message, f.parameters[:3], f.effect) for f in run.findings if f.severity >= Severity.WARNING]
    assert not loud


@pytest.mark.parametrize("name", healthy_models.HEALTHY)
def test_every_layer_is_traced(name: str) -> None:
    """Silence must not come from blindness: the graph has a weighted node for nearly every matrix."""
    case = healthy_models.HEALTHY[name]
    torch.manual_seed(0)
    run = initlint.check(case.build, inputs=case.inputs(), seed=0, name=name)
    facts = run.models[0].facts
    paired = {name for layer in facts.layers if layer.nodes for name in (layer.weight, *layer.parameters)}
    # what a parametrisation computes stands for the parameters that it is computed from
    paired |= {source for p in facts.parameters if p.generated and p.name in paired for source in p.sources}
    matrices = [p for p in facts.parameters if p.kind == "parameter" and len(p.shape) > 1 and not p.generated]
    missed = [p.name for p in matrices if not paired.intersection((p.name, *p.aliases))]
    assert len(missed) <= 0.2 * len(matrices), missed
