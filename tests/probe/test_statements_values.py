"""Where the numbers of a draw are computed: through names, helpers, arguments and attributes."""

from __future__ import annotations

import importlib.util
import textwrap
from pathlib import Path

import pytest

from initlint.facts import Computed
from initlint.probe.provenance import Recorder

HEAD = """
import math
import numpy as np
import torch
from torch import nn


class Holder(nn.Module):
    def __init__(self, inputs=8, outputs=12):
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        self.fc = nn.Linear(inputs, outputs)
        self.reset()
"""


def computed(folder: Path, body: str) -> Computed | None:
    path = folder / "model.py"
    path.write_text(HEAD + textwrap.dedent(body))
    spec = importlib.util.spec_from_file_location("values_model", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with Recorder() as recorder:
        spec.loader.exec_module(module)
        model = module.Model()
    return recorder.record(model).parameters[0].computed


TRAILS = {
    "in the call": (
        """
        class Model(Holder):
            def reset(self):
                nn.init.normal_(self.fc.weight, 0.0, 1 / math.sqrt(self.fc.weight.size(0)))
        """,
        "nn.init.normal_",
        "nn.init.normal_",
    ),
    "a name above": (
        """
        class Model(Holder):
            def reset(self):
                stdv = 1.0 / math.sqrt(self.fc.weight.size(0))
                self.fc.weight.data.uniform_(-stdv, stdv)
        """,
        "stdv = 1.0",
        "stdv = 1.0",
    ),
    "the count above the formula": (
        """
        class Model(Holder):
            def reset(self):
                n = self.fc.weight.shape[0]
                self.fc.weight.data.normal_(0, math.sqrt(2.0 / n))
        """,
        "self.fc.weight.data.normal_",
        "n = ",
    ),
    "bounds that a helper returns": (
        """
        def limits(layer):
            fan_in = layer.weight.data.size()[0]
            lim = 1.0 / np.sqrt(fan_in)
            return (-lim, lim)

        class Model(Holder):
            def reset(self):
                self.fc.weight.data.uniform_(*limits(self.fc))
        """,
        "lim = 1.0",
        "fan_in = layer",
    ),
    "a draw that a helper returns": (
        """
        def he_uniform(shape):
            return torch.empty(*shape).uniform_(-np.sqrt(2.0 / shape[1]), np.sqrt(2.0 / shape[1]))

        class Model(Holder):
            def reset(self):
                self.fc.weight.data = he_uniform(self.fc.weight.shape)
        """,
        "return torch.empty",
        "return torch.empty",
    ),
    "memory that a helper fills": (
        """
        def he(shape):
            std = np.sqrt(2.0 / shape[1])
            w = torch.empty(shape)
            w.normal_(0, std)
            return w

        class Model(Holder):
            def reset(self):
                self.fc.weight.data = he(self.fc.weight.shape)
        """,
        "std = np.sqrt",
        "std = np.sqrt",
    ),
    "a factor beside a draw": (
        """
        def variable(shape):
            stddev = np.sqrt(2.0 / sum(shape))
            return nn.Parameter(torch.randn(*shape) * float(stddev))

        class Model(Holder):
            def reset(self):
                self.fc.weight = variable((self.outputs, self.inputs))
        """,
        "stddev = np.sqrt",
        "stddev = np.sqrt",
    ),
    "handed over by the caller": (
        """
        def fill(w, std):
            with torch.no_grad():
                w.normal_(0, std)

        class Model(Holder):
            def reset(self):
                fill(self.fc.weight, 2.0 / self.fc.in_features)
        """,
        "fill(self.fc.weight, 2.0",
        "fill(self.fc.weight, 2.0",
    ),
    "the count handed over by the caller": (
        """
        def fill(w, n):
            bound = 1 / math.sqrt(n)
            nn.init.uniform_(w, -bound, bound)

        class Model(Holder):
            def reset(self):
                fill(self.fc.weight, self.fc.out_features)
        """,
        "bound = 1",
        "fill(self.fc.weight, self",
    ),
    "an attribute": (
        """
        class Model(Holder):
            def reset(self):
                self.std = 1 / math.sqrt(self.fc.out_features)
                nn.init.normal_(self.fc.weight, std=self.std)
        """,
        "self.std = 1",
        "self.std = 1",
    ),
    "a method": (
        """
        class Model(Holder):
            def bound(self):
                return math.sqrt(2 / self.fc.out_features)

            def reset(self):
                nn.init.uniform_(self.fc.weight, -self.bound(), self.bound())
        """,
        "return math.sqrt",
        "return math.sqrt",
    ),
    "both counts of a helper": (
        """
        def fans(w):
            return w.shape[1], w.shape[0]

        class Model(Holder):
            def reset(self):
                fan_in, fan_out = fans(self.fc.weight)
                std = math.sqrt(2 / fan_in + fan_out)
                nn.init.normal_(self.fc.weight, std=std)
        """,
        "std = math.sqrt",
        "return w.shape[1]",
    ),
    "a width that is the layer's as well": (
        """
        class Model(Holder):
            def reset(self):
                width = 4 * self.inputs
                bound = 1 / math.sqrt(width)
                nn.init.uniform_(self.fc.weight, -bound, bound)
        """,
        "bound = 1",
        "bound = 1",
    ),
    "two assignments": (
        """
        class Model(Holder):
            def reset(self):
                std = 1 / math.sqrt(self.fc.in_features)
                if self.inputs > 4:
                    std = 1 / math.sqrt(self.fc.out_features)
                nn.init.normal_(self.fc.weight, std=std)
        """,
        None,
        "nn.init.normal_",
    ),
    "numbers of their own": (
        """
        class Model(Holder):
            def reset(self):
                nn.init.normal_(self.fc.weight, std=0.02)
        """,
        None,
        None,
    ),
}


@pytest.mark.parametrize("name", list(TRAILS))
def test_trail(tmp_path: Path, name: str) -> None:
    body, formula, count = TRAILS[name]
    found = computed(tmp_path, body) or Computed()
    for site, text in ((found.formula, formula), (found.count, count)):
        assert (site is None) == (text is None)
        assert site is None or text is None or site.text.startswith(text)
