"""IL401: an init function of the model that the constructor never calls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from initlint.facts import InitStatement, Layer, ParameterFacts
from initlint.findings import Related, Severity
from initlint.intent_rule import judged, owners
from initlint.odds import PRIOR
from initlint.rule import Context, Outcome, Rule, bad, good


class InitNeverRan(Rule):
    """The file defines an initialisation that nothing calls while the model is built.

    ## What it does
    Compares the init statements in the source with the record of what ran. Reports a function with init statements
    for parameters of this model of which none ran, where these parameters are still at PyTorch's default. Methods of
    one name in unrelated classes are told apart: that the attention calls its own does not run the feed-forward's.

    ## Why is this bad?
    Somebody wrote the initialisation the model needs, and it does not happen: a renamed hook, a framework that
    stopped calling it, a missing `self.apply`. Nothing fails; the model starts from the default.

    ## Example
    ```python
    def init_weights(self):  # nobody calls it
        nn.init.constant_(self.cls.bias, -math.log(99))
    ```

    ## Use instead
    ```python
    def __init__(self):
        ...
        self.init_weights()
    ```

    ## Known problems
    A function that a training framework calls after construction looks the same; ignore the rule on its line.

    ## References
    - https://github.com/open-edge-platform/geti/pull/1554
    - Lin et al. 2017 (focal loss), section 4.1
    """

    code = "IL401"
    name = "init-never-ran"
    family = "intent"
    severity = Severity.ERROR
    sources = ("https://github.com/open-edge-platform/geti/pull/1554", "Lin et al. 2017, section 4.1, arXiv:1708.02002")

    def check(self, context: Context) -> Iterator[Outcome]:
        if context.facts.loaded:
            return
        functions: dict[tuple[str, str], list[InitStatement]] = {}
        for statement in context.facts.statements:
            functions.setdefault((statement.site.file, statement.site.function), []).append(statement)
        for (_, function), statements in functions.items():
            if any(s.reached or s.runs for s in statements):
                continue
            missed = [s for s in statements if self._left_alone(context, s)]
            if missed:
                missed += [s for s in statements if s not in missed and self._as_made(context, s)]
                yield self._report(context, function, missed)

    def _left_alone(self, context: Context, statement: InitStatement) -> bool:
        """Whether what the statement would initialise exists and was initialised by nobody else."""
        found = [p for name in statement.affected if (p := context.parameter(name)) is not None]
        return bool(found) and any(p.last is None or p.last.origin == "torch" for p in found)

    def _as_made(self, context: Context, statement: InitStatement) -> bool:
        """Whether what the statement would initialise holds what its constructor made it from: a placeholder."""
        found = [p for name in statement.affected if (p := context.parameter(name)) is not None]
        return bool(found) and all(_untouched(p) for p in found)

    def _report(self, context: Context, function: str, missed: list[InitStatement]) -> Outcome:
        prior = next((s for s in missed if self._prior(context, s)), None)
        # the statement for single parameters tells more than the loop over all modules
        chosen = prior or min(missed, key=lambda s: len(s.affected))
        names = [n for s in sorted(missed, key=lambda s: len(s.affected)) for n in s.affected]
        untouched = [n for n in dict.fromkeys(names) if (p := context.parameter(n)) and _untouched(p)]
        first = context.parameter(next((n for n in chosen.affected if n in untouched), untouched[0]))
        verdict = judged(context, owners(missed, untouched), choice=False)
        named = next((s.named for s in missed if s.named is not None), None)
        effect = verdict.effect
        if prior is not None:
            effect = (
                f"the prior {prior.args.get('val')} is missing from the output's bias: with it classes start near their"
                " base rate, without it at one half"
            )
        return self.finding(
            context,
            f"`{function}` initialises `{chosen.target}`, but "
            + ("it is named without being called" if named else "nothing calls it while the model is built"),
            parameters=untouched,
            severity=Severity.ERROR if prior is not None else verdict.severity,
            site=named or (first.created if first else None) or chosen.site,
            related=[Related(s.site.file, s.site.line, "never runs") for s in missed],
            expected={"calls": 1},
            actual={"calls": 0},
            effect=effect,
            fix=f"call {function.rpartition('.')[2]}()" + ("" if named else " at the end of __init__"),
            topic="reach",
        )

    def _prior(self, context: Context, statement: InitStatement) -> bool:
        value = statement.args.get("val")
        heads = {layer.bias for layer in context.facts.layers if _output(layer) and layer.bias}
        return isinstance(value, (int, float)) and abs(value) > PRIOR and any(n in heads for n in statement.affected)

    @bad
    def prior_never_applied() -> Any:
        import torch
        from torch import nn

        class Head(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.body = nn.Sequential(nn.Linear(16, 16), nn.ReLU())
                self.cls = nn.Linear(16, 5)

            def init_weights(self) -> None:
                nn.init.constant_(self.cls.bias, -4.6)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.cls(self.body(x))

        return Head()

    @good
    def prior_applied() -> Any:
        import torch
        from torch import nn

        class Head(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.body = nn.Sequential(nn.Linear(16, 16), nn.ReLU())
                self.cls = nn.Linear(16, 5)
                self.init_weights()

            def init_weights(self) -> None:
                nn.init.constant_(self.cls.bias, -4.6)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.cls(self.body(x))

        return Head()


def _untouched(parameter: ParameterFacts) -> bool:
    """Whether nobody initialised a parameter: it holds PyTorch's default, or what it was made from."""
    last = parameter.last
    return last is None or last.origin == "torch" or (last.op == "create" and len(parameter.writes) == 1)


def _output(layer: Layer) -> bool:
    return layer.head or layer.consumer in ("output", "loss")
