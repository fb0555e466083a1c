"""Where the shipped rules and report templates lie: inside the installed package, or beside it in a checkout."""

from __future__ import annotations

from pathlib import Path

from initlint.errors import InitlintError

_PACKAGE = Path(__file__).resolve().parent


def rules_dir() -> Path:
    """The folder of the shipped rule pack, known by its ``pack.toml``.

    Raises:
        InitlintError: the installation is incomplete.
    """
    return _find("rules", "pack.toml")


def templates_dir() -> Path:
    """The folder of the report templates. Raises ``InitlintError`` when the installation is incomplete."""
    return _find("reports/templates")


def assets_dir() -> Path:
    """The folder of the report's style sheet and script. Raises ``InitlintError`` when it is missing."""
    return _find("reports/assets")


def _find(name: str, marker: str = "") -> Path:
    # A wheel holds the folders inside the package (pyproject.toml, force-include); an editable install and a
    # checkout have them beside it. The wheel comes first: a folder called "rules" beside site-packages' initlint
    # could be anybody's.
    for base in (_PACKAGE, _PACKAGE.parent):
        folder = base / name
        if (folder / marker).exists() if marker else folder.is_dir():
            return folder
    raise InitlintError(
        f"initlint's own folder `{name}` was not found beside or inside {_PACKAGE}",
        "The installation is incomplete: install initlint again.",
    )
