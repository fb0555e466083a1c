"""IL006: layers that start with the same random weights without being tied."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from initlint.diagnosis import full_write
from initlint.facts import ModelFacts, ParameterFacts, Site
from initlint.findings import Related, Severity
from initlint.rule import Context, Outcome, Rule, bad, good, site_of
from initlint.signal.identity import parallel_twins


class IdenticalLayers(Rule):
    """Two or more layers hold the same random weights, bit for bit, without sharing them.

    ## What it does
    Compares the contents of all randomly initialised weights. Equal ones that are separate tensors were copied
    (`copy.deepcopy` of an initialised layer) or drawn from the same seed again. Members that also read the same input
    are told apart from layers in series.

    ## Why is this bad?
    Parallel members (an ensemble, experts, heads) with the same weights and the same input receive the same gradient
    and stay equal: the ensemble is one model. Layers in series with equal weights correlate: the same
    matrix applied again and again amplifies some directions far more than independent draws would.

    ## Example
    ```python
    for _ in range(n_members):
        torch.manual_seed(seed)
        members.append(make_member())
    ```

    ## Use instead
    ```python
    torch.manual_seed(seed)
    members = [make_member() for _ in range(n_members)]
    ```

    ## Known problems
    A frozen copy (a target network, an EMA model) is equal on purpose: tensors without gradient are exempt.
    `nn.TransformerEncoder` clones its layer by design of PyTorch; that is a note.

    ## References
    - https://github.com/neural-structured-additive-learning/deepregression/pull/15
    - https://github.com/netket/netket/issues/241
    - https://github.com/pytorch/pytorch/issues/86274
    """

    code = "IL006"
    name = "identical-layers"
    family = "values"
    severity = Severity.ERROR
    sources = (
        "https://github.com/neural-structured-additive-learning/deepregression/pull/15",
        "https://github.com/netket/netket/issues/241",
        "https://github.com/pytorch/pytorch/issues/86274",
    )

    def check(self, context: Context) -> Iterator[Outcome]:
        facts = context.facts
        classes = list(_equal_tensors(facts.parameters))
        if not classes:
            return
        twins = parallel_twins(facts)
        for causes in _causes(classes):
            members = [p for group in causes for p in group]
            names = [p.name for p in members]
            parallel = any(tuple(p.name for p in group[:2]) in twins for group in causes)
            cloned = all(any(w.op == "deepcopy" for w in p.writes) for group in causes for p in group[1:])
            torch_clone = cloned and all(_by_torch(p) for group in causes for p in group[1:])
            severity = Severity.ERROR if parallel else Severity.NOTE if torch_clone else Severity.WARNING
            site = None if cloned else _seeded_at(facts, members)
            how = "copies of one initialised layer" if cloned else "drawn from the same seed again"
            fate = (
                "they read the same input, so they stay equal for ever"
                if parallel
                else "layers in series repeat one matrix"
            )
            yield self.finding(
                context,
                f"`{causes[0][0].name}` and `{causes[0][1].name}`"
                + (f" and {len(names) - 2} more tensors" if len(names) > 2 else "")
                + f" start with the same random values ({how})",
                parameters=names,
                severity=severity,
                site=site or site_of(members[-1]),
                related=[Related(s.file, s.line, "initialised here") for s in _sites(members) if s != site][:4],
                expected={"distinct_tensors": len(names)},
                actual={"distinct_tensors": len(causes)},
                effect=fate,
                fix="seed once, before the loop, or draw each copy anew after copying (call its reset_parameters())",
                topic="duplicate",
            )

    @bad
    def members_from_one_seed() -> Any:
        import torch
        from torch import nn

        class Ensemble(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                members = []
                for _ in range(3):
                    torch.manual_seed(7)
                    members.append(nn.Linear(8, 8))
                self.members = nn.ModuleList(members)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return torch.stack([member(x) for member in self.members]).mean(0)

        return Ensemble()

    @bad
    def same_draw_with_another_std() -> Any:
        import torch
        from torch import nn

        layers: list[nn.Module] = []
        for depth in (1, 2, 3):
            linear = nn.Linear(16, 16)
            torch.manual_seed(7)
            nn.init.normal_(linear.weight, std=0.3 / depth**0.5)
            layers += [linear, nn.ReLU()]
        return nn.Sequential(*layers)

    @good
    def frozen_target() -> Any:
        import copy

        import torch
        from torch import nn

        class Agent(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.online = nn.Linear(8, 4)
                self.target = copy.deepcopy(self.online).requires_grad_(False)

            def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                return self.online(x), self.target(x)

        return Agent()


def _equal_tensors(parameters: Iterable[ParameterFacts]) -> Iterator[list[ParameterFacts]]:
    """Groups of trainable, randomly filled tensors in separate memory of equal content, or equal up to a factor."""
    by_digest: dict[tuple[str, tuple[int, ...]], list[ParameterFacts]] = {}
    by_draw: dict[tuple[str, str, tuple[int, ...]], list[ParameterFacts]] = {}
    for parameter in parameters:
        stats = parameter.stats
        if stats is None or not stats.digest or parameter.kind != "parameter" or not parameter.requires_grad:
            continue
        # a constant is equal by its scheme (norm gains, zero biases); one number can be equal by chance of rounding
        if stats.distinct is not None or stats.count < 2 or not any(w.random for w in parameter.writes):
            continue
        by_digest.setdefault((stats.digest, parameter.shape), []).append(parameter)
        write = full_write(parameter)
        if write is not None and write.random and write.generator and len(parameter.shape) > 1:
            by_draw.setdefault((write.generator, write.op, parameter.shape), []).append(parameter)
    told: set[str] = set()
    for group in by_digest.values():
        if len({p.storage for p in group}) > 1:
            told.update(p.name for p in group)
            yield group
    # one draw from one state of the generator with another std: equal up to a factor, which no hash of content shows
    for group in by_draw.values():
        if len({p.storage for p in group}) > 1 and not told.intersection(p.name for p in group):
            yield group


def _causes(classes: list[list[ParameterFacts]]) -> list[list[list[ParameterFacts]]]:
    """Equal weights and equal biases of the same layers are one cause: group by the modules that are equal."""
    by_count: dict[tuple[str, int], list[list[ParameterFacts]]] = {}
    for group in classes:
        site = site_of(group[-1])
        by_count.setdefault((site.file if site else "", len(group)), []).append(group)
    return list(by_count.values())


def _by_torch(parameter: ParameterFacts) -> bool:
    return any(w.op == "deepcopy" and w.origin == "torch" for w in parameter.writes)


def _seeded_at(facts: ModelFacts, members: list[ParameterFacts]) -> Site | None:
    """The line that sets the seed: a recorded reseed inside a loop, or the frame that makes the generator."""
    repeated = [r for r in facts.reseeds if r.site is not None and r.times > 1]
    if repeated:
        return repeated[0].site
    for parameter in members:
        for write in parameter.writes:
            for frame in write.stack if write.random else ():
                if "manual_seed" in frame.text or "Generator(" in frame.text:  # torch's own API names
                    return frame
    return None


def _sites(members: list[ParameterFacts]) -> list[Site]:
    found: list[Site] = []
    for parameter in members:
        site = site_of(parameter)
        if site is not None and all((site.file, site.line) != (other.file, other.line) for other in found):
            found.append(site)
    return found
