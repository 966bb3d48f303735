"""Rules of reductions. The cotangent is broadcast to every entry that was reduced."""

from collections.abc import Callable
from math import prod

from jataug.errors import UnsupportedOperator

from ..graph.builder import Term
from .elementwise import step
from .table import rule

Formula = Callable[[Term, Term, Term, list[int]], Term]


def _reduction(op_type: str, formula: Formula) -> None:
    """Register the rule of a reduction.

    The formula takes the cotangent and the result with the reduced axes kept, the data, and the
    axes. Its own result may have size 1 along them.
    """

    def pullback(
        g: Term,
        Y: Term,
        data: Term,
        axes: Term | None = None,
        *,
        keepdims: int = 1,
        noop_with_empty_axes: int = 0,
    ) -> Term:
        reduced = _axes(data, axes, noop_with_empty_axes)
        if not keepdims:
            g, Y = g.unsqueeze(reduced), Y.unsqueeze(reduced)
        return formula(g, Y, data, reduced).expand_like(data)

    rule(op_type, "data")(pullback)


def _axes(data: Term, axes: Term | None, noop: int) -> list[int]:
    if data.shape is None or (axes is not None and axes.const is None):
        raise UnsupportedOperator(
            f"{data.value.name}: it is reduced along axes that are not constant at export"
        )
    rank = len(data.shape)
    chosen = [] if axes is None or axes.const is None else axes.const.reshape(-1).tolist()
    if not chosen and not noop:
        chosen = list(range(rank))
    return [axis % rank for axis in chosen]


def _mean(g: Term, Y: Term, X: Term, axes: list[int]) -> Term:
    sizes = [size for i in axes if isinstance(size := (X.shape or ())[i], int)]
    if len(sizes) == len(axes):
        return g * (1 / prod(sizes))
    return g / (X * 0 + 1).sum(axes)


def _extreme(g: Term, Y: Term, X: Term, axes: list[int]) -> Term:
    # Tied entries share the cotangent equally, as in torch's amax.
    mask = step(X.equals(Y), X)
    return g * mask / mask.sum(axes)


def _product(g: Term, Y: Term, X: Term, axes: list[int]) -> Term:
    """Return the cotangent times the product of the other entries, with any number of zeros."""
    zero = X.equals(0.0)
    others = zero.where(1.0, X)
    product, zeros = others.prod(axes), step(zero, X).sum(axes)
    none, one = step(zeros.equals(0.0), X), step(zeros.equals(1.0), X)
    return g * product * zero.where(one, none / others)


def _norm(g: Term, Y: Term, X: Term, axes: list[int]) -> Term:
    return g * X / Y.equals(0.0).where(1.0, Y)


_reduction("ReduceSum", lambda g, Y, X, axes: g)
_reduction("ReduceMean", _mean)
_reduction("ReduceMax", _extreme)
_reduction("ReduceMin", _extreme)
_reduction("ReduceProd", _product)
_reduction("ReduceL1", lambda g, Y, X, axes: g * X.sign())
_reduction("ReduceL2", _norm)
_reduction("ReduceLogSum", lambda g, Y, X, axes: g * (-Y).exp())
_reduction("ReduceLogSumExp", lambda g, Y, X, axes: g * (X - Y).exp())
_reduction("ReduceSumSquare", lambda g, Y, X, axes: g * X * 2)


@rule("CumSum", "x")
def cumsum(g: Term, y: Term, x: Term, axis: Term, *, exclusive: int = 0, reverse: int = 0) -> Term:
    return x.same("CumSum", g, axis, exclusive=exclusive, reverse=1 - reverse)


@rule("CumProd", "x")
def cumprod(g: Term, y: Term, x: Term, axis: Term, *, exclusive: int = 0, reverse: int = 0) -> Term:
    """Cumulative product: derivatives after one zero lack that factor, and after two are zero."""

    def back(term: Term) -> Term:
        return x.same("CumSum", term, axis, exclusive=exclusive, reverse=1 - reverse)

    zero = x.equals(0.0)
    count = x.same("CumSum", step(zero, x), axis, reverse=reverse)
    first = zero & count.equals(1.0)
    others = zero.where(1.0, x)
    behind = x.same("CumProd", first.where(1.0, x), axis, exclusive=exclusive, reverse=reverse)
    return first.where(back(g * behind), zero.where(0.0, back(g * y) / others))
