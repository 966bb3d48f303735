"""The device of an array, read through DLPack; no library is imported. Experimental on CUDA."""

from typing import Any

__all__ = ["is_on_cuda", "name_of", "place_of"]

_CPU, _CUDA = 1, 2
"""DLPack's device types."""

Place = tuple[str, int]
"""A device: its kind, "cpu" or "cuda", and its number."""


def place_of(array: Any) -> Place | None:
    """Return the device of an array; None if it reports none, or neither CPU nor CUDA."""
    try:
        kind, number = array.__dlpack_device__()
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError):
        return None
    named = {_CPU: "cpu", _CUDA: "cuda"}.get(int(kind))
    return None if named is None else (named, int(number))


def is_on_cuda(array: Any) -> bool:
    """Return whether an array is in the memory of a CUDA device."""
    place = place_of(array)
    return place is not None and place[0] == "cuda"


def name_of(place: Place) -> str:
    """Return a device as a value of the argument `device` of Session.open."""
    kind, number = place
    return kind if kind == "cpu" else f"{kind}:{number}"
