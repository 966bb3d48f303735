"""Checks of integers, keys of stored JSON, and canonical JSON with its sha256."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from .errors import DataError, JataugError

__all__ = ["canonical", "check_integer", "digest", "known_fields"]


def canonical(value: Any, *, finite: bool = True) -> str:
    """Return JSON that is the same for equal values: sorted keys, no spaces, ASCII.

    Args:
        value: JSON types.
        finite: refuse NaN and infinities, which are not JSON, with a ValueError.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=not finite)


def digest(value: Any, *, finite: bool = True) -> str:
    """Return the sha256 of the canonical JSON of a value."""
    return hashlib.sha256(canonical(value, finite=finite).encode()).hexdigest()


def check_integer(
    name: str,
    value: Any,
    least: int,
    most: int = 2**31 - 1,
    *,
    error: type[JataugError] = DataError,
) -> None:
    """Raise `error` unless `value` is an integer in [least, most]; `name` names the option."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise error(f"{name}: expected an integer >= {least}, got {value!r}")
    if value > most:
        raise error(f"{name}: expected at most {most}, got {value}")


def known_fields(kind: type[Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of `data` that are fields of the dataclass `kind`.

    A newer version may add keys without a new format version; readers ignore them.
    """
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in data.items() if name in names}
