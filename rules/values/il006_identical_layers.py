"""IL006: layers that start with the same random weights without being tied."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from initlint.asked import full_write
from initlint.facts import ModelFacts, ModuleFacts, ParameterFacts, Site
from initlint.findings import Related, Severity
from initlint.rule import Context, Outcome, Rule, bad, good, site_of
from initlint.signal.identity import parallel_twins, repeated_calls
from initlint.wiring import reached

#: What leaves nothing of an earlier draw.
_COMPUTED = ("zero_", "zeros_", "fill_", "constant_", "ones_", "eye_", "dirac_")
# Multiples of one float32 draw agree to a few units of 6e-8; two different draws never to this in four numbers.
_ROUNDING = 1e-4


class IdenticalLayers(Rule):
    """Two or more layers hold the same random weights, bit for bit, without sharing them.

    ## What it does
    Compares the contents of all randomly initialised weights. Equal ones that are separate tensors were copied
    (`copy.deepcopy` of an initialised layer) or drawn from the same seed again (torch, NumPy). Members that also read
    the same input are told apart from layers in series. One module several times in a list (`[layer] * n`) is
    reported too, and so are blocks of their own whose parts were all made once; equal matrices in one stacked tensor
    are IL318.

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
    A frozen copy (a target network, an EMA model) is equal on purpose: tensors without gradient are exempt, and
    so are copies that the forward does not read; copies behind layers of zeros (ControlNet) are a note. Blocks that
    share some of their matrices are a design. `nn.TransformerEncoder` clones its layer by design of PyTorch; that is a
    note.

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
        yield from self._one_module(context)
        yield from self._one_set(context)
        twins = parallel_twins(facts)
        classes = list(_equal_tensors(facts, twins))
        if not classes:
            return
        for causes in _causes(classes):
            members = [p for group in causes for p in group]
            names = [p.name for p in members]
            parallel = any(tuple(p.name for p in group[:2]) in twins for group in causes)
            cloned = all(_copied(p) for group in causes for p in group[1:])
            torch_clone = cloned and all(_by_torch(p) for group in causes for p in group[1:])
            beside = _beside_others(facts, members)
            # (ControlNet: a copy that learns to steer the original, Zhang et al. 2023, section 3.1)
            shut = cloned and all(_behind_zeros(facts, group[1:]) for group in causes)
            if parallel and shut:  # of copies that read one input the original must not be shut off as they are
                shut = not all(_behind_zeros(facts, group[:1]) for group in causes)
            mild = beside or shut or (torch_clone and not parallel)
            severity = Severity.NOTE if mild else Severity.ERROR if parallel else Severity.WARNING
            site = None if cloned else _seeded_at(facts, members)
            how = "copies of one initialised layer" if cloned else "drawn from the same seed again"
            fate = (
                "the matrices beside them differ, so the layers do"
                if beside
                else "what the copies write passes layers of zeros, which learn first"
                if shut
                else "they read the same input, so they stay equal for ever"
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
                fix=None
                if shut
                else "seed once, before the loop, or draw each copy anew after copying (call its reset_parameters())",
                topic="duplicate",
            )

    def _one_module(self, context: Context) -> Iterator[Outcome]:
        """One module several times in a container, applied to one input, or multiplied as a list."""
        calls = repeated_calls(context.facts)
        told: list[str] = []
        for module in context.facts.modules:
            folder = module.name.rpartition(".")[0]
            names = [n for n in (module.name, *module.shared_with) if n.rpartition(".")[0] == folder]
            if len(names) < 2 or any(module.name.startswith(f"{outer}.") for outer in told):
                continue
            inside = [p for p in context.facts.parameters if p.name.startswith(f"{module.name}.") and p.requires_grad]
            if not inside:
                continue
            parallel = [p for p in inside if calls.get(p.name, 0) >= len(names)]
            made, listed = module.created, module.repeated
            site = listed or made
            fresh = (
                made is not None and listed is not None and listed.line <= made.line <= (listed.end_line or listed.line)
            )
            together = len(parallel) == len(inside)
            if not together and listed is None:
                continue  # one head for all stages, on inputs of their own
            told.append(module.name)
            yield self.finding(
                context,
                f"`{names[0]}` and `{names[1]}`"
                + (f" and {len(names) - 2} more" if len(names) > 2 else "")
                + " are one and the same module",
                parameters=[p.name for p in inside],
                severity=Severity.ERROR if together else Severity.WARNING if fresh else Severity.NOTE,
                site=site,
                related=[Related(made.file, made.line, "made once here")] if made and made != site else [],
                expected={"distinct_modules": len(names)},
                actual={"distinct_modules": 1},
                effect="all read the same input and give the same output: their mixture is one module"
                if together
                else "layers in series repeat one matrix, and train as one",
                fix="make each anew: [make_layer() for _ in range(n)]",
                topic="duplicate",
            )

    def _one_set(self, context: Context) -> Iterator[Outcome]:
        """Blocks of a container that are modules of their own, and share every matrix."""
        for (container, places), parts in _parts_of_blocks(context).items():
            inside = [
                p
                for p in context.facts.parameters
                if p.requires_grad and len(p.shape) > 1 and any(p.name.startswith(f"{part.name}.") for part in parts)
            ]
            blocks = [f"{container}.{place}." for place in places]
            own = [p for p in context.facts.parameters if len(p.shape) > 1 and p.name.startswith(tuple(blocks))]
            if not inside or {p.name for p in own} - {p.name for p in inside}:
                continue  # one part that all blocks share is a design
            yield self.finding(
                context,
                f"`{blocks[0][:-1]}` and `{blocks[1][:-1]}`"
                + (f" and {len(blocks) - 2} more" if len(blocks) > 2 else "")
                + f" are blocks of their own with one set of weights: `{parts[0].name}` is in all of them",
                parameters=[p.name for p in inside],
                severity=Severity.WARNING,
                site=parts[0].created,
                expected={"distinct_blocks": len(blocks)},
                actual={"distinct_blocks": 1},
                effect="layers in series repeat one matrix, and train as one",
                fix="make the parts of each block anew, inside of what builds a block",
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

    @bad
    def parts_made_once() -> Any:
        return _blocks(once=True)

    @good
    def parts_of_their_own() -> Any:
        return _blocks(once=False)

    @good
    def bilinear_kernels() -> Any:
        import torch
        from torch import nn

        def bilinear() -> nn.Module:
            up = nn.ConvTranspose2d(8, 8, 4, stride=2, padding=1, groups=8, bias=False)
            sides = torch.tensor([0.25, 0.75, 0.75, 0.25])
            with torch.no_grad():
                up.weight.zero_()
                for i in range(4):
                    for j in range(4):
                        up.weight[:, 0, i, j] = float(sides[i] * sides[j])
            return up

        return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), bilinear(), nn.Conv2d(8, 8, 1), bilinear())

    @good
    def computed_positions() -> Any:
        import torch
        from torch import nn

        class Half(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.positions = nn.Embedding(32, 16)
                steps = torch.arange(32)[:, None] / 10 ** torch.linspace(0, 4, 8)
                with torch.no_grad():
                    self.positions.weight.copy_(torch.cat([steps.sin(), steps.cos()], -1))
                self.out = nn.Linear(16, 16)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.out(x + self.positions.weight)

        return nn.Sequential(Half(), nn.ReLU(), Half())

    @good
    def functions_of_one_draw() -> Any:
        import torch
        from torch import nn

        class Polar(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                size, angle = torch.rand(8, 8), torch.rand(8, 8) * 6.28
                self.real, self.imaginary = nn.Parameter(size * angle.cos()), nn.Parameter(size * angle.sin())

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return torch.cat([x @ self.real, x @ self.imaginary], -1)

        return Polar()

    @good
    def target_beside_the_forward() -> Any:
        import torch
        from torch import nn

        class Agent(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.online, self.target = nn.Linear(8, 4), nn.Linear(8, 4)
                self.target.load_state_dict(self.online.state_dict())

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.online(x)

        return Agent()

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


def _parts_of_blocks(context: Context) -> dict[tuple[str, tuple[str, ...]], list[ModuleFacts]]:
    """Modules that several blocks of a container have at the same place, by the container and the blocks."""
    found: dict[tuple[str, tuple[str, ...]], list[ModuleFacts]] = {}
    for module in context.facts.modules:
        split = [_place(name) for name in (module.name, *module.shared_with)]
        containers = {container for container, _, _ in split}
        if len(split) < 2 or len(containers) != 1 or len({local for _, _, local in split}) != 1:
            continue
        places = tuple(place for _, place, _ in split)
        if all(place.isdigit() for place in places) and len(set(places)) == len(places):
            found.setdefault((containers.pop(), places), []).append(module)
    return found


def _place(name: str) -> tuple[str, str, str]:
    """The container, the place in it and the rest, of the name of a module in a block: ``encoder``, ``1``, ``proj``."""
    block, _, local = name.rpartition(".")
    container, _, place = block.rpartition(".")
    return container, place, local


def _blocks(*, once: bool) -> Any:
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, body: nn.Module) -> None:
            super().__init__()
            self.norm, self.body = nn.LayerNorm(16), body

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.body(self.norm(x))

    body = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
    parts = [body if once else nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16)) for _ in range(3)]
    return nn.Sequential(nn.Sequential(*map(Block, parts)), nn.Linear(16, 4))


