"""Checks of integers, and canonical JSON with its sha256."""

import hashlib
import json
from typing import Any

from .errors import DataError

__all__ = ["canonical", "check_integer", "digest"]


def canonical(value: Any) -> str:
    """Return canonical JSON, which is equal for equal values: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """Return the sha256 of the canonical JSON of a value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def check_integer(name: str, value: Any, least: int, most: int = 2**31 - 1) -> None:
    """Raise DataError unless `value` is an integer in [least, most]; `name` names the option."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise DataError(f"{name}: expected an integer >= {least}, got {value!r}")
    if value > most:
        raise DataError(f"{name}: expected at most {most}, got {value}")
