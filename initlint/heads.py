"""The layer that writes the logits: what its bias has to do with them, and lines that mend it by its name."""

from __future__ import annotations

from initlint.facts import ParameterFacts
from initlint.rule import Context
from initlint.theory.record import stated


def attribute(parameter: ParameterFacts) -> str:
    """A parameter as code in its model spells it: ``self.stages[1].weight``."""
    parts = (f"[{part}]" if part.isdecimal() else f".{part}" for part in parameter.name.split("."))
    return f"self{''.join(parts)}"


def drawn(parameter: ParameterFacts) -> bool:
    """Whether the values are a draw by the record, PyTorch's default among them: nobody chose one rather than another.

    Values that were assigned one by one (the logarithms of class priors) are somebody's choice.
    """
    asked = stated(parameter)
    return asked is not None and asked.std > 0.0


def of_layer(context: Context, index: int, role: str) -> ParameterFacts | None:
    """The parameter that a node reads in this role, where it is trained as it is and its values are known."""
    found = context.parameter(context.facts.nodes[index].parameters.get(role, ""))
    known = found is not None and not found.generated and found.stats is not None
    return found if known else None


def zeros(*parameters: ParameterFacts) -> str:
    """The line that sets parameters to zero."""
    return "; ".join(f"nn.init.zeros_({attribute(parameter)})" for parameter in parameters)
