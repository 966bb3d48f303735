"""A decorator that makes calls from several threads run one after the other."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

__all__ = ["one_at_a_time"]

_Method = TypeVar("_Method", bound=Callable[..., Any])


def one_at_a_time(method: _Method) -> _Method:
    """Return the method with a lock that it shares with the object's other decorated methods.

    The lock is the object's attribute `_lock`, an RLock.
    """

    @wraps(method)
    def locked(self: Any, *args: Any, **options: Any) -> Any:
        with self._lock:
            return method(self, *args, **options)

    return cast("_Method", locked)
