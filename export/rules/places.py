"""Adjoints of reading entries along one axis: at constant positions, with a constant matrix, or at
computed positions.

None needs a scatter. An entry that was read twice sums its two cotangents by a Gather and a sum.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jataug.errors import UnsupportedOperator

from ..graph.builder import Shape, Term

__all__ = ["along", "collect", "constant", "one_hot", "product", "static"]

Places = NDArray[np.int64]

_GATHERED = 8
"""If an entry is read more often than this, its cotangents are summed by a matrix product."""

ONE_HOT = 2**24
"""The most entries of a one-hot table per image."""


def constant(term: Term | None, op_type: str, what: str) -> NDArray[Any]:
    """Return the array of a constant term.

    Raises:
        UnsupportedOperator: the term is computed.
    """
    if term is None or term.const is None:
        raise UnsupportedOperator(f"{op_type}: it has a derivative only if its {what} is constant")
    return term.const


def static(term: Term, axis: int, op_type: str) -> int:
    """Return the static size of an axis.

    Raises:
        UnsupportedOperator: the axis is the batch, or its size cannot be inferred.
    """
    size = (term.shape or ())[axis]
    if isinstance(size, str):
        raise UnsupportedOperator(
            f"{op_type} along axis {axis} of {term.value.name}, with the shape {term.shape}, mixes "
            "the images of a batch and cannot be differentiated"
        )
    return size


def collect(g: Term, axis: int, places: Places, size: int) -> Term:
    """Return the adjoint of y[k] = x[places[k]] along `axis`, where x has `size` entries.

    A place of -1 stands for no entry of x; its cotangent is dropped.
    """
    rank = len(g.shape or ())
    axis %= rank
    if len(places) and (places == places[0] + np.arange(len(places))).all() and places[0] >= 0:
        return _pad(g, axis, int(places[0]), size - len(places) - int(places[0]))
    repeats = len(places) // size if size else 0
    if repeats > 1 and np.array_equal(places, np.repeat(np.arange(size), repeats)):
        shape = g.shape or ()
        return g.reshape((*shape[:axis], size, repeats, *shape[axis + 1 :])).sum([axis + 1], False)
    counts = np.bincount(places[places >= 0], minlength=size)
    most = int(counts.max(initial=0))
    if most > _GATHERED:
        return along(g, np.equal.outer(places, np.arange(size)).astype(np.float64), axis)
    return _gather(g, axis, places, counts)


def _gather(g: Term, axis: int, places: Places, counts: Places) -> Term:
    """Return the cotangents of every entry along a new axis, filled up with zeros."""
    table = np.full((max(int(counts.max(initial=0)), 1), len(counts)), len(places))
    order = np.argsort(places, kind="stable")
    order = order[places[order] >= 0]
    first = np.cumsum(counts) - counts
    table[np.arange(len(order)) - first[places[order]], places[order]] = order
    if (table == len(places)).any():
        g = _pad(g, axis, 0, 1)
    shape = g.shape or ()
    indices = table if len(table) > 1 else table[0]
    read = g.graph.op(
        "Gather",
        g,
        g.graph.constant(indices, np.int64),
        dtype=g.dtype,
        shape=(*shape[:axis], *indices.shape, *shape[axis + 1 :]),
        axis=axis,
    )
    return read.sum([axis], False) if len(table) > 1 else read


def _pad(g: Term, axis: int, before: int, after: int) -> Term:
    rank = len(g.shape or ())
    pads = np.zeros((2, rank), np.int64)
    pads[:, axis] = before, after
    return g.pad(pads[0].tolist(), pads[1].tolist())


def along(g: Term, matrix: NDArray[np.float64], axis: int) -> Term:
    """Multiply `axis` of `g` by a constant matrix: its rows are contracted, its columns remain."""
    shape = g.shape or ()
    axis %= len(shape)
    rows, columns = matrix.shape
    if axis == len(shape) - 1:
        flat = g.reshape((1, rows)) if len(shape) == 1 else g
        found = flat.matmul(g.graph.constant(matrix, g.dtype))
    else:
        behind = [size for size in shape[axis + 1 :] if isinstance(size, int)]
        if len(behind) < len(shape) - axis - 1:
            raise UnsupportedOperator(f"{g.value.name}: the batch must be its first axis")
        flat = g.reshape((*shape[: axis + 1], prod(behind)))
        found = g.graph.constant(np.ascontiguousarray(matrix.T), g.dtype).matmul(flat)
    return found.reshape((*shape[:axis], columns, *shape[axis + 1 :]))


def one_hot(places: Term, size: int, like: Term, op_type: str) -> Term:
    """Return (places == 0 .. size - 1) as 0 and 1 along a new last axis.

    Negative places count from the end.

    Raises:
        UnsupportedOperator: the table would have more than ONE_HOT entries.
    """
    shape: Shape = (*(places.shape or ()), size)
    entries = prod(entry for entry in shape if isinstance(entry, int))
    if entries > ONE_HOT:
        raise UnsupportedOperator(
            f"{op_type}: with computed indices its derivative needs a table of {shape} entries, "
            f"more than the limit of {ONE_HOT}"
        )
    wide = places.cast(np.int64).reshape((*shape[:-1], 1), None)
    steps = np.arange(size, dtype=np.int64)
    hit = wide.equals(places.graph.constant(steps))
    back = wide.equals(places.graph.constant(steps - size))
    either = places.graph.op("Or", hit, back, dtype=np.dtype(bool), shape=hit.shape)
    return either.cast(like.dtype)


def product(shape: Sequence[Any], op_type: str) -> int:
    """Return the number of entries of a static shape."""
    if any(isinstance(size, str) for size in shape):
        raise UnsupportedOperator(f"{op_type}: the batch must not be among the axes {shape}")
    return prod(shape)
