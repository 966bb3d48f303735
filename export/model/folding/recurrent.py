"""Unrolls RNN, GRU and LSTM in time, one small graph per step.

Names are those of the ONNX standard: X is the sequence, W and R are the weights of inputs and
recurrence, B are the biases, and P are the peepholes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir

from .node_rewriter import NodeRewriter, split_entries, stack_entries
from .static_values import StaticValues

__all__ = ["RECURRENT"]

MOST_STEPS = 1000
"""The most entries of a sequence. Unrolling copies a step once per entry."""

Value = ir.Value
Activation = Callable[[Value], Value]


@dataclass(frozen=True)
class _Cell:
    """One direction of a recurrent node: its weights as the step needs them.

    Attributes:
        write: the rewriter of the node.
        R: (hidden, gates * hidden).
        bias: the recurrence's own bias, for a GRU with linear_before_reset; otherwise the inputs'
            bias includes it.
        peepholes: of the gates i, o, f; empty where there are none.
        activations: f, g, h of the standard.
        clip: clips the inputs of the activations.
        coupled: input_forget of an LSTM.
        one: the constant 1.
    """

    write: NodeRewriter
    R: Value
    bias: Value | None
    peepholes: Sequence[Value]
    activations: Sequence[Activation]
    clip: Activation
    coupled: bool
    one: Value

    def op(self, op_type: str, *inputs: Value) -> Value:
        found: Value = self.write.op(op_type, *inputs)
        return found

    def split(self, value: Value, count: int) -> list[Value]:
        if count == 1:
            return [value]
        return list(self.write.op("Split", value, outputs=count, axis=-1, num_outputs=count))

    def sum(self, *terms: Value) -> Value:
        total, *rest = terms
        for term in rest:
            total = self.op("Add", total, term)
        return total

    def product(self, a: Value, b: Value) -> Value:
        return self.op("Mul", a, b)

    def act(self, i: int, value: Value) -> Value:
        return self.activations[i](self.clip(value))


def _rnn_step(cell: _Cell, x: Value, state: list[Value]) -> list[Value]:
    return [cell.act(0, cell.sum(x, cell.op("MatMul", state[0], cell.R)))]


def _gru_step(cell: _Cell, x: Value, state: list[Value]) -> list[Value]:
    op, h = cell.op, state[0]
    xz, xr, xh = cell.split(x, 3)
    if cell.bias is not None:
        whole = op("Add", op("MatMul", h, cell.R), cell.bias)
        hz, hr, hh = cell.split(whole, 3)
        z, r = cell.act(0, cell.sum(xz, hz)), cell.act(0, cell.sum(xr, hr))
        candidate = cell.act(1, cell.sum(xh, cell.product(r, hh)))
    else:
        Rz, Rr, Rh = cell.split(cell.R, 3)
        z = cell.act(0, cell.sum(xz, op("MatMul", h, Rz)))
        r = cell.act(0, cell.sum(xr, op("MatMul", h, Rr)))
        candidate = cell.act(1, cell.sum(xh, op("MatMul", cell.product(r, h), Rh)))
    # (1 - z) * candidate + z * h
    return [cell.sum(candidate, cell.product(z, op("Sub", h, candidate)))]


def _lstm_step(cell: _Cell, x: Value, state: list[Value]) -> list[Value]:
    h, c = state
    i, o, f, g = cell.split(cell.sum(x, cell.op("MatMul", h, cell.R)), 4)
    if cell.peepholes:
        i = cell.sum(i, cell.product(cell.peepholes[0], c))
        f = cell.sum(f, cell.product(cell.peepholes[2], c))
    i = cell.act(0, i)
    f = cell.op("Sub", cell.one, i) if cell.coupled else cell.act(0, f)
    c = cell.sum(cell.product(f, c), cell.product(i, cell.act(1, g)))
    if cell.peepholes:
        o = cell.sum(o, cell.product(cell.peepholes[1], c))
    # ONNX Runtime clips the inputs of the gates, and not the cell's state.
    return [cell.product(cell.act(0, o), cell.activations[2](c)), c]


@dataclass(frozen=True)
class _Kind:
    step: Callable[[_Cell, Value, list[Value]], list[Value]]
    gates: int
    states: int
    activations: tuple[str, ...]


_KINDS = {
    "RNN": _Kind(_rnn_step, 1, 1, ("Tanh",)),
    "GRU": _Kind(_gru_step, 3, 1, ("Sigmoid", "Tanh")),
    "LSTM": _Kind(_lstm_step, 4, 2, ("Sigmoid", "Tanh", "Tanh")),
}


def _write_out(rewriter: NodeRewriter, static: StaticValues) -> str | None:
    node = rewriter.node
    kind = _KINDS[node.op_type]
    X, W, R, *optional = node.inputs
    if X is None or W is None or R is None:
        return rewriter.refusal("it needs its first three inputs")
    B, lengths, *initial = [*optional, None, None, None, None, None][:5]
    batchwise = bool(rewriter.number("layout", 0))
    steps, dtype = static.size(X, 1 if batchwise else 0), static.dtype(X)
    hidden = rewriter.number("hidden_size", None) or static.size(R, 2)
    directions = 1 + (rewriter.number("direction", "forward") == "bidirectional")
    if steps is None:
        return rewriter.refusal("the length of its sequence is the batch or data; it must be known")
    if dtype is None or hidden is None:
        return rewriter.refusal("its type and hidden_size must be known")
    if not 0 < steps <= MOST_STEPS:
        return rewriter.refusal(
            f"its sequence has {steps} entries; 1 to {MOST_STEPS} are supported"
        )
    if lengths is not None and not static.everywhere(lengths, steps):
        return rewriter.refusal(
            "its sequences have lengths of their own; only full-length sequences are supported"
        )
    if batchwise:
        X = rewriter.op("Transpose", X, perm=[1, 0, 2])
    states = _initial(rewriter, X, initial[: kind.states], (directions, hidden), dtype, batchwise)
    peepholes = initial[kind.states] if kind.states == 2 else None
    columns = (split_entries(rewriter, value, 0, directions) for value in (W, R))
    extras = (_each(rewriter, value, directions) for value in (B, peepholes))
    results = []
    for d, (w, r, b, p) in enumerate(zip(*columns, *extras, strict=True)):
        inputs = rewriter.op("MatMul", X, rewriter.op("Transpose", w, perm=[1, 0]))
        cell, bias = _cell(rewriter, kind, d, (r, b, p), dtype)
        if bias is not None:
            inputs = rewriter.op("Add", inputs, bias)
        backward = rewriter.number("direction", "forward") == "reverse" or d == 1
        results.append(
            _run(kind, cell, split_entries(rewriter, inputs, 0, steps), states[d], backward)
        )
    rewriter.replace(_outputs(rewriter, kind, results, batchwise)[: len(node.outputs)])
    return None


def _initial(
    rewriter: NodeRewriter,
    X: Value,
    given: Sequence[Value | None],
    sizes: tuple[int, int],
    dtype: np.dtype[Any],
    batchwise: bool,
) -> list[list[Value]]:
    """Return the initial states, a list for each direction."""
    directions, hidden = sizes
    zeros = None
    columns = []
    for value in given:
        if value is not None:
            columns.append(split_entries(rewriter, value, 1 if batchwise else 0, directions))
            continue
        if zeros is None:
            batch = rewriter.op("Shape", X, start=1, end=2)
            shape = rewriter.op("Concat", batch, rewriter.constant(np.array([hidden])), axis=0)
            zeros = rewriter.op("Expand", rewriter.constant(np.zeros((), dtype)), shape)
        columns.append([zeros] * directions)
    return [list(states) for states in zip(*columns, strict=True)]


def _each(rewriter: NodeRewriter, value: Value | None, directions: int) -> Sequence[Value | None]:
    return [None] * directions if value is None else split_entries(rewriter, value, 0, directions)


def _cell(
    rewriter: NodeRewriter,
    kind: _Kind,
    direction: int,
    weights: tuple[Value, Value | None, Value | None],
    dtype: np.dtype[Any],
) -> tuple[_Cell, Value | None]:
    """Return the cell, and the bias of its inputs."""
    r, b, p = weights
    inner = None
    before = kind.gates == 3 and bool(rewriter.number("linear_before_reset", 0))
    if b is not None:
        b, inner = rewriter.op("Split", b, outputs=2, axis=0, num_outputs=2)
        if not before:
            b, inner = rewriter.op("Add", b, inner), None
    peepholes = [] if p is None else rewriter.op("Split", p, outputs=3, axis=0, num_outputs=3)
    limit = rewriter.number("clip", None)
    bounds = (
        [] if limit is None else [rewriter.constant(np.array(x, dtype)) for x in (-limit, limit)]
    )
    transposed = rewriter.op("Transpose", r, perm=[1, 0])
    if before and inner is None:
        inner = rewriter.constant(np.zeros((), dtype))
    cell = _Cell(
        rewriter,
        transposed,
        inner,
        peepholes,
        _activations(rewriter, kind, direction),
        (lambda value: rewriter.op("Clip", value, *bounds)) if bounds else (lambda value: value),
        bool(rewriter.number("input_forget", 0)),
        rewriter.constant(np.ones((), dtype)),
    )
    return cell, b


def _run(
    kind: _Kind, cell: _Cell, inputs: Sequence[Value], states: list[Value], backward: bool
) -> tuple[list[Value], list[Value]]:
    """Return the hidden states in temporal order, and the last states."""
    found = []
    for x in reversed(inputs) if backward else inputs:
        states = kind.step(cell, x, states)
        found.append(states[0])
    return found[::-1] if backward else found, states


def _outputs(
    rewriter: NodeRewriter, kind: _Kind, results: Sequence[Any], batchwise: bool
) -> list[Value]:
    """Return Y and the last states, in the standard's layout."""
    sequences = [stack_entries(rewriter, hidden, 0) for hidden, _ in results]
    outputs = [stack_entries(rewriter, sequences, 1)]
    for i in range(kind.states):
        outputs.append(stack_entries(rewriter, [states[i] for _, states in results], 0))
    if not batchwise:
        return outputs
    whole, *last = outputs
    return [
        rewriter.op("Transpose", whole, perm=[2, 0, 1, 3]),
        *(rewriter.op("Transpose", value, perm=[1, 0, 2]) for value in last),
    ]


