"""IL303: the forget gate's bias lies on another gate, on part of the gate, or on some of the layers only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from initlint.facts import Layer, Node, ParameterFacts, Site
from initlint.findings import Severity
from initlint.records import dataclass
from initlint.rule import Context, Outcome, Rule, bad, good, site_of
from initlint.theory.record import segments
from initlint.wiring import reached

# Published forget biases start at 1 (Jozefowicz et al. 2015); half of that is reached by nothing that is left at
# PyTorch's default from a hidden size of 16 on: two draws of U(-1/4, 1/4).
_RAISED = 0.5
_GATES = {"lstm": "ifgo", "gru": "rzn"}
_CALLED = {
    "i": "input gate",
    "f": "forget gate",
    "g": "cell candidate",
    "o": "output gate",
    "r": "reset gate",
    "z": "update gate",
    "n": "candidate",
}


@dataclass(frozen=True, slots=True)
class Gates:
    """The summed biases of one cell (one layer and direction), row by row, with the rows of each gate."""

    cell: str
    biases: tuple[ParameterFacts, ...]
    rows: Mapping[str, tuple[int, int]]
    sums: tuple[float | None, ...]  # None: drawn, not set
    owner: str

    def raised(self, gate: str) -> int:
        """How many rows of a gate are set to at least the least published bias."""
        return sum(value is not None and value >= _RAISED for value in self.of(gate))

    def of(self, gate: str) -> tuple[float | None, ...]:
        """The rows of a gate."""
        start, stop = self.rows[gate]
        return self.sums[start:stop]


class ForgetBiasMisplaced(Rule):
    """A bias that was raised to keep the memory open is not, or not only, the forget gate's.

    ## What it does
    Adds up the biases of each LSTM cell, PyTorch's own and those written by hand, gate by gate. Reports a constant of
    at least 0.5 on another gate while the forget gate has none, on only part of the forget gate, on the forget
    gate and the candidate together, a negative constant on the forget gate alone, and layers or directions that were
    left out.

    ## Why is this bad?
    PyTorch orders the gates input, forget, cell, output; TensorFlow and hand-written cells have other orders. A one in
    the wrong quarter leaves the forget gate at one half, so that the cell forgets within two steps, and pushes the
    candidate towards saturation or opens a gate that nobody meant to open.

    ## Example
    ```python
    self.lstm.bias_ih_l0.data[2 * h : 3 * h] = 1.0  # the candidate
    ```

    ## Use instead
    ```python
    self.lstm.bias_ih_l0.data[h : 2 * h] = 1.0
    ```

    ## Known problems
    Cells written by hand are recognised where the gates are parts of one projection, with its bias or one added to it.

    ## References
    - Jozefowicz, Zaremba and Sutskever 2015 (forget bias of 1)
    - https://pytorch.org/docs/stable/generated/torch.nn.LSTM.html (order of the gates)
    - https://github.com/pytorch/pytorch/issues/750
    """

    code = "IL303"
    name = "forget-bias-misplaced"
    family = "architecture"
    severity = Severity.WARNING
    sources = (
        "Jozefowicz, Zaremba and Sutskever 2015, An Empirical Exploration of Recurrent Network Architectures",
        "https://github.com/pytorch/pytorch/issues/750",
    )

    def check(self, context: Context) -> Iterator[Outcome]:
        if context.facts.loaded:
            return
        cells = list(_cells(context))
        told: set[str] = set()
        lines: dict[tuple[Site | None, str], list[tuple[Gates, _Wrong]]] = {}
        for cell in cells:
            wrong = _wrong(cell)
            names = [p.name for p in cell.biases]
            if wrong and not told.intersection(names):
                told.update(names)
                first = _at(cell, wrong)[0]
                site = _write_site(first, cell.rows[wrong[0]]) or site_of(first)
                lines.setdefault((site, wrong[3]), []).append((cell, wrong))
        for (site, _), group in lines.items():
            yield self._misplaced(context, site, group)
        if not told:
            yield from self._left_out(context, cells)

    def _misplaced(self, context: Context, site: Site | None, group: list[tuple[Gates, _Wrong]]) -> Outcome:
        """One line's biases."""
        cell, wrong = group[0]
        gate, level, kept, clause, severity = wrong
        at = [p for one, its in group for p in _at(one, its)]
        keeps = "z" if cell.cell == "gru" else "f"
        start, stop = cell.rows[keeps]
        more = f" and {len(group) - 1} more" if len(group) > 1 else ""
        return self.finding(
            context,
            f"`{at[0].name}`{more}: {clause}",
            parameters=[p.name for p in at],
            severity=severity,
            site=site,
            expected={f"bias_{keeps}": 1.0, "rows": f"{start}:{stop}"},
            actual={f"bias_{keeps}": kept, f"bias_{gate}": level},
            effect="the cell keeps "
            + ("about half" if abs(kept) < _RAISED else "less than half")
            + " of its memory at each step",
            fix=f"bias[{start}:{stop}].fill_(1.0)  # of {''.join(cell.rows)} the {_CALLED[keeps]}",
            topic="convention",
        )

    def _left_out(self, context: Context, cells: Sequence[Gates]) -> Iterator[Outcome]:
        """Cells of one module of which some have the forget bias and some not."""
        owners: dict[str, list[Gates]] = {}
        for cell in cells:
            if cell.cell == "lstm":
                owners.setdefault(cell.owner, []).append(cell)
        for owner, group in owners.items():
            done = [c for c in group if c.raised("f") == len(c.of("f"))]
            missed = [c for c in group if not c.raised("f")]
            if not done or not missed:
                continue
            first = next((p for p in done[0].biases if _sets(p, done[0], "f")), done[0].biases[0])
            which = done[0].biases.index(first)  # the one of the two that the others would have got it in
            kept = [c.biases[min(which, len(c.biases) - 1)] for c in missed]
            yield self.finding(
                context,
                f"the forget gates of `{owner}` start open in {len(done)} of {len(group)} layers and directions;"
                f" `{kept[0].name}` was left out",
                parameters=[p.name for p in kept],
                site=site_of(first),
                expected={"bias_f": 1.0},
                actual={"bias_f": 0.0, "left_out": len(missed)},
                effect="the layers and directions left out keep about half of their memory at each step",
                fix="for name, bias in lstm.named_parameters(): # every bias_ih_*: bias[H:2*H].fill_(1.0)",
                topic="reach",
            )

    @bad
    def one_on_the_candidate() -> Any:
        return _tagger(2)

    @bad
    def first_layer_only() -> Any:
        return _tagger(1, layers=2)

    @bad
    def one_on_the_candidate_of_a_cell_by_hand() -> Any:
        return _by_hand(1)

    @good
    def one_on_the_forget_gate() -> Any:
        return _tagger(1)

    @good
    def one_on_the_forget_gate_of_a_cell_by_hand() -> Any:
        return _by_hand(2)


