"""Rules of reductions: the cotangent goes back to every entry that was reduced."""

from math import prod

from ..graph import Shape, Term
from .table import rule


@rule("ReduceSum", "data")
def reduce_sum(
    g: Term,
    Y: Term,
    data: Term,
    axes: Term | None = None,
    *,
    keepdims: int = 1,
    noop_with_empty_axes: int = 0,
) -> Term:
    reduced = _axes(data, axes, noop_with_empty_axes)
    return _spread(g, data, reduced)


@rule("ReduceMean", "data")
def reduce_mean(
    g: Term,
    Y: Term,
    data: Term,
    axes: Term | None = None,
    *,
    keepdims: int = 1,
    noop_with_empty_axes: int = 0,
) -> Term:
    reduced = _axes(data, axes, noop_with_empty_axes)
    shape = data.shape or ()
    count = prod(size for i in reduced if isinstance(size := shape[i], int))
    return _spread(g * (1 / count), data, reduced)


def _axes(data: Term, axes: Term | None, noop: int) -> list[int]:
    rank = len(data.shape or ())
    chosen = [] if axes is None or axes.const is None else axes.const.reshape(-1).tolist()
    if not chosen and not noop:
        chosen = list(range(rank))
    return [axis % rank for axis in chosen]


def _spread(g: Term, data: Term, axes: list[int]) -> Term:
    shape: Shape = data.shape or ()
    kept = tuple(1 if i in axes else size for i, size in enumerate(shape))
    return g.reshape(kept, None).expand(shape)
