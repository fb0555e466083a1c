"""Files are named relative to the working directory."""

from __future__ import annotations

import os

from initlint.facts import (
    Computed,
    Due,
    InitStatement,
    Layer,
    Misread,
    ModelFacts,
    ModuleFacts,
    Node,
    ParameterFacts,
    Reseed,
    Site,
    Tag,
    Write,
)
from initlint.relocate import relocate, shown


def test_names() -> None:
    here = os.path.join(os.sep, "home", "me", "project")
    assert shown(os.path.join(here, "pkg", "m.py"), here) == "pkg/m.py"
    assert shown(os.path.join(os.sep, "home", "me", "other.py"), here) == "../other.py"
    assert shown("m.py", here) == "m.py"
    library = os.path.join(os.sep, "usr", "lib", "site-packages", "timm", "vit.py")
    assert shown(library, here) == library
    assert shown("<stdin>", here) == "<stdin>"


def test_every_place_of_a_model_is_renamed() -> None:
    def site() -> Site:
        return Site("/p/m.py", 1)

    facts = ModelFacts(
        "A",
        "m.py::A",
        "m.py",
        parameters=(
            ParameterFacts(
                "w",
                "parameter",
                (1,),
                "float32",
                "",
                "w",
                created=site(),
                writes=(Write("x", 0, site=site(), stack=(site(),)),),
                computed=Computed(site(), site()),
            ),
        ),
        modules=(ModuleFacts("", "A", created=site()), ModuleFacts("b", "B")),
        nodes=(Node(0, "relu", site=site()), Node(1, "relu")),
        layers=(Layer("a", "linear", (0,), "w", site=site()),),
        statements=(InitStatement(site(), "x", "y", 0, False, selector=site(), value_site=site(), caller=site()),),
        misread=(Misread(site(), "a", "b", 1, 2, True, due=(Due(site(), ("w",)),)),),
        tags=(Tag(site(), "std", 0.1, "a", ("w",), site()),),
        reseeds=(Reseed(site(), 0), Reseed(None, 0)),
    )
    assert "/p/" in repr(facts)
    assert "/p/" not in repr(relocate(facts, "/p"))
