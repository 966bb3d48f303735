"""A torch module in evaluation mode for a while, in several threads at once if need be."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from torch import nn

__all__ = ["evaluating"]

_LOCK = Lock()
_ENTERED: dict[nn.Module, tuple[int, list[tuple[nn.Module, bool]]]] = {}
"""How many calls a module is in, and its modes before the first of them."""


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Put a module in evaluation mode; every submodule's own mode comes back, whatever happens,
    when the last thread leaves. Other callables are left alone.
    """
    if not isinstance(model, nn.Module):
        yield
        return
    with _LOCK:
        none: list[tuple[nn.Module, bool]] = []
        count, modes = _ENTERED.get(model, (0, none))
        modes = modes or [(module, module.training) for module in model.modules()]
        for module, _ in modes:
            module.training = False
        _ENTERED[model] = count + 1, modes
    try:
        yield
    finally:
        with _LOCK:
            count, modes = _ENTERED.pop(model)
            if count > 1:
                _ENTERED[model] = count - 1, modes
            else:
                for module, mode in modes:
                    module.training = mode
