"""IL405: an init statement whose result the model never sees."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from initlint.facts import InitStatement
from initlint.findings import Related, Severity
from initlint.rule import Context, Outcome, Rule, bad, good

_WHY = {
    "generated": "the weight is recomputed from other parameters before every forward (weight_norm, parametrize)",
    "temporary": "it writes a temporary tensor that is no parameter of the model",
    "replaced": "the tensor it wrote was replaced by another one later",
}
_REMEDY = {
    "generated": "initialise before wrapping, or set the originals: weight_norm needs both weight_g and weight_v",
    "temporary": "write the parameter itself: nn.init.normal_(self.weight)",
    "replaced": "initialise after the parameter has been replaced",
}


class InitWithoutEffect(Rule):
    """An init statement runs and changes nothing that the model uses.

    ## What it does
    Finds init statements that wrote a weight which `weight_norm`, `spectral_norm` or a parametrization recomputes
    from other parameters, a temporary tensor, or a tensor that was replaced afterwards.

    ## Why is this bad?
    `weight_norm` keeps `weight_g` and `weight_v` and overwrites `.weight` before each forward. `normal_(m.weight,
    0, 0.01)` after wrapping is lost in the first forward, and the layer runs with its default.

    ## Example
    ```python
    layer = weight_norm(nn.ConvTranspose1d(64, 32, 8, 4, 2))
    layer.weight.data.normal_(0, 0.01)
    ```

    ## Use instead
    ```python
    layer = nn.ConvTranspose1d(64, 32, 8, 4, 2)
    layer.weight.data.normal_(0, 0.01)
    layer = weight_norm(layer)
    ```

    ## Known problems
    None known.

    ## References
    - https://github.com/jik876/hifi-gan/issues/145
    - https://github.com/pytorch/pytorch/issues/180968
    """

    code = "IL405"
    name = "init-without-effect"
    family = "intent"
    severity = Severity.WARNING
    sources = ("https://github.com/jik876/hifi-gan/issues/145", "https://github.com/pytorch/pytorch/issues/180968")

    def check(self, context: Context) -> Iterator[Outcome]:
        for statement in context.facts.statements:
            if statement.lost and statement.lost_reason in _WHY and statement.affected:
                yield self._report(context, statement)

    def _report(self, context: Context, statement: InitStatement) -> Outcome:
        return self.finding(
            context,
            f"{statement.op} on `{statement.target}` has no effect: {_WHY[statement.lost_reason]}",
            parameters=statement.affected,
            # a table tied to another after both were initialised is replaced on purpose
            severity=Severity.NOTE if statement.lost_reason == "replaced" else Severity.WARNING,
            # an init function is right in itself: it is called at the wrong time
            site=statement.caller or statement.site,
            related=[Related(statement.site.file, statement.site.line, "writes in vain")] if statement.caller else [],
            expected={"writes_kept": statement.lost},
            actual={"writes_kept": 0},
            effect="the parameters keep the values that they had before",
            fix=_REMEDY[statement.lost_reason],
            topic="reach",
        )

    @bad
    def after_weight_norm() -> Any:
        from torch import nn
        from torch.nn.utils import weight_norm

        layer = weight_norm(nn.Conv1d(8, 8, 3, padding=1))
        layer.weight.data.normal_(0.0, 0.01)
        return nn.Sequential(layer, nn.ReLU(), nn.Conv1d(8, 4, 3))

    @good
    def before_weight_norm() -> Any:
        from torch import nn
        from torch.nn.utils import weight_norm

        layer = nn.Conv1d(8, 8, 3, padding=1)
        layer.weight.data.normal_(0.0, 0.01)
        return nn.Sequential(weight_norm(layer), nn.ReLU(), nn.Conv1d(8, 4, 3))
