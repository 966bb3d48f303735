"""Checks of integers, keys of stored JSON, and canonical JSON with its sha256."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from .errors import DataError

__all__ = ["canonical", "check_integer", "digest", "known_fields"]


def canonical(value: Any) -> str:
    """Return JSON that is the same for equal values: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """Return the sha256 of the canonical JSON of a value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def check_integer(name: str, value: Any, least: int, most: int = 2**31 - 1) -> None:
    """Refuse what is not an integer in [least, most]."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise DataError(f"{name}: expected an integer >= {least}, got {value!r}")
    if value > most:
        raise DataError(f"{name}: expected at most {most}, got {value}")


def known_fields(kind: type[Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of `data` that are fields of the dataclass `kind`.

    A newer version may add keys without a new format version; readers ignore them.
    """
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in data.items() if name in names}
