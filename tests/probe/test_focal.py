"""Focal losses are told by what they compute, and what they are given by the calls around them."""

from __future__ import annotations

import pytest

from initlint.probe.focal import focal_losses

MODEL = "class Net(nn.Module):\n    def step(self, x, y):\n"

WEIGHTED = """
def loss_fn(pred, target, alpha=0.25, gamma=2.0):
    p = pred.sigmoid()
    pt = torch.where(target > 0, p, 1 - p)
    w = torch.where(target > 0, alpha, 1 - alpha) * (1 - pt) ** gamma
    return F.binary_cross_entropy_with_logits(pred, target, weight=w, reduction="sum")
"""
EXPONENTIAL = """
class Loss(nn.Module):
    def forward(self, inputs, targets):
        bce = F.binary_cross_entropy_with_logits(inputs, targets, reduction="none")
        pt = torch.exp(-bce)
        return (self.alpha * (1 - pt) ** self.gamma * bce).sum() / targets.sum()
"""
HEATMAP = """
def neg_loss(pred, gt):
    pos, neg = gt.eq(1).float(), gt.lt(1).float()
    pos_loss = torch.log(pred) * torch.pow(1 - pred, 2) * pos
    neg_loss = torch.log(1 - pred) * torch.pow(pred, 2) * torch.pow(1 - gt, 4) * neg
    return -(pos_loss.sum() + neg_loss.sum()) / pos.sum()
"""
SOFTMAX = """
def loss_fn(pred, target):
    ce = F.cross_entropy(pred, target, reduction="none")
    return ((1 - torch.exp(-ce)) ** 2 * ce).sum()
"""
OTHER = """
def loss_fn(pred, target):
    scale = (1 - torch.rand(1)) ** 2
    return scale * pred.sum() + torch.log(target).sum()
"""


def found(text: str) -> list[tuple[bool, str | None, int | None]]:
    return [(f.summed, f.callee, f.output) for f in focal_losses("model.py", text, ["Net"], "Net")]


@pytest.mark.parametrize(
    ("loss", "call", "expected"),
    [
        (WEIGHTED, "return loss_fn(self(x)[1], y)", (True, "", 1)),
        (WEIGHTED, "boxes, scores = self.net(x)\n        return loss_fn(scores, y)", (True, "net", 1)),
        (
            WEIGHTED,
            "out = self.net.forward(x)\n        return loss_fn(target=y, pred=out.flatten(1))",
            (True, "net", None),
        ),
        (WEIGHTED, "return loss_fn(x, y)", (True, None, None)),
        (HEATMAP, "return neg_loss(self.head(x).sigmoid(), y)", (True, "head", None)),
        (EXPONENTIAL, "crit = Loss()\n        return crit(self(x), y)", (True, "", None)),
        (
            "from torchvision.ops import sigmoid_focal_loss\n",
            'return sigmoid_focal_loss(self(x), y, reduction="mean")',
            (False, "", None),
        ),
        (
            "from torchvision.ops import sigmoid_focal_loss\n",
            "all = sigmoid_focal_loss(self(x), y)\n        return all.sum() / 3",
            (True, "", None),
        ),
    ],
)
def test_the_call_says_which_output(loss: str, call: str, expected: tuple[bool, str | None, int | None]) -> None:
    assert found(f"{loss}\n{MODEL}        {call}\n") == [expected]


def test_a_loss_that_nothing_calls_is_noted() -> None:
    assert found(f"{WEIGHTED}\n{MODEL}        return self(x)\n") == [(True, None, None)]


def test_a_mean_is_no_sum() -> None:
    assert found(WEIGHTED.replace('"sum"', '"mean"')) == [(False, None, None)]
    assert found(EXPONENTIAL.replace("targets.sum()", "targets.numel()")) == [(False, None, None)]


def test_calls_for_other_models_do_not_count() -> None:
    assert found(f"{WEIGHTED}\nclass Other:\n    def step(self, x, y):\n        return loss_fn(self(x), y)\n") == []


@pytest.mark.parametrize("loss", [SOFTMAX, OTHER, "x = ("])
def test_other_losses(loss: str) -> None:
    assert found(loss) == []
