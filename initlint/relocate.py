"""Name the files of a model as people do: relative to the working directory, in POSIX style.

The probe notes places by the absolute file names that Python gives to code. Everything after it (findings,
fingerprints, suppressions, the cache, which may be moved to another machine) wants names that do not depend
on where the project lies.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from initlint.facts import ModelFacts, Site


def relocate(facts: ModelFacts, directory: str) -> ModelFacts:
    """The same facts with the files of all places relative to ``directory``; installed packages keep their paths.

    The sites are changed in place: the caller has just decoded the facts and nobody else has seen them. Copying
    the 10,000 nodes of a large model to change a string in each would take longer than decoding them.
    """
    names: dict[str, str] = {}
    for site in _sites(facts):
        name = names.get(site.file)
        if name is None:
            name = names[site.file] = shown(site.file, directory)
        if name is not site.file:
            object.__setattr__(site, "file", name)
    return facts


def shown(file: str, directory: str) -> str:
    """A file's name relative to ``directory``; unchanged where it belongs to an installed package or is no path."""
    if not os.path.isabs(file) or "site-packages" in file or "dist-packages" in file:
        return file
    try:
        return os.path.relpath(file, directory).replace(os.sep, "/")
    except ValueError:  # another drive
        return file.replace(os.sep, "/")


def _sites(facts: ModelFacts) -> Iterator[Site]:
    for parameter in facts.parameters:
        yield from _present(parameter.created)
        if parameter.computed is not None:
            yield from _present(parameter.computed.formula)
            yield from _present(parameter.computed.count)
        for write in parameter.writes:
            yield from _present(write.site)
            yield from write.stack
    for module in facts.modules:
        yield from _present(module.created)
        yield from _present(module.repeated)
    for node in facts.nodes:
        yield from _present(node.site)
    for layer in facts.layers:
        yield from _present(layer.site)
    for statement in facts.statements:
        yield statement.site
        for place in (
            statement.selector,
            statement.value_site,
            statement.caller,
            statement.named,
            statement.missed_at,
        ):
            yield from _present(place)
    for misread in facts.misread:
        yield misread.site
        yield from (due.site for due in misread.due)
    for tag in facts.tags:
        yield tag.site
        yield tag.reader
    for held in facts.unregistered:
        yield from _present(held.site)
    for reseed in facts.reseeds:
        yield from _present(reseed.site)
    for loss in facts.focal:
        yield loss.site


def _present(site: Site | None) -> tuple[Site, ...]:
    return () if site is None else (site,)
