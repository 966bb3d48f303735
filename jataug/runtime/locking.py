"""Calls from several threads take turns."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

__all__ = ["one_at_a_time"]

_Method = TypeVar("_Method", bound=Callable[..., Any])


def one_at_a_time(method: _Method) -> _Method:
    """Return a method that waits until no other thread is in such a method of the same object.

    The object has an RLock in `_lock`.
    """

    @wraps(method)
    def locked(self: Any, *args: Any, **options: Any) -> Any:
        with self._lock:
            return method(self, *args, **options)

    return cast("_Method", locked)
