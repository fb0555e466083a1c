"""Depth verdicts on the models of the zoos, and their predicted trunk against ``theory/HEALTHY.md``'s measured quantiles.

    PYTHONPATH=. python benchmarks/trunk.py --keep DIR --shared ../shared --zoo timm [--limit 40] [--every 5]
    PYTHONPATH=. python benchmarks/trunk.py --judge DIR [--match timm.]
    PYTHONPATH=. python benchmarks/trunk.py --said FILE.jsonl ...

The first builds and traces models (in the environment that ``shared/ZOO.md`` describes) and keeps their facts, one JSON file
each; the second propagates and judges what was kept, without torch; the third counts what ``benchmarks/zoo.py`` wrote down,
of the models that ran.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal as alarms
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def trunk(facts: Any) -> dict[str, Any]:
    """Spans of the trunk, and the predicted values of what ``theory/HEALTHY.md`` measured on public models (log10)."""
    from initlint.signal import confirmed, propagate
    from initlint.signal.profile import per_sample
    from initlint.signal.trunk import WEIGHTED, returned

    signal = propagate(facts, confirmed(facts))
    if signal.scene is None or signal.sweeps is None or not signal.trunk:
        return {}
    scene, (built, opened) = signal.scene, signal.sweeps

    def share(index: int) -> float | None:
        x = built.states[index]
        return math.log10(x.d / x.q) if x.q > 0 and x.d > 0 and not x.undetermined else None

    end = max(returned(scene, facts.outputs))
    logits = per_sample(scene, end)
    layers = [n.index for n in scene.nodes if n.op in WEIGHTED]
    stem = next((i for i in signal.trunk if scene.nodes[i].op in WEIGHTED), signal.trunk[0])

    def energy(index: int) -> float | None:
        p = opened.grads[index].p * per_sample(scene, index) / logits
        return math.log10(p) if p > 0 else None

    shares = [value for i in layers if (value := share(i)) is not None]
    return {
        "forward": signal.forward_span,
        "dependent": signal.dependent_span,
        "gradient": signal.gradient_span,
        "energy_first": energy(stem),
        "energy_input": energy(signal.trunk[0]),
        "share_output": share(end),
        "share_worst": min(shares, default=None),
        "length": len(signal.trunk),
    }


def from_facts(folder: Path, match: str = "") -> Iterator[dict[str, Any]]:
    """Verdicts on models whose facts were kept as JSON (``initlint.codec``): nothing is built."""
    from initlint import engine, packs
    from initlint.codec import from_plain
    from initlint.config import Config
    from initlint.facts import ModelFacts

    rules = packs.load()
    for file in sorted(folder.glob("*.json")):
        if match not in file.name:
            continue
        facts = from_plain(ModelFacts, json.loads(file.read_text()))
        run = engine.run([engine.Analysis(facts.target, (facts,))], Config(), rules, known=rules)
        findings = [
            {"code": f.code, "severity": f.severity.label, "message": f.message, "effect": f.effect}
            for f in run.findings
        ]
        yield {"name": file.stem, "status": facts.status, "ran": facts.trace.ran, "coverage": facts.trace.coverage,
               "findings": findings, "trunk": trunk(facts)}  # fmt: skip


QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
#: theory/HEALTHY.md: 313 models of timm and torchvision, measured; log10 at QUANTILES.
MEASURED = {
    "energy_first": (-5.2, -2.3, -1.3, -0.6, 1.2, 2.8, 3.7, 5.2),
    "energy_input": (-4.7, -2.9, -2.0, -1.3, 0.5, 2.1, 2.9, 4.6),
    "share_output": (-3.5, -1.9, -1.4, -1.3, -0.5, -0.1, 0.0, 0.1),
    "share_worst": (-3.8, -3.4, -2.2, -1.4, -1.0, -0.4, -0.1, 0.0),
}
#: Rules whose verdict is that of the depth profile: IL101 and IL103 by distance, the others by the span itself.
DEPTH = ("IL101", "IL103", "IL201", "IL202", "IL203", "IL204", "IL205", "IL212")


def profile(models: list[dict[str, Any]]) -> None:
    """Depth verdicts, and the predicted trunk against the measured quantiles."""
    with_trunk = [m for m in models if m.get("trunk")]
    verdicts(with_trunk)
    quantiles(with_trunk)


def verdicts(with_trunk: list[dict[str, Any]]) -> None:
    """How many models have a depth verdict at each level, each named."""
    for level in ("error", "warning", "note"):
        hit = [m for m in with_trunk if any(f["code"] in DEPTH and f["severity"] == level for f in m["findings"])]
        names = ", ".join(
            f"{m['name']} ({', '.join(f['code'] for f in m['findings'] if f['code'] in DEPTH and f['severity'] == level)})"
            for m in hit
        )
        print(
            f"depth verdicts at {level}: {len(hit)} of {len(with_trunk)} ({len(hit) / max(1, len(with_trunk)):.1%}) {names}"
        )


def quantiles(with_trunk: list[dict[str, Any]]) -> None:
    """The predicted trunk, against what ``theory/HEALTHY.md`` measured."""
    print("\n| log10 | " + " | ".join(f"{q:.0%}" for q in QUANTILES) + " |\n|---|" + "---|" * len(QUANTILES))
    for key in (*MEASURED, "forward", "dependent", "gradient"):
        values = sorted(m["trunk"][key] for m in with_trunk if m["trunk"].get(key) is not None)
        if not values:
            continue
        row = [values[min(round(q * (len(values) - 1)), len(values) - 1)] for q in QUANTILES]
        print(f"| {key}, predicted ({len(values)}) | " + " | ".join(f"{v:.1f}" for v in row) + " |")
        if key in MEASURED:
            print(f"| {key}, measured | " + " | ".join(f"{v:.1f}" for v in MEASURED[key]) + " |")


def keep(arguments: argparse.Namespace) -> None:
    """Facts of the models of a zoo, each found in a forked process."""
    import torch
    import zoo

    from initlint import api
    from initlint.codec import to_plain
    from initlint.options import ProbeOptions

    torch.set_num_threads(1)
    arguments.keep.mkdir(parents=True, exist_ok=True)
    for at, (name, build, inputs) in enumerate(zoo.specs(arguments.zoo, arguments.shared, arguments.limit)):
        file = arguments.keep / f"{arguments.zoo}.{name.replace('/', '~')}.json"
        if at % arguments.every or file.exists():
            continue
        if os.fork() == 0:
            alarms.alarm(240)
            try:
                facts = api._from_module(build, inputs, ProbeOptions(seed=0), name).models[0]
                file.write_text(json.dumps(to_plain(facts, compact=True)))
            except Exception as error:
                print(f"{name}: {type(error).__name__}: {str(error)[:200]}", flush=True)
            os._exit(0)
        os.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="where to write facts")
    parser.add_argument("--judge", type=Path, help="where to read them")
    parser.add_argument("--said", type=Path, nargs="*", default=[], help="what benchmarks/zoo.py wrote")
    parser.add_argument("--match", default="", help="only files whose name contains this")
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--zoo", choices=("torchvision", "timm", "transformers", "shared"), default="timm")
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--every", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.keep:
        keep(arguments)
    if arguments.judge:
        profile(list(from_facts(arguments.judge, arguments.match)))
    if arguments.said:
        rows = [json.loads(line) for file in arguments.said for line in file.read_text().splitlines()]
        ran = {row["name"]: row for row in rows if row.get("ran")}
        verdicts(list(ran.values()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
