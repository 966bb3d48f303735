"""Samples that are skipped because they cannot be used."""

from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from ..errors import DataError
from .source import Source

__all__ = ["HINT", "OnError", "Skip", "check_on_error"]

OnError = Literal["stop", "skip"]
HINT = "(--on-error skip leaves such images out)"


@dataclass(frozen=True)
class Skip:
    """A sample that could not be used: its index, its key and the reason, in one line."""

    index: int
    key: str
    reason: str

    @classmethod
    def of(cls, source: Source, index: int, error: DataError, on_error: OnError) -> Self:
        """Return the skipped sample.

        Raises:
            DataError: with what to do, where `on_error` is "stop".
        """
        if on_error == "stop":
            raise DataError(f"{error} {HINT}") from None
        return cls(index, source.key(index), str(error))


def check_on_error(on_error: Any) -> None:
    """Raise DataError unless the value is "stop" or "skip"."""
    if on_error not in get_args(OnError):
        raise DataError(f"on_error: expected stop or skip, got {on_error!r}")
