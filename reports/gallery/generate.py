"""Write the reports of the examples into this folder: ``python reports/gallery/generate.py``.

Times, versions and the command are replaced by fixed ones, so that a report changes only when what it says changes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
#: One report for each: a fault that stops training, a transformer with a tied table, a healthy model.
EXAMPLES = ("vanishing_classifier", "tiny_gpt", "healthy_resnet")
FORMATS = {"html": "html", "text": "txt"}


def reports(folder: Path) -> dict[str, str]:
    """File name -> report, made by the command line in one run for each example."""
    found: dict[str, str] = {}
    for name in EXAMPLES:
        outputs = {f"{name}.{suffix}": (format, folder / f"{name}.{suffix}") for format, suffix in FORMATS.items()}
        arguments = [part for format, file in outputs.values() for part in ("--output", f"{format}={file}")]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "initlint", f"examples/{name}.py", "--no-cache", "--exit-zero", "--isolated"]
        subprocess.run([*command, *arguments], cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
        found |= {key: settled(file.read_text("utf-8"), name) for key, (_, file) in outputs.items()}
    return found


def settled(report: str, name: str) -> str:
    """The report without what differs from run to run and machine to machine."""
    report = re.sub(r"(model|part|undetermined)([,.] )\d[\d.]* (s|ms|min)\b", r"\1\g<2>1 s", report)
    report = re.sub(r"(<dt>command</dt><dd>)[^<]*", rf"\1initlint examples/{name}.py --output html=report.html", report)
    return re.sub(r"(<dt>(?:initlint|PyTorch|Python)</dt><dd>)[^<]*", r"\1-", report)


def main() -> int:
    """Write all reports; what no example makes any more is removed."""
    with tempfile.TemporaryDirectory() as folder:
        made = reports(Path(folder))
    for file in HERE.iterdir():
        if file.suffix.lstrip(".") in FORMATS.values() and file.name not in made:
            file.unlink()
    for name, text in made.items():
        (HERE / name).write_text(text, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
