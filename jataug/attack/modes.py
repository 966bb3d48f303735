"""A context in which a torch module is in evaluation mode, safe in several threads."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from torch import nn

__all__ = ["evaluating"]

_LOCK = Lock()
_ENTERED: dict[nn.Module, tuple[int, list[tuple[nn.Module, bool]]]] = {}
"""The number of active contexts of a module, and its modes before the first one."""


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Put a module in evaluation mode. Callables that are not modules are left alone.

    Every submodule's own mode is restored when the last thread leaves, also after an error.
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
