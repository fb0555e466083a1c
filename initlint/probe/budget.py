"""Notices during a build that the model will not fit in memory, before it has filled it.

Parameters are counted as they are registered. Beyond ``CHECK`` bytes a fork of the process builds the model on
meta, in a second or two, while the real build goes on, and tells how large it will be.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import IO, Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from initlint.probe import isolate
from initlint.probe.scratch import scratch

#: Bytes from which on the total is asked for: initialising so much takes longer than the estimate.
CHECK = 1 << 30
#: The build waits for the estimate at this many times ``CHECK``: to go on would take memory and the fork's time.
_WAIT = 4
#: Share of the limit that parameters and buffers may take; the rest is for the interpreter and the trace.
SHARE = 0.85
#: Seconds for the estimate.
_PATIENCE = 60.0


class TooLargeError(BaseException):
    """The model does not fit; no ``Exception``, so that user code that catches everything lets it pass."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


class Budget:
    """While active, raises ``TooLargeError`` when the model under construction is or will be larger than allowed.

    Args:
        limit: bytes that the process may use.
        again: constructs the model on meta.
    """

    def __init__(self, limit: int, again: Callable[[], nn.Module], check: int = CHECK) -> None:
        self.allowed = int(limit * SHARE)
        self.check = min(check, self.allowed // 4)
        self.again = again
        self.size = 0
        self._seen: set[int] = set()
        self._fork: isolate.Fork | None = None
        self._answer: IO[bytes] | None = None
        self._hook: Any = None
        self._asked = False

    def __enter__(self) -> Budget:
        self._hook = register_module_parameter_registration_hook(self._registered)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hook.remove()
        self._stop()

    def _registered(self, module: nn.Module, name: str, parameter: Any) -> None:
        if parameter is None or torch.nn.parameter.is_lazy(parameter) or parameter.is_meta:
            return
        with torch._C.DisableTorchFunction():
            try:
                address, size = parameter.untyped_storage().data_ptr(), parameter.untyped_storage().nbytes()
            except (NotImplementedError, RuntimeError):
                return
        if address in self._seen:
            return
        self._seen.add(address)
        self.size += size
        if self.size > self.allowed:
            raise TooLargeError(self.size)
        if self.size > self.check and not self._asked:
            self._ask()
        if self._fork is not None:
            self._look(wait=self.size > _WAIT * self.check)

    def _ask(self) -> None:
        self._asked = True
        self._answer = answer = scratch()
        self._fork = isolate.start(lambda: self._estimate(answer), _PATIENCE)

    def _estimate(self, answer: IO[bytes]) -> None:
        """In the fork."""
        self._hook.remove()
        self.allowed = 1 << 62
        answer.write(str(size_of(self.again())).encode())
        answer.flush()

    def _look(self, *, wait: bool) -> None:
        """Whether the fork has answered."""
        assert self._fork is not None
        assert self._answer is not None
        if wait:
            self._fork.wait()
        elif self._fork.running():
            return
        self._fork = None
        self._answer.seek(0)
        found = self._answer.read()
        if found.isdigit() and int(found) > self.allowed:
            raise TooLargeError(int(found))

    def _stop(self) -> None:
        if self._fork is not None:
            self._fork.kill()
            self._fork = None
        if self._answer is not None:
            self._answer.close()
            self._answer = None


def size_of(model: nn.Module) -> int:
    """Bytes of the parameters and buffers, tied ones once."""
    tensors = (*model.parameters(), *model.buffers())
    return sum(t.numel() * t.element_size() for t in tensors if not torch.nn.parameter.is_lazy(t))


def out_of_memory(error: BaseException | None) -> bool:
    """Whether an allocation failed."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)  # of torch's CPU allocator
    )
