"""Gives lazy layers their parameters by running the model once, as its user would before training."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import nn

from initlint.errors import InitlintError
from initlint.probe.entrance import through_training_step
from initlint.probe.recorded_state import set_mode


def is_lazy(model: nn.Module) -> bool:
    """Whether any parameter or buffer waits for a first input."""
    return any(torch.nn.parameter.is_lazy(t) for t in chain(model.parameters(), model.buffers()))


def materialise(model: nn.Module, namespace: Mapping[str, Any], specs: Sequence[str], seed: int) -> str:
    """Run a lazy model once, with inputs that a copy of it accepts; a note about what its sizes depend on.

    The run is in evaluation mode, so that no running statistics change. The note says why when no inputs are found.
    """
    from initlint.probe import inputs

    modes = {m: m.training for m in model.modules()}
    try:
        twin = copy.deepcopy(model)
        with through_training_step(twin):
            given = inputs.find(twin, namespace, specs, seed=seed)
        set_mode(model, training=False, estimating=False)
        with torch.no_grad(), through_training_step(model):
            model(*given.args, **given.kwargs)
    except InitlintError as error:
        return f"its lazy layers have no parameters yet: {error.message}"
    except Exception as error:  # of the model's own code
        return f"its lazy layers have no parameters yet: {type(error).__name__}: {str(error)[:200]}"
    finally:
        for module, mode in modes.items():
            module.training = mode
    shapes = ", ".join(f"{fact.name}: {fact.dtype}{list(fact.shape)}" for fact in given.facts)
    return f"its lazy layers got their sizes from a first run with {shapes}"
