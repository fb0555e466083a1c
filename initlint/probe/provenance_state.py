"""Saving and restoring the process-wide settings that user code may change while it builds a model."""

from __future__ import annotations

import random
import sys
from typing import Any

import torch
from torch._C import _len_torch_function_stack
from torch.overrides import _pop_mode


class GlobalState:
    """RNG states, default dtype and device, deterministic flags, grad mode: as they were when made."""

    def __init__(self) -> None:
        self._torch_rng = torch.get_rng_state()
        self._python_rng = random.getstate()
        self._numpy_rng: Any = _numpy_random().get_state() if _numpy_random() is not None else None
        self._dtype = torch.get_default_dtype()
        self._device = _default_device()
        self._deterministic = torch._C._get_deterministic_algorithms()
        self._warn_only = torch._C._get_deterministic_algorithms_warn_only()
        self._fill = torch._C._get_deterministic_fill_uninitialized_memory()
        self._grad = torch.is_grad_enabled()

    def restore(self) -> None:
        """Put everything back, exactly."""
        self.restore_flags()
        if _default_device() != self._device:
            torch.set_default_device(self._device)
        torch.set_default_dtype(self._dtype)
        torch._C._set_grad_enabled(self._grad)
        torch.set_rng_state(self._torch_rng)
        random.setstate(self._python_rng)
        if self._numpy_rng is not None:
            _numpy_random().set_state(self._numpy_rng)

    def restore_flags(self) -> None:
        """Put back only what recording itself changed: the deterministic flags."""
        torch._C._set_deterministic_algorithms(self._deterministic, warn_only=self._warn_only)
        torch._C._set_deterministic_fill_uninitialized_memory(self._fill)


def fill_new_memory() -> None:
    """Have torch fill new memory with NaN (integers: their maximum).

    ``torch.use_deterministic_algorithms`` does the same but first imports the compiler (one second).
    """
    torch._C._set_deterministic_fill_uninitialized_memory(True)
    torch._C._set_deterministic_algorithms(True, warn_only=True)


def filling() -> bool:
    """Whether torch fills new memory now."""
    return bool(torch._C._get_deterministic_algorithms() and torch._C._get_deterministic_fill_uninitialized_memory())


def remove_mode(mode: object) -> None:
    """Take a torch function mode off the stack, with those above it that user code left behind."""
    for _ in range(_len_torch_function_stack()):
        if _pop_mode() is mode:  # type: ignore[no-untyped-call]
            break


def _default_device() -> Any:
    context = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
    return None if context is None else context.device


def _numpy_random() -> Any:
    # Only when user code (or an earlier import) has loaded it: importing NumPy costs 0.1 s.
    return getattr(sys.modules.get("numpy"), "random", None)
