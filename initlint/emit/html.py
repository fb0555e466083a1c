"""The HTML report: one file that needs no network and no script, from the templates in ``reports/``."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from initlint import resources
from initlint.emit import svg
from initlint.emit.common import Options
from initlint.emit.html_view import page
from initlint.findings import Run


def render(run: Run, options: Options) -> str:
    """The page. Everything that models control is escaped by the templates; charts come escaped from ``svg``."""
    assets = resources.assets_dir()
    script = _asset(assets / "report.js")
    environment = Environment(
        loader=FileSystemLoader(resources.templates_dir()),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["drawing"] = Markup  # marks a chart as markup; nothing else in the templates may
    environment.filters["spans"] = _spans
    return environment.get_template("report.html.j2").render(
        page=page(run, options),
        scale=svg.SCALE,
        style=Markup(_asset(assets / "report.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _spans(text: str) -> Markup:
    """Escaped text with what stands between backticks as code."""
    parts = re.split(r"`([^`]+)`", text)
    return Markup("").join(Markup("<code>{}</code>").format(part) if i % 2 else part for i, part in enumerate(parts))


def _asset(path: Path) -> str:
    return path.read_text(encoding="utf-8")
