"""IL001: a parameter that holds memory which nobody ever wrote."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from initlint.facts import ParameterFacts
from initlint.findings import Related, Severity
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good

_NUMBERS = ("float", "bfloat", "complex")


class UninitialisedMemory(Rule):
    """A parameter holds memory that no statement ever wrote.

    ## What it does
    Reports parameters (and buffers that the forward reads) whose memory came from `torch.empty`,
    `torch.FloatTensor(n)`, `to_empty` and the like and was never, or only partly, written while the
    model was built. It knows this from the record of all writes and from having torch fill new memory with
    NaN during the build; it never judges by looking at garbage.

    ## Why is this bad?
    What lies in that memory is left over from something else: often zeros or small numbers on your
    machine, 1e38 or NaN on the next one. The model trains differently from run to run, or not at all,
    and a check for NaN after construction finds it only by luck.

    ## Example
    ```python
    self.scale = nn.Parameter(torch.empty(dim))
    ```

    ## Use instead
    ```python
    self.scale = nn.Parameter(torch.ones(dim))
    ```

    ## Known problems
    Memory written by code that Python hooks do not see (NumPy views, C++ extensions) is taken as written where
    its contents changed.

    ## References
    - https://github.com/huggingface/torchMoji/issues/11
    - https://github.com/pytorch/torchtitan/pull/2450
    """

    code = "IL001"
    name = "uninitialised-memory"
    family = "values"
    severity = Severity.ERROR
    sources = ("https://github.com/huggingface/torchMoji/issues/11", "https://github.com/pytorch/torchtitan/pull/2450")

    def check(self, context: Context) -> Iterator[Outcome]:
        read = {name for node in context.facts.nodes for name in node.parameters.values()}
        suspects = [
            p
            for p in context.facts.parameters
            if p.uninitialised > 0
            and p.provenance != "loaded"
            and not p.generated
            and (p.kind == "parameter" or p.name in read or _emptied(p))
        ]
        for group in by_cause(suspects).values():
            whole = [p for p in group if p.uninitialised >= 1]
            share = max(p.uninitialised for p in group)
            what = (
                "was never initialised"
                if whole
                else f"is only partly initialised ({share:.0%} of it was never written)"
            )
            yield self.finding(
                context,
                f"{_names(group)} {what}: it holds whatever was in memory before",
                parameters=[p.name for p in group],
                site=group[0].created,
                related=_partial_writes(group),
                expected={"uninitialised": 0.0},
                actual={"uninitialised": share},
                effect="values differ from run to run and machine to machine; NaN or 1e38 are possible",
                fix=_remedy(context, group[0]),
                topic="memory",
                why="torch.empty and its kin return memory as it is; only a later write makes a value of it.",
            )

    @bad
    def never_written() -> Any:
        import torch
        from torch import nn

        class Scaled(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.fc = nn.Linear(16, 16)
                self.scale = nn.Parameter(torch.empty(16))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.fc(x) * self.scale

        return Scaled()

    @bad
    def table_lost_on_meta() -> Any:
        import torch
        from torch import nn

        class Rotary(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                with torch.device("meta"):
                    self.fc = nn.Linear(16, 16)
                    self.register_buffer("frequencies", 0.1 ** (torch.arange(8) / 8))
                self.to_empty(device="cpu")
                self.fc.reset_parameters()

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                angles = torch.arange(x.shape[1])[:, None] * self.get_buffer("frequencies")
                return self.fc(x) * torch.cat((angles.cos(), angles.sin()), -1)

        return Rotary(), (torch.randn(2, 6, 16),)

    @good
    def written_later() -> Any:
        import torch
        from torch import nn

        class Scaled(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.fc = nn.Linear(16, 16)
                self.scale = nn.Parameter(torch.empty(16))
                nn.init.ones_(self.scale)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.fc(x) * self.scale

        return Scaled()


def _emptied(parameter: ParameterFacts) -> bool:
    """Whether a buffer of numbers had a value before its memory was given anew (``to_empty`` after a build on meta).

    Constants that are computed from such a buffer alone do not name it.
    """
    ops = [write.op for write in parameter.writes]
    valued = bool(parameter.writes) and parameter.writes[0].args.get("function") not in ("empty", "empty_like", None)
    return valued and "to_empty" in ops[1:] and parameter.dtype.startswith(_NUMBERS)


def _names(group: list[ParameterFacts]) -> str:
    first = f"`{group[0].name}`"
    return first if len(group) == 1 else f"{first} and {len(group) - 1} more"


def _remedy(context: Context, parameter: ParameterFacts) -> str:
    local = parameter.local
    if any(layer.kind == "scale" for layer in context.layers_of(parameter.name)):
        return f"nn.init.ones_(self.{local})"
    if len(parameter.shape) >= 2:
        return f"nn.init.xavier_uniform_(self.{local})"
    return f"nn.init.zeros_(self.{local})  # or ones_ for a scale"


def _partial_writes(group: list[ParameterFacts]) -> list[Related]:
    places = {(w.site.file, w.site.line) for p in group for w in p.writes if w.site is not None and w.op != "create"}
    return [Related(file, line, "written here, in part") for file, line in sorted(places)]
