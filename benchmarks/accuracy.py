"""Predicted against measured log10 standard deviations, from what ``zoo.py`` kept.

PYTHONPATH=. python benchmarks/zoo.py --zoo shared --out /tmp/shared.jsonl
python benchmarks/accuracy.py /tmp/*.jsonl [--svg accuracy.svg] [--worst 20]
"""

from __future__ import annotations

import argparse
import math
import statistics
from pathlib import Path
from typing import Any

from zoo import load

#: Scales that float32 cannot tell from zero are left out on both sides.
TINY = 1e-30


def pairs(models: list[dict[str, Any]], key: str) -> list[tuple[float, float, str, str]]:
    """(predicted, measured, model, layer) as log10 for every layer that has both."""
    found = []
    for model in models:
        for row in model["rows"]:
            predicted, measured = row[key], row[f"measured_{key}"]
            if predicted and measured and predicted > TINY and measured > TINY:
                found.append((math.log10(predicted), math.log10(measured), model["name"], row["layer"]))
    return found


def table(models: list[dict[str, Any]]) -> None:
    for key, median_goal, tail_goal in (("forward", 0.03, 0.15), ("gradient", 0.06, 0.30)):
        found = pairs(models, key)
        measured = [row for m in models for row in m["rows"] if row[f"measured_{key}"]]
        if not found:
            print(f"{key}: nothing measured")
            continue
        errors = sorted(abs(p - m) for p, m, _, _ in found)
        tail = errors[min(len(errors) - 1, int(0.95 * len(errors)))]
        print(
            f"{key:9s} layers {len(found)} of {len(measured)} measured ({len(found) / max(1, len(measured)):.1%}); "
            f"median {statistics.median(errors):.4f} (goal {median_goal}), 95th percentile {tail:.3f} (goal {tail_goal})"
        )


def worst(models: list[dict[str, Any]], count: int) -> None:
    """Models by their median forward error."""
    rows = []
    for model in models:
        for key in ("forward", "gradient"):
            found = pairs([model], key)
            if found:
                errors = [abs(p - m) for p, m, _, _ in found]
                first = next((layer for p, m, _, layer in found if abs(p - m) > 0.15), "")
                rows.append((statistics.median(errors), max(errors), key, model["name"], first, model.get("ops")))
    for median, largest, key, name, layer, ops in sorted(rows, reverse=True)[:count]:
        print(f"{name:45s} {key:9s} median {median:.3f} largest {largest:.3f} first off at {layer} {ops or ''}")


def svg(models: list[dict[str, Any]], path: Path) -> None:
    """A scatter of predicted over measured, forward and gradient."""
    size, low, high = 360, -6.0, 4.0
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * size + 90} {size + 60}" font-family="sans-serif" font-size="11">'
    ]
    for panel, (key, colour) in enumerate((("forward", "#2563eb"), ("gradient", "#c2410c"))):
        left = 45 + panel * (size + 30)
        scale = size / (high - low)
        parts.append(f'<rect x="{left}" y="20" width="{size}" height="{size}" fill="none" stroke="#999"/>')
        parts.append(f'<line x1="{left}" y1="{20 + size}" x2="{left + size}" y2="20" stroke="#bbb"/>')
        parts.append(f'<text x="{left}" y="14">{key}: log10 std, predicted over measured</text>')
        for value in range(int(low), int(high) + 1, 2):
            offset = (value - low) * scale
            parts.append(f'<text x="{left + offset - 6}" y="{size + 34}">{value}</text>')
            parts.append(f'<text x="{left - 18}" y="{20 + size - offset + 4}">{value}</text>')
        for predicted, measured, _, _ in pairs(models, key):
            x, y = left + (measured - low) * scale, 20 + size - (predicted - low) * scale
            if left <= x <= left + size and 20 <= y <= 20 + size:
                parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="1.4" fill="{colour}" fill-opacity=".25"/>')
    path.write_text("\n".join([*parts, "</svg>"]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--worst", type=int, default=15)
    arguments = parser.parse_args()
    models = load(arguments.files)
    print(f"{len(models)} models, {sum(bool(m['rows']) for m in models)} with layers")
    table(models)
    worst(models, arguments.worst)
    if arguments.svg:
        svg(models, arguments.svg)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
