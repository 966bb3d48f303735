"""Rules of Gather, Scatter and TopK.

No derivative uses a scatter with a reduction, because some runtimes silently overwrite there. With
constant indices the derivative is a Gather and a sum; with computed ones, a product with a one-hot
table.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jataug.errors import UnsupportedOperator

from ..graph.builder import Shape, Term
from .places import collect, one_hot, product, static
from .table import rule


@rule("Gather", "data")
def gather(g: Term, Y: Term, data: Term, indices: Term, *, axis: int = 0) -> Term:
    shape = data.shape or ()
    axis %= len(shape)
    size = static(data, axis, "Gather")
    count = product(indices.shape or (), "Gather")
    if indices.const is not None:
        row = g.reshape((*shape[:axis], count, *shape[axis + 1 :]))
        return collect(row, axis, indices.const.reshape(-1) % size, size)
    behind = product(shape[axis + 1 :], "Gather")
    table = one_hot(indices.reshape((count,)), size, g, "Gather").transpose([1, 0])
    return table.matmul(g.reshape((*shape[:axis], count, behind))).reshape_like(data)


@rule("GatherElements", "data")
def gather_elements(g: Term, Y: Term, data: Term, indices: Term, *, axis: int = 0) -> Term:
    shape, read = data.shape or (), indices.shape or ()
    axis %= len(shape)
    if indices.const is not None:
        size = product(shape, "GatherElements")
        index = np.indices(indices.const.shape)
        index[axis] = indices.const % static(data, axis, "GatherElements")
        places = np.ravel_multi_index(tuple(index), tuple(map(int, shape))).reshape(-1)
        return collect(g.reshape((len(places),)), 0, places, size).reshape_like(data)
    found = _collect_elements(g, indices, axis, static(data, axis, "GatherElements"))
    lack = [
        0 if a == b or i == axis else static(data, i, "GatherElements") - int(b)
        for i, (a, b) in enumerate(zip(shape, read, strict=True))
    ]
    return found.pad([0] * len(lack), lack)


def _collect_elements(g: Term, indices: Term, axis: int, size: int) -> Term:
    """Return the adjoint of reading one of `size` entries along `axis` at computed indices."""
    last = [i for i in range(len(g.shape or ())) if i != axis] + [axis]
    places, moved = indices.transpose(last), g.transpose(last)
    table = one_hot(places, size, g, "GatherElements")
    row: Shape = (*(moved.shape or ())[:-1], 1, (moved.shape or ())[-1])
    found = moved.reshape(row, None).matmul(table)
    return found.reshape((*row[:-2], size)).transpose([int(i) for i in np.argsort(last)])


@rule("GatherND", "data")
def gather_nd(g: Term, Y: Term, data: Term, indices: Term, *, batch_dims: int = 0) -> Term:
    shape, b = data.shape or (), batch_dims
    *_, depth = indices.shape or ()
    outer, inner, rest = shape[:b], shape[b : b + int(depth)], shape[b + int(depth) :]
    size, behind = product(inner, "GatherND"), product(rest, "GatherND")
    if indices.const is not None:
        places = _flat_places(indices.const, tuple(map(int, inner)))
        groups = product(outer, "GatherND")
        places = (places.reshape(groups, -1) + size * np.arange(groups)[:, None]).reshape(-1)
        rows = g.reshape((len(places), behind))
        return collect(rows, 0, places, groups * size).reshape_like(data)
    count = product((indices.shape or ())[b:-1], "GatherND")
    strides = np.cumprod([1, *map(int, inner[:0:-1])])[::-1]
    sizes = indices.graph.constant(np.array(inner, np.int64))
    whole = indices.cast(np.int64)
    # Mod has the sign of the divisor, so it turns negative indices into positive ones.
    front = whole.same("Mod", whole, sizes) * indices.graph.constant(strides.astype(np.int64))
    places_term = front.sum([-1], False).reshape((*outer, count))
    table = one_hot(places_term, size, g, "GatherND")
    swapped = table.transpose([*range(b), b + 1, b])
    return swapped.matmul(g.reshape((*outer, count, behind))).reshape_like(data)


def _flat_places(indices: NDArray[Any], sizes: tuple[int, ...]) -> NDArray[Any]:
    columns = [indices[..., i] % size for i, size in enumerate(sizes)]
    return np.ravel_multi_index(tuple(columns), sizes)


@rule("ScatterElements", "data")
def scatter_elements_data(
    g: Term,
    Y: Term,
    data: Term,
    indices: Term,
    updates: Term,
    *,
    axis: int = 0,
    reduction: str = "none",
) -> Term:
    if _adds(reduction, "ScatterElements"):
        return g
    # All updates are the same zero, so their order does not matter.
    return g.same("ScatterElements", g, indices, zeros_like(updates), axis=axis)


@rule("ScatterElements", "updates")
def scatter_elements_updates(
    g: Term,
    Y: Term,
    data: Term,
    indices: Term,
    updates: Term,
    *,
    axis: int = 0,
    reduction: str = "none",
) -> Term:
    if not _adds(reduction, "ScatterElements") and indices.const is not None:
        index = np.indices(indices.const.shape)
        index[axis] = indices.const % static(data, axis, "ScatterElements")
        _refuse_repeats(index.reshape(len(index), -1).T, "ScatterElements")
    return updates.same("GatherElements", g, indices, axis=axis)


@rule("ScatterND", "data")
def scatter_nd_data(
    g: Term, Y: Term, data: Term, indices: Term, updates: Term, *, reduction: str = "none"
) -> Term:
    if _adds(reduction, "ScatterND"):
        return g
    return g.same("ScatterND", g, indices, zeros_like(updates))


@rule("ScatterND", "updates")
def scatter_nd_updates(
    g: Term, Y: Term, data: Term, indices: Term, updates: Term, *, reduction: str = "none"
) -> Term:
    if not _adds(reduction, "ScatterND") and indices.const is not None:
        depth = indices.const.shape[-1]
        sizes = [static(data, i, "ScatterND") for i in range(depth)]
        _refuse_repeats(indices.const.reshape(-1, depth) % sizes, "ScatterND")
    return updates.same("GatherND", g, indices)


def _adds(reduction: str, op_type: str) -> bool:
    if reduction not in ("none", "add"):
        raise UnsupportedOperator(f"{op_type}: no derivative rule for reduction {reduction!r}")
    return reduction == "add"


def _refuse_repeats(index: NDArray[Any], op_type: str) -> None:
    if len(np.unique(index, axis=0)) < len(index):
        raise UnsupportedOperator(
            f"{op_type}: an index occurs twice without a reduction, so the result is undefined"
        )


def zeros_like(like: Term) -> Term:
    """Return zeros in the shape of a term."""
    shape = like.shape or ()
    if all(isinstance(size, int) for size in shape):
        return like.graph.constant(np.zeros([int(size) for size in shape]), like.dtype)
    sizes = like.graph.op("Shape", like, dtype=np.dtype(np.int64), shape=(len(shape),))
    zero = like.graph.constant(0, like.dtype)
    return like.graph.op("Expand", zero, sizes, dtype=like.dtype, shape=shape)


@rule("TopK", "X", every_output=True)
def top_k(
    gs: Sequence[Term | None],
    Ys: Sequence[Term],
    X: Term,
    K: Term,
    *,
    axis: int = -1,
    largest: int = 1,
    sorted: int = 1,
) -> Term:
    g, places = gs[0], Ys[1]
    if g is None or prod(size for size in g.shape or () if isinstance(size, int)) == 0:
        raise UnsupportedOperator("TopK: its indices have no derivative rule; use its values")
    axis %= len(X.shape or ())
    return _collect_elements(g, places, axis, static(X, axis, "TopK"))