def _drawn(parameter: ParameterFacts) -> bool:
    """Whether the values are of a random draw, and not a table computed since (positions, directions of offsets)."""
    for write in reversed(parameter.writes):
        if write.random:
            return True
        chain = write.args.get("chain")
        unseen = isinstance(chain, (list, tuple)) and "unseen" in chain  # made by code that the record cannot follow
        if unseen:
            break
        if write.op in (*_COMPUTED, "copy_", "create") and write.share >= 1 and not write.region:
            return False  # filled piece by piece since, perhaps: bilinear kernels of several upsamplings
    return any(write.random for write in parameter.writes)


def _equal_tensors(facts: ModelFacts, twins: frozenset[tuple[str, str]]) -> Iterator[list[ParameterFacts]]:
    """Groups of trainable, randomly filled tensors in separate memory of equal content, or equal up to a factor.

    Parameters of their own in one memory count where they do the same (``twins``); else they are tied.
    """
    streams = {(r.site.file, r.site.function) for r in facts.reseeds if r.stream and r.site is not None}
    unread = frozenset(facts.trace.not_reached)
    by_digest: dict[tuple[str, tuple[int, ...]], list[ParameterFacts]] = {}
    by_draw: dict[tuple[str, str, tuple[int, ...]], list[ParameterFacts]] = {}
    for parameter in facts.parameters:
        stats = parameter.stats
        if stats is None or not stats.digest or parameter.kind != "parameter" or not parameter.requires_grad:
            continue
        # a constant is equal by its scheme (norm gains, zero biases); one number can be equal by chance of rounding
        if stats.distinct is not None or stats.count < 2:
            continue
        if parameter.name in unread and _copied(parameter):
            continue  # a target network: it follows the other one, and is no layer of this forward
        if parameter.generated and parameter.sources:
            continue  # computed from others, which tell more: g v / |v| is v itself until it is trained
        # what NumPy drew is seen by nobody: equal tensors from a function that seeds a stream are draws
        seeded = any((at.file, at.function) in streams for w in parameter.writes for at in w.stack)
        if not seeded and not _drawn(parameter):
            continue
        by_digest.setdefault((stats.digest, parameter.shape), []).append(parameter)
        write = full_write(parameter)
        if write is not None and write.random and write.generator and len(parameter.shape) > 1:
            by_draw.setdefault((write.generator, write.op, parameter.shape), []).append(parameter)
    told: set[str] = set()
    for group in by_digest.values():
        if len({p.storage for p in group}) > 1 or tuple(p.name for p in group[:2]) in twins:
            told.update(p.name for p in group)
            yield group
    # one draw from one state of the generator with another std: equal up to a factor, which no hash of content shows
    for drawn in by_draw.values():
        for group in _proportional(drawn):
            if len({p.storage for p in group}) > 1 and not told.intersection(p.name for p in group):
                yield group