_PARAMETERS = {
    "Affine": (1.0, 0.0),
    "Elu": (1.0,),
    "HardSigmoid": (0.2, 0.5),
    "LeakyRelu": (0.01,),
    "Relu": (),
    "ScaledTanh": (1.0, 1.0),
    "Sigmoid": (),
    "Softplus": (),
    "Softsign": (),
    "Tanh": (),
    "ThresholdedRelu": (1.0,),
}
"""The activations of the standard, with their default alpha and beta."""


def _activations(rewriter: NodeRewriter, kind: _Kind, direction: int) -> list[Activation]:
    """Return one direction's activations; alphas and betas go to those that take one, in order."""
    names = list(rewriter.number("activations", None) or [])
    names = [name.decode() if isinstance(name, bytes) else name for name in names]
    known = {name.lower(): name for name in _PARAMETERS}
    names = [known[name.lower()] for name in names]
    count = len(kind.activations)
    if not names:
        return [partial(rewriter.op, name) for name in kind.activations]
    alphas = list(rewriter.number("activation_alpha", None) or [])
    betas = list(rewriter.number("activation_beta", None) or [])
    found: list[Activation] = []
    for name in names:
        given = [
            pool.pop(0) for pool, _ in zip((alphas, betas), _PARAMETERS[name], strict=False) if pool
        ]
        numbers = [*given, *_PARAMETERS[name][len(given) :]]
        found.append(partial(_activated, rewriter, name, numbers))
    return found[direction * count :][:count]


def _activated(rewriter: NodeRewriter, name: str, numbers: Sequence[float], value: Value) -> Value:
    found: Value
    if name in ("Affine", "ScaledTanh"):
        alpha, beta = (
            rewriter.op("CastLike", rewriter.constant(np.float32(n)), value) for n in numbers
        )
        if name == "Affine":
            found = rewriter.op("Add", rewriter.op("Mul", value, alpha), beta)
        else:
            found = rewriter.op("Mul", rewriter.op("Tanh", rewriter.op("Mul", value, beta)), alpha)
        return found
    attributes: dict[str, Any] = dict(zip(("alpha", "beta"), numbers, strict=False))
    found = rewriter.op(name, value, **attributes)
    return found


RECURRENT = dict.fromkeys(_KINDS, _write_out)
"""Op type -> the function that unrolls it. It returns the reason if it cannot, else None."""