def _cells(context: Context) -> Iterator[Gates]:
    facts = context.facts
    seen: set[tuple[str, ...]] = set()
    for node in facts.nodes:
        if node.op != "recurrent" or str(node.attrs.get("cell")) not in _GATES:
            continue
        for suffix in dict.fromkeys(_suffix(role) for role in node.parameters if role.startswith("bias_")):
            names = [node.parameters.get(f"bias_{kind}{suffix}") for kind in ("ih", "hh")]
            cell = _gates(context, str(node.attrs["cell"]), [n for n in names if n], _owner(node), None)
            if cell is not None and (key := tuple(p.name for p in cell.biases)) not in seen:
                seen.add(key)
                yield cell
    by_gate: dict[int, list[Layer]] = {}
    for layer in facts.layers:
        if layer.kind != "recurrent" and "".join(b.name for b in layer.blocks) == "ifgo":
            by_gate.setdefault(layer.consumer_node or -1, []).append(layer)
    for group in by_gate.values():
        rows = {b.name: (b.start, b.stop) for b in group[0].blocks}
        found = dict.fromkeys([*(x.bias for x in group if x.bias), *(n for x in group for n in _added(context, x))])
        cell = _gates(context, "lstm", list(found), group[0].name, rows)
        if cell is not None:
            yield cell


def _added(context: Context, layer: Layer) -> Iterator[str]:
    """Biases that are no layer's: parameters that the forward adds to a projection before its gates are taken apart."""
    nodes = context.facts.nodes
    if not layer.nodes:
        return
    sums = [node for node in reached(context.facts, layer.nodes[0], lambda n: n.op == "add") if node.op == "add"]
    for other in (nodes[i] for node in sums for i in node.inputs):
        parameter = context.parameter(other.parameters.get("value", "")) if other.op == "parameter" else None
        if parameter is not None and parameter.shape == (max(block.stop for block in layer.blocks),):
            yield parameter.name


def _suffix(role: str) -> str:
    return role.removeprefix("bias_ih").removeprefix("bias_hh")


def _owner(node: Node) -> str:
    return node.module or node.label


def _gates(
    context: Context, cell: str, names: Sequence[str], owner: str, rows: Mapping[str, tuple[int, int]] | None
) -> Gates | None:
    biases = [p for name in names if (p := context.parameter(name)) is not None and len(p.shape) == 1]
    if not biases or any(p.shape != biases[0].shape for p in biases):
        return None
    gates = _GATES[cell]
    size = biases[0].shape[0] // len(gates)
    rows = rows or {gate: (i * size, (i + 1) * size) for i, gate in enumerate(gates)}
    if not size or max(stop for _, stop in rows.values()) > biases[0].shape[0]:
        return None
    values = [_rows(p, len(gates)) for p in biases]
    sums = tuple(
        None if all(v[i] is None for v in values) else sum(v[i] or 0.0 for v in values)
        for i in range(biases[0].shape[0])
    )
    return Gates(cell, tuple(biases), rows, sums, owner)