def _proportional(group: list[ParameterFacts]) -> Iterator[list[ParameterFacts]]:
    """Those of a group that are one another's multiples: what a factor leaves alone is the same for all of them.

    Different functions of one draw (its modulus times a cosine here, a sine there) are as different as they look.
    """
    alike: list[list[ParameterFacts]] = []
    for parameter in group:
        own = next((known for known in alike if _same_form(known[0], parameter)), None)
        if own is None:
            alike.append([parameter])
        else:
            own.append(parameter)
    yield from (known for known in alike if len(known) > 1)


def _same_form(one: ParameterFacts, other: ParameterFacts) -> bool:
    """Whether kurtosis, and mean and extremes in units of the spread, are equal to the rounding of float32 sums."""
    forms = []
    for stats in (one.stats, other.stats):
        if stats is None or stats.kurtosis is None or stats.var <= 0:
            return False
        ends = (stats.mean, stats.minimum, stats.maximum)
        forms.append((stats.kurtosis, *(value / math.sqrt(stats.var) for value in ends)))
    return all(math.isclose(a, b, rel_tol=_ROUNDING, abs_tol=_ROUNDING) for a, b in zip(*forms, strict=True))


def _causes(classes: list[list[ParameterFacts]]) -> list[list[list[ParameterFacts]]]:
    """Equal weights and equal biases of the same layers are one cause: group by the modules that are equal."""
    by_count: dict[tuple[str, int], list[list[ParameterFacts]]] = {}
    for group in classes:
        site = site_of(group[-1])
        by_count.setdefault((site.file if site else "", len(group)), []).append(group)
    return list(by_count.values())


