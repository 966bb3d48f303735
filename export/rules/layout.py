"""Rules of ops that move entries and change none of them."""

from collections.abc import Sequence

import numpy as np

from jataug.errors import UnsupportedOperator

from ..graph import Term
from .table import rule


@rule("Reshape", "data")
def reshape(g: Term, Y: Term, data: Term, shape: Term, *, allowzero: int = 0) -> Term:
    return g.reshape_like(data)


@rule("Flatten", "input")
def flatten(g: Term, Y: Term, input: Term, *, axis: int = 1) -> Term:
    return g.reshape_like(input)


@rule("Squeeze", "data")
def squeeze(g: Term, Y: Term, data: Term, axes: Term | None = None) -> Term:
    return g.reshape_like(data)


@rule("Unsqueeze", "data")
def unsqueeze(g: Term, Y: Term, data: Term, axes: Term) -> Term:
    return g.reshape_like(data)


@rule("Transpose", "data")
def transpose(g: Term, Y: Term, data: Term, *, perm: Sequence[int] | None = None) -> Term:
    rank = len(data.shape or ())
    forward = list(range(rank))[::-1] if perm is None else [axis % rank for axis in perm]
    return g.transpose([int(i) for i in np.argsort(forward)])


@rule("Concat", "inputs")
def concat(g: Term, Y: Term, *inputs: Term, index: int, axis: int) -> Term:
    sizes = [(term.shape or ())[axis] for term in inputs[: index + 1]]
    if any(isinstance(size, str) for size in sizes):
        raise UnsupportedOperator("Concat along the batch mixes images and has no derivative here")
    *before, size = (int(size) for size in sizes)
    return g.slice([sum(before)], [sum(before) + size], [axis])


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
    if mode != "constant" or pads.const is None:
        raise UnsupportedOperator(f"Pad: no derivative rule for mode {mode!r} with these pads")
    shape = data.shape or ()
    chosen = range(len(shape)) if axes is None or axes.const is None else axes.const.tolist()
    amounts = pads.const.reshape(2, -1)
    before, after = np.zeros(len(shape), np.int64), np.zeros(len(shape), np.int64)
    for axis, first, last in zip(chosen, *amounts, strict=True):
        before[axis], after[axis] = first, last
    moved = [i for i in range(len(shape)) if before[i] or after[i]]
    if any(isinstance(shape[i], str) for i in moved):
        raise UnsupportedOperator("Pad along the batch mixes images and has no derivative here")
    # Negative pads crop: what was cropped away gets a zero.
    starts = [max(int(before[i]), 0) for i in moved]
    ends = [
        starts[k] + int(shape[i]) + min(int(before[i]), 0) + min(int(after[i]), 0)
        for k, i in enumerate(moved)
    ]
    kept = g.slice(starts, ends, moved) if moved else g
    return kept.pad((-before.clip(max=0)).tolist(), (-after.clip(max=0)).tolist())
