"""What constructing a Lightning module needs of its base class, where Lightning is not installed."""

from __future__ import annotations

import functools
import inspect
import sys
from typing import Any

from torch import nn

_PACKAGES = frozenset(["pytorch_lightning", "lightning", "lightning_fabric"])


def is_lightning_module(name: str) -> bool:
    """Whether a dotted name is that of Lightning's module."""
    return name.split(".")[0] in _PACKAGES and name.rpartition(".")[2] == "LightningModule"


class HyperParameters(dict[str, Any]):
    """Saved arguments, by key and by attribute."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


@functools.cache
def make() -> type[nn.Module]:
    """The class that stands in: a torch module that keeps hyper-parameters and logs nothing."""

    class LightningModule(nn.Module):
        trainer = logger = None
        current_epoch = global_step = 0

        @property
        def hparams(self) -> HyperParameters:
            kept: HyperParameters = self.__dict__.setdefault("_hparams", HyperParameters())
            return kept

        def save_hyperparameters(self, *names: Any, ignore: Any = (), **_: Any) -> None:
            frame = sys._getframe(1)
            ignored = {ignore} if isinstance(ignore, str) else set(ignore or ())
            given = inspect.getargvalues(frame)
            values = {n: given.locals[n] for n in (*given.args[1:],) if n in given.locals}
            values |= given.locals.get(given.keywords, {}) if given.keywords else {}
            for name in names:
                if isinstance(name, dict):
                    values |= name
                elif hasattr(name, "__dict__"):
                    values |= vars(name)
            chosen = [n for n in names if isinstance(n, str)] or list(values)
            self.hparams.update({n: values[n] for n in chosen if n in values and n not in ignored})

        def log(self, *_: Any, **__: Any) -> None:
            """Nothing is logged."""

        log_dict = log

    return LightningModule
