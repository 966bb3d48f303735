"""Rules of matrix products and of softmax."""

import string
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from jataug.errors import UnsupportedOperator

from ..graph.builder import Dim, Term
from ..graph.term import source_of
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


@rule("Einsum", "Inputs")
def einsum(g: Term, Y: Term, *Inputs: Term, index: int, equation: str) -> Term:
    """Return the einsum of the cotangent and the other inputs over the axes of this input."""
    *axes, result = _spelled(equation, [_rank(term) for term in Inputs])
    wanted = Inputs[index]
    own = "".join(dict.fromkeys(axes[index]))
    lengths = dict(zip(axes[index], wanted.shape or (), strict=True))
    others = [(axes[i], term) for i, term in enumerate(Inputs) if i != index]
    present = {letter for letters, _ in [(result, g), *others] for letter in letters}
    kept = "".join(letter for letter in own if letter in present)
    sizes = {
        letter: size
        for letters, term in [*others, (result, g)]
        for letter, size in zip(letters, term.shape or (), strict=True)
        if size != 1
    }
    found = wanted.graph.op(
        "Einsum",
        g,
        *(term for _, term in others),
        dtype=wanted.dtype,
        shape=tuple(sizes.get(letter, 1) for letter in kept),
        equation=f"{','.join([result, *(letters for letters, _ in others)])}->{kept}",
    )
    # The cotangent is constant along an axis that is summed or broadcast in this input only.
    summed = [i for i, letter in enumerate(own) if letter not in present]
    whole = _on_diagonals(found.unsqueeze(summed), own, axes[index], lengths)
    grown = [i for i, n in enumerate(whole.shape or ()) if n == 1 != (wanted.shape or ())[i]]
    return whole.expand_like(wanted) if grown else whole


def _on_diagonals(found: Term, own: str, axes: str, lengths: Mapping[str, Dim]) -> Term:
    """Return a term with the distinct axes of `own`, placed on the diagonals of `axes`."""
    for i, letter in enumerate(axes):
        first = axes.index(letter)
        if first == i:
            continue
        size = lengths[letter]
        if isinstance(size, str):
            raise UnsupportedOperator("Einsum: a diagonal over the batch mixes images")
        diagonal = np.eye(size).reshape([size if k in (first, i) else 1 for k in range(i + 1)])
        diagonal = diagonal.reshape(*diagonal.shape, *[1] * (_rank(found) - i))
        found = found.unsqueeze([i]) * found.graph.constant(diagonal, found.dtype)
    return found


def _spelled(equation: str, ranks: list[int]) -> list[str]:
    """Return the axes of every input and of the result as letters, with ellipses expanded."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    widths = [
        rank - len(term) + 3 for term, rank in zip(terms, ranks, strict=True) if "..." in term
    ]
    free = [c for c in string.ascii_letters if c not in equation][: max(widths, default=0)]
    spelled = []
    for term, rank in zip(terms, ranks, strict=True):
        width = rank - len(term.replace("...", ""))
        spelled.append(term.replace("...", "".join(free[len(free) - width :])))
    if not arrow:
        once = sorted(c for c in set(left) - set(",.") if left.count(c) == 1)
        right = "..." * bool(widths) + "".join(once)
    return [*spelled, right.replace("...", "".join(free))]


@rule("OneHot", "values")
def one_hot(g: Term, Y: Term, indices: Term, depth: Term, values: Term, *, axis: int = -1) -> Term:
    switch = g.graph.constant(np.array([0, 1]), values.dtype)
    on = Y.same("OneHot", indices, depth, switch, axis=axis)
    everywhere = range(_rank(Y))
    parts = [(g * part).sum(everywhere, keepdims=False).unsqueeze([0]) for part in (1 - on, on)]
    return values.same("Concat", *parts, axis=0)


@rule("Softmax", "input")
def softmax(g: Term, Y: Term, input: Term, *, axis: int = -1) -> Term:
    if _is_sifted(Y.value):
        # A fully masked row is NaN here, and the network's next Where makes it zero.
        wrong = Y.graph.op("IsNaN", Y, dtype=np.dtype(bool), shape=Y.shape)
        Y = wrong.where(0.0, Y)
    return Y * (g - (g * Y).sum([axis]))


def _is_sifted(value: ir.Value) -> bool:
    """Return whether a Where of the network reads the value, directly or through casts or moves."""
    readers = [use.node for use in source_of(value).uses()]
    passed = (node.outputs[0] for node in readers if node.op_type in _FORMS)
    return any(node.op_type == "Where" for node in readers) or any(map(_is_sifted, passed))


_FORMS = {"Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}


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
    """Return the cotangent with the axes that MatMul dropped for an operand of rank 1."""
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
