"""IL413: weights that a model holds and does not know of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from initlint.facts import Unregistered
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, good


class UnregisteredWeight(Rule):
    """A weight or a list of layers is a plain attribute: no init function reaches it, and no optimiser.

    ## What it does
    Finds plain tensors that want a gradient (`nn.Parameter(...).to(device)` is one) and lists, tuples and dictionaries
    of layers among the attributes of a model's own modules.

    ## Why is this bad?
    `parameters()`, `apply`, `to` and `state_dict` do not see them. They keep the values that they were made with, stay
    where they are when the model moves, train nowhere, and are missing from every checkpoint.

    ## Example
    ```python
    self.gate = nn.Parameter(torch.zeros(dim, experts)).to(device)
    self.heads = [nn.Linear(dim, n) for n in classes]
    ```

    ## Use instead
    ```python
    self.gate = nn.Parameter(torch.zeros(dim, experts, device=device))
    self.heads = nn.ModuleList(nn.Linear(dim, n) for n in classes)
    ```

    ## Known problems
    A list of one module is a known way to keep a teacher out of a model, and is not reported; nor are frozen ones.

    ## References
    - https://docs.pytorch.org/docs/stable/generated/torch.nn.ModuleList.html
    """

    code = "IL413"
    name = "unregistered-weight"
    family = "intent"
    severity = Severity.WARNING
    sources = ("https://docs.pytorch.org/docs/stable/generated/torch.nn.ModuleList.html",)

    def check(self, context: Context) -> Iterator[Outcome]:
        groups: dict[tuple[str, int, str], list[Unregistered]] = {}
        for held in context.facts.unregistered:
            key = (held.site.file, held.site.line, held.kind) if held.site is not None else (held.name, 0, held.kind)
            groups.setdefault(key, []).append(held)
        for group in groups.values():
            first = group[0]
            more = f" (and {len(group) - 1} more like it)" if len(group) > 1 else ""
            what = (
                f"is a plain tensor of {' x '.join(map(str, first.shape)) or 'one number'} that wants a gradient"
                if first.kind == "tensor"
                else f"holds {first.count} modules in a plain container"
            )
            yield self.finding(
                context,
                f"`{first.name}` {what}{more}: it is no part of the model",
                parameters=[held.name for held in group],
                site=first.site,
                expected={"registered": True},
                actual={"registered": False},
                effect="no init function, optimiser or checkpoint sees it",
                fix="nn.Parameter(tensor.to(device))  # a parameter of what was moved"
                if first.kind == "tensor"
                else "nn.ModuleList(...)  # or nn.ModuleDict",
                topic="reach",
            )

    @bad
    def layers_in_a_list() -> Any:
        return _heads(listed=True)

    @good
    def layers_in_a_module_list() -> Any:
        return _heads(listed=False)

    @bad
    def parameter_that_was_moved() -> Any:
        return _gated(moved=True)

    @good
    def parameter_of_what_was_moved() -> Any:
        return _gated(moved=False)

    @good
    def spectral_norm_by_hooks() -> Any:
        from torch import nn

        return nn.Sequential(nn.utils.spectral_norm(nn.Linear(8, 8)), nn.ReLU(), nn.Linear(8, 4))


def _heads(*, listed: bool) -> Any:
    import torch
    from torch import nn

    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(8, 16)
            heads = [nn.Linear(16, 4) for _ in range(3)]
            self.heads = heads if listed else nn.ModuleList(heads)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.body(x))
            return torch.stack([head(x) for head in self.heads])

    return Heads()


def _gated(*, moved: bool) -> Any:
    import torch
    from torch import nn

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(8, 16)
            gate = torch.zeros(16, 4, dtype=torch.float64)
            self.gate = nn.Parameter(gate).to(torch.float32) if moved else nn.Parameter(gate.to(torch.float32))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.body(x)) @ self.gate.softmax(-1)

    return Gated()
