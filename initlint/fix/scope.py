"""What a planner gets: a finding, the facts of its model, and the source around the line to be mended."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from initlint.facts import InitStatement, Layer, ModelFacts, ParameterFacts, Site
from initlint.findings import Edit, Finding
from initlint.fix.source import Change, InitCall, Source
from initlint.runtime_scale import run_time_factor

#: Makes the edits for one finding; none when the source has not the form that it can mend.
Planner = Callable[["Scope"], tuple[Edit, ...]]

RECTIFIERS = frozenset(
    "relu relu6 prelu rrelu elu celu gelu gelu_tanh quick_gelu silu mish hardswish threshold".split()
)
SQUASHERS = frozenset("tanh sigmoid softsign hardtanh hardsigmoid erf arctan".split())


@dataclass(frozen=True, slots=True)
class Scope:
    """A finding and everything that its edit is made from."""

    finding: Finding
    facts: ModelFacts
    site: Site
    source: Source
    statement: ast.stmt

    @property
    def parameters(self) -> tuple[ParameterFacts, ...]:
        """The parameters at fault."""
        found = (self.facts.parameter(name) for name in self.finding.parameters)
        return tuple(p for p in found if p is not None)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers that these parameters are the weights of."""
        names = {name for p in self.parameters for name in (p.name, *p.aliases)}
        return tuple(layer for layer in self.facts.layers if layer.weight in names)

    def written_here(self) -> tuple[Layer, ...]:
        """The layers whose weights the line wrote last, at fault or not."""
        from initlint.rule import site_of

        at = {p.name for p in self.facts.parameters if (site := site_of(p)) and _same_line(site, self.site)}
        names = at | {alias for p in self.facts.parameters if p.name in at for alias in p.aliases}
        return tuple(layer for layer in self.facts.layers if layer.weight in names)

    def init_statement(self) -> InitStatement | None:
        """The recorded init statement at the line."""
        for statement in self.facts.statements:
            at = statement.site
            if at.file == self.site.file and at.line <= self.site.line <= (at.end_line or at.line):
                return statement
        return None

    def call(self) -> InitCall | None:
        """The one init call of the statement, the one that the record names where there are several."""
        calls = self.source.init_calls(self.statement)
        if len(calls) > 1:
            ops = {write.op for p in self.parameters for write in p.writes}
            calls = [call for call in calls if call.op in ops]
        if len(calls) != 1 or self.source.has_comment(calls[0].node):
            return None
        return calls[0]

    def factory(self, names: tuple[str, ...]) -> ast.Call | None:
        """The one call of a torch factory (``torch.ones``) in the statement."""
        found = [
            node
            for node in ast.walk(self.statement)
            if isinstance(node, ast.Call) and self.source.resolve(node.func) in {f"torch.{name}" for name in names}
        ]
        return found[0] if len(found) == 1 else None

    def scheme(self) -> tuple[str, dict[str, str]] | None:
        """The init function and arguments that suit the activation behind most of the layers at fault.

        Formulas only, no measured number: one line serves layers of many sizes.
        """
        kinds = Counter(kind for layer in self.layers if layer.kind != "embedding" and (kind := _suited(layer)))
        if not kinds or any(self._scaled(layer) for layer in self.layers):
            return None
        op, arguments = kinds.most_common(1)[0][0]
        return op, dict(arguments)

    def _scaled(self, layer: Layer) -> bool:
        """Whether the forward multiplies a weight before it is used: no scheme by name gives what it should hold."""
        parameter = self.facts.parameter(layer.weight)
        return parameter is not None and run_time_factor(self.facts, layer, parameter) != 1.0

    # -- text -----------------------------------------------------------------------------------

    def root(self, text: str) -> str:
        """The square root of an expression, as this file would write it."""
        sqrt = self.source.spell("math.sqrt") or self.source.spell("numpy.sqrt")
        return f"{sqrt}({text})" if sqrt else f"{_grouped(text)} ** 0.5"

    def rewritten(self, call: InitCall, op: str, arguments: dict[str, str]) -> Change | None:
        """Another init function in the place of a call, on the same tensor; a generator is kept."""
        function = self.source.spell(f"torch.nn.init.{op}", call)
        if not function:
            return None
        target = self.source.text(call.target)
        if op == "constant_":  # everybody writes its value without the name
            target, arguments = ", ".join([target, *arguments.values()]), {}
        kept = {k.arg: self.source.text(k.value) for k in call.node.keywords if k.arg == "generator"}
        parts = [target, *(f"{name}={text}" for name, text in {**arguments, **kept}.items())]
        return self.source.put(call.node, f"{function}({', '.join(parts)})")

    def with_argument(self, call: InitCall, name: str, text: str) -> Change:
        """The call with an argument set: in its place, or as a keyword behind the others."""
        given = call.argument(name)
        if given is not None:
            return self.source.put(given, text)
        ends = [self.source.span(node)[1] for node in call.node.args]
        ends += [self.source.span(node)[1] for node in call.node.keywords]
        if not ends:
            _, end = self.source.span(call.node)
            return Change((end[0], end[1] - 1), end, f"{name}={text})")
        return Change(max(ends), max(ends), f", {name}={text}")

    def renamed(self, call: InitCall, op: str) -> Change | None:
        """Another function with the same arguments."""
        if call.method:
            assert isinstance(call.node.func, ast.Attribute)
            return self.source.put(call.node.func, f"{self.source.text(call.node.func.value)}.{op}")
        function = self.source.spell(f"torch.nn.init.{op}", call)
        return self.source.put(call.node.func, function) if function else None


def _same_line(one: Site, other: Site) -> bool:
    return (one.file, one.line) == (other.file, other.line)


def module_of(target: str) -> str:
    """The module whose weight an expression names: ``self.embed`` for ``self.embed.weight.data``; "" for others."""
    target = target.removesuffix(".data")
    owner, dot, attribute = target.rpartition(".")
    return owner if dot and attribute == "weight" else ""


def _grouped(text: str) -> str:
    tree = ast.parse(text, mode="eval").body
    atoms = (ast.Name, ast.Attribute, ast.Constant, ast.Call, ast.Subscript)
    return text if isinstance(tree, atoms) else f"({text})"


grouped = _grouped


def _suited(layer: Layer) -> tuple[str, tuple[tuple[str, str], ...]] | None:
    activation = layer.activation
    if activation == "leaky_relu":
        slope = layer.activation_args.get("negative_slope", 0.01)
        return ("kaiming", (("a", f"{slope:g}"),)) if isinstance(slope, (int, float)) else None
    if activation == "selu":  # LeCun's variance 1 / fan_in
        return "kaiming", (("nonlinearity", '"linear"'),)
    if activation in SQUASHERS:
        return "xavier", ()
    if activation in RECTIFIERS:
        return "kaiming", (("nonlinearity", '"relu"'),)
    return None