def _rows(parameter: ParameterFacts, gates: int) -> list[float | None]:
    """What each row of a bias was set to, by the record or where a gate's values are equal; None for what was drawn."""
    size = parameter.shape[0]
    found: list[float | None] = [None] * size
    for segment in segments(parameter):
        if segment.asked is not None and segment.asked.std == 0 and not segment.mixed:
            found[segment.start : segment.stop] = [segment.asked.mean] * (segment.stop - segment.start)
    chunks = parameter.stats.chunks.get(str(gates), ()) if parameter.stats else ()
    part = size // gates
    for i, chunk in enumerate(chunks):
        # where the record does not tell: a gate that holds one value, or draws that are all well above zero (chrono)
        told = chunk.minimum == chunk.maximum or chunk.minimum >= _RAISED
        if told or (chunk.mean >= _RAISED and not any(found[i * part : (i + 1) * part])):
            found[i * part : (i + 1) * part] = [chunk.mean] * part
    return found


#: Gate with the bias, its value, the forget gate's, what is wrong, severity.
_Wrong = tuple[str, float, float, str, Severity]


def _at(cell: Gates, wrong: _Wrong) -> list[ParameterFacts]:
    """Which of the two biases carry the constant."""
    return [p for p in cell.biases if _sets(p, cell, wrong[0])] or list(cell.biases)


def _wrong(cell: Gates) -> _Wrong | None:
    """What is wrong with a cell's biases."""
    if cell.cell == "gru":
        return _against_memory(cell, "z", Severity.NOTE)
    forget = cell.of("f")
    open_rows = cell.raised("f")
    kept = next((v for v in forget if v is not None and v < _RAISED), 0.0)
    others = [gate for gate in "igo" if cell.raised(gate)]
    if 0 < open_rows < len(forget) and all(v is not None for v in forget):
        level = max(v for v in forget if v is not None)
        clause = f"{level:g} reaches only {open_rows} of the {len(forget)} rows of the forget gate"
        return "f", level, kept, clause, Severity.WARNING
    if open_rows == 0 and len(others) == 1 and not any(v is None for v in forget):
        gate = others[0]
        level = max(v for v in cell.of(gate) if v is not None)
        part = "" if cell.raised(gate) == len(cell.of(gate)) else " (part of)"
        clause = f"{level:g} lies on{part} the {_CALLED[gate]}; the forget gate is at {kept:g}"
        return gate, level, kept, clause, Severity.WARNING
    if open_rows == len(forget) and others == ["g"]:
        level = max(v for v in cell.of("g") if v is not None)
        clause = f"{level:g} lies on the forget gate and on the {_CALLED['g']}, which no one opens"
        return "g", level, level, clause, Severity.WARNING
    return _against_memory(cell, "f", Severity.WARNING)


def _against_memory(cell: Gates, gate: str, severity: Severity) -> _Wrong | None:
    """A negative constant on the gate that keeps, and on no other."""
    values = cell.of(gate)
    if any(v is None or v > -_RAISED for v in values):
        return None
    if any(v is not None and abs(v) >= _RAISED for g in cell.rows if g != gate for v in cell.of(g)):
        return None
    level = float(values[0] or 0.0)
    clause = f"the {_CALLED[gate]}, which keeps the memory when it is open, starts with {level:g}"
    return gate, level, level, clause, severity


def _sets(parameter: ParameterFacts, cell: Gates, gate: str) -> bool:
    """Whether this one of the two biases carries (half of) the constant."""
    start, stop = cell.rows[gate]
    return any(abs(v or 0.0) >= _RAISED / 2 for v in _rows(parameter, len(_GATES[cell.cell]))[start:stop])


def _write_site(parameter: ParameterFacts, rows: tuple[int, int]) -> Site | None:
    """The last write that touched some of these rows alone."""
    for write in reversed(parameter.writes):
        if write.start is not None and write.stop is not None and write.start < rows[1] and write.stop > rows[0]:
            return write.site
    return None


def _tagger(gate: int, layers: int = 1) -> Any:
    import torch
    from torch import nn

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(16, 32, num_layers=layers, batch_first=True)
            self.head = nn.Linear(32, 4)
            for name, parameter in self.lstm.named_parameters():
                if name.startswith("bias"):
                    nn.init.zeros_(parameter)
            bias = self.lstm.get_parameter("bias_ih_l0")
            bias.data[gate * 32 : (gate + 1) * 32] = 1.0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.lstm(x)[0][:, -1])

    return Tagger()


def _by_hand(gate: int) -> Any:
    import torch
    from torch import nn

    class Cell(nn.Module):
        """Input, candidate, forget and output gate, with one bias beside the two projections."""

        def __init__(self) -> None:
            super().__init__()
            self.x, self.h = nn.Linear(8, 128, bias=False), nn.Linear(32, 128, bias=False)
            self.bias = nn.Parameter(torch.zeros(128))
            self.bias.data[gate * 32 : (gate + 1) * 32] = 1.0
            self.head = nn.Linear(32, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = c = x.new_zeros(len(x), 32)
            for step in range(x.shape[1]):
                i, j, f, o = (self.x(x[:, step]) + self.h(h) + self.bias).chunk(4, -1)
                c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(j)
                h = torch.sigmoid(o) * torch.tanh(c)
            return self.head(h)

    return Cell(), (torch.randn(4, 6, 8),)