def _beside_others(facts: ModelFacts, members: list[ParameterFacts]) -> bool:
    """Whether the equal tensors are biases alone, of layers whose matrices were drawn anew: these tell them apart."""
    equal, owners = {p.name for p in members}, {p.module for p in members}
    told = {p.module for p in facts.parameters if p.name not in equal and len(p.shape) > 1 and _drawn(p)}
    return all(len(p.shape) == 1 for p in members) and owners <= told


def _behind_zeros(facts: ModelFacts, copies: list[ParameterFacts]) -> bool:
    """Whether whatever is computed with these passes a layer whose weight is zero, before it reaches the output."""
    shut = {p.name for p in facts.parameters if p.stats is not None and p.stats.second == 0.0 and len(p.shape) > 1}
    names = {name for p in copies for name in (p.name, *p.aliases)}
    starts = [node.index for node in facts.nodes if names.intersection(node.parameters.values())]
    closed = {node.index for node in facts.nodes if shut.intersection(node.parameters.values())}
    ends = {n.index for start in starts for n in reached(facts, start, lambda n: n.index not in closed)}
    return bool(starts) and ends.isdisjoint(facts.outputs)


def _copied(parameter: ParameterFacts) -> bool:
    """Whether it was made equal to another on purpose: cloned with its module, or given the other's state dict."""
    return any(write.op in ("deepcopy", "load") for write in parameter.writes)


def _by_torch(parameter: ParameterFacts) -> bool:
    return any(w.op == "deepcopy" and w.origin == "torch" for w in parameter.writes)


def _seeded_at(facts: ModelFacts, members: list[ParameterFacts]) -> Site | None:
    """The line that sets the seed: a recorded reseed inside a loop, or the frame that makes the generator."""
    repeated = [r for r in facts.reseeds if r.site is not None and r.times > 1]
    if repeated:
        return repeated[0].site
    functions = {(at.file, at.function) for p in members for w in p.writes for at in w.stack}
    for reseed in facts.reseeds:
        if reseed.stream and reseed.site is not None and (reseed.site.file, reseed.site.function) in functions:
            return reseed.site
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
