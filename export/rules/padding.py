"""Rules of ops that pad and crop: Pad in its four modes, and CenterCropPad."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jataug.errors import UnsupportedOperator

from ..graph.builder import Term
from .places import collect, constant, static
from .table import rule


@rule("Pad", "data")
def pad(
    g: Term,
    Y: Term,
    data: Term,
    pads: Term,
    constant_value: Term | None = None,
    axes: Term | None = None,
    *,
    mode: str = "constant",
) -> Term:
    rank = len(data.shape or ())
    chosen = range(rank) if axes is None else constant(axes, "Pad", "axes").tolist()
    amounts = constant(pads, "Pad", "pads").reshape(2, -1).tolist()
    before, after = [0] * rank, [0] * rank
    for axis, first, last in zip(chosen, *amounts, strict=True):
        before[axis], after[axis] = first, last
    moved = [axis for axis in range(rank) if before[axis] or after[axis]]
    if mode == "constant":
        return _cut(g, data, before, after, moved)
    for axis in moved:
        size = static(data, axis, "Pad")
        places = _places(size, before[axis], after[axis], mode)
        g = collect(g, axis, places, size)
    return g


def _cut(g: Term, data: Term, before: list[int], after: list[int], moved: Sequence[int]) -> Term:
    """Return the cotangent of `data`, which is zero at entries that a negative pad cropped."""
    sizes = [static(data, axis, "Pad") for axis in moved]
    starts = [max(before[axis], 0) for axis in moved]
    ends = [
        start + size + min(before[axis], 0) + min(after[axis], 0)
        for start, size, axis in zip(starts, sizes, moved, strict=True)
    ]
    kept = g.slice(starts, ends, moved) if moved else g
    return kept.pad([max(-b, 0) for b in before], [max(-a, 0) for a in after])


def _places(size: int, before: int, after: int, mode: str) -> Any:
    """Return the entry that each padded position copies. Negative pads crop first."""
    kept = np.arange(size)[max(-before, 0) : size - max(-after, 0)]
    reach = len(kept) - (mode == "reflect")
    if max(before, after) > reach and mode != "edge":
        raise UnsupportedOperator(
            f"Pad: mode {mode!r} reaches {max(before, after)} entries beyond an axis of "
            f"{len(kept)}, on which runtimes disagree"
        )
    return np.pad(kept, (max(before, 0), max(after, 0)), mode=mode)  # type: ignore[call-overload]


@rule("CenterCropPad", "input_data")
def center_crop_pad(
    g: Term, Y: Term, input_data: Term, shape: Term, *, axes: Sequence[int] | None = None
) -> Term:
    for axis, (size, wanted) in enumerate(zip(input_data.shape or (), Y.shape or (), strict=True)):
        if size == wanted:
            continue
        size, wanted = static(input_data, axis, "CenterCropPad"), static(Y, axis, "CenterCropPad")
        if wanted < size:
            first = (size - wanted) // 2
            places = np.arange(first, first + wanted)
        else:
            first = (wanted - size) // 2
            places = np.full(wanted, -1)
            places[first : first + size] = np.arange(size)
        g = collect(g, axis, places, size)
    return g
