"""Rules of matrix products and of the ops that are linear up to a normalisation."""

from typing import Any

import numpy as np

from jataug.errors import UnsupportedOperator

from ..graph import Term
from .table import rule


@rule("MatMul", "A")
def matmul_a(g: Term, Y: Term, A: Term, B: Term) -> Term:
    return _as_matrix(g, A, B).matmul(_transposed(_column(B)))


@rule("MatMul", "B")
def matmul_b(g: Term, Y: Term, A: Term, B: Term) -> Term:
    found = _transposed(_row(A)).matmul(_as_matrix(g, A, B))
    return found.reshape((found.shape or ())[:-1]) if _rank(B) == 1 else found


@rule("Gemm", "A")
def gemm_a(
    g: Term,
    Y: Term,
    A: Term,
    B: Term,
    C: Term | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Term:
    if transA:
        return A.same("Gemm", B, g, alpha=alpha, transA=transB, transB=1)
    return A.same("Gemm", g, B, alpha=alpha, transB=1 - transB)


@rule("Gemm", "B")
def gemm_b(
    g: Term,
    Y: Term,
    A: Term,
    B: Term,
    C: Term | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Term:
    if transB:
        return B.same("Gemm", g, A, alpha=alpha, transA=1, transB=transA)
    return B.same("Gemm", A, g, alpha=alpha, transA=1 - transA)


@rule("Gemm", "C")
def gemm_c(
    g: Term,
    Y: Term,
    A: Term,
    B: Term,
    C: Term,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Term:
    return g * beta


@rule("BatchNormalization", "X")
def batch_normalization(
    g: Term,
    Y: Term,
    X: Term,
    scale: Term,
    B: Term,
    mean: Term,
    var: Term,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> Term:
    if training_mode:
        raise UnsupportedOperator(
            "BatchNormalization in training form mixes the images of a batch; export the model "
            "in eval mode"
        )
    per_channel = (1, -1, *[1] * (len(X.shape or ()) - 2))
    if scale.const is not None and var.const is not None:
        gain = scale.const / np.sqrt(var.const + var.const.dtype.type(epsilon))
        return g * g.graph.constant(gain.reshape(per_channel), X.dtype)
    channels = (1, *(scale.shape or ()), *per_channel[2:])
    return g * (scale / (var + epsilon).sqrt()).reshape(channels)


@rule("Softmax", "input")
def softmax(g: Term, Y: Term, input: Term, *, axis: int = -1) -> Term:
    return Y * (g - (g * Y).sum([axis]))


@rule("LogSoftmax", "input")
def log_softmax(g: Term, Y: Term, input: Term, *, axis: int = -1) -> Term:
    return g - Y.exp() * g.sum([axis])


def _rank(term: Term) -> int:
    return len(term.shape or ())


def _row(A: Term) -> Term:
    return A.reshape((1, *(A.shape or ()))) if _rank(A) == 1 else A


def _column(B: Term) -> Term:
    return B.reshape((*(B.shape or ()), 1)) if _rank(B) == 1 else B


def _as_matrix(g: Term, A: Term, B: Term) -> Term:
    """Give the cotangent the axes that MatMul dropped for an operand of rank 1."""
    shape: Any = g.shape or ()
    if _rank(B) == 1:
        shape = (*shape, 1)
    if _rank(A) == 1:
        shape = (*shape[:-1], 1, shape[-1])
    return g.reshape(shape)


def _transposed(term: Term) -> Term:
    if term.const is not None and _rank(term) == 2:
        return term.graph.derived(term, "transposed", lambda w: w.T)
    rank = _rank(term)
    return term.transpose([*range(rank - 2), rank - 1, rank - 2])
