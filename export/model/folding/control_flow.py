"""Removes control flow that does not depend on the image's pixels.

1. An If with a constant condition is replaced by the branch that it takes.
2. A Loop with a constant trip count or a computable condition is unrolled.
3. A Scan is unrolled; its trip count is a size.
4. RNN, GRU and LSTM are unrolled (recurrent.py), and DeformConv is rewritten (deform.py).
"""

from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from jataug.errors import UnsupportedOperator

from .deform import write_deform_conv
from .node_rewriter import NodeRewriter, split_entries, stack_entries
from .recurrent import RECURRENT
from .static_values import StaticValues, batches

__all__ = ["MOST_ITERATIONS", "inline_control"]

MOST_ITERATIONS = 1000
"""The most iterations of a loop. Unrolling copies the body once per iteration."""


def inline_control(model: ir.Model) -> bool:
    """Replace control-flow and recurrent nodes of the main graph, in place; return if any was.

    Unrolled bodies may hold such nodes too, so call it until it returns False.

    Raises:
        UnsupportedOperator: the outputs need such a node, and none could be replaced.
    """
    if not any(_is_written_out(node) for node in model.graph):
        return False
    common.RemoveUnusedNodesPass()(model)
    found = [node for node in model.graph if _is_written_out(node)]
    left: list[str] = []
    for sizes in batches(model):
        static = StaticValues(model, sizes)
        reasons = [_WRITTEN[node.op_type](NodeRewriter(static, node), static) for node in found]
        left = [reason for reason in reasons if reason is not None]
        if static.problem:
            left = [f"{reason}: {static.problem}" for reason in left]
        if len(left) < len(found):
            return True
    if left:
        raise UnsupportedOperator(left[0])
    return False


def _is_written_out(node: ir.Node) -> bool:
    return not node.domain and node.op_type in _WRITTEN


def _if(rewriter: NodeRewriter, static: StaticValues) -> str | None:
    condition = static(rewriter.node.inputs[0])
    if condition is None:
        return rewriter.refusal(
            "its condition depends on the image; only a constant one has a derivative"
        )
    branch = "then_branch" if condition.reshape(-1)[0] else "else_branch"
    rewriter.replace(rewriter.copy(rewriter.body(branch), []))
    return None


def _loop(rewriter: NodeRewriter, static: StaticValues) -> str | None:
    trips, condition, *carried = rewriter.node.inputs
    body, most = rewriter.body("body"), static(trips)
    going = np.array(True) if condition is None else static(condition)
    if (trips is not None and most is None) or going is None:
        return rewriter.refusal(
            "its trip count depends on the image; only a constant one has a derivative"
        )
    limit = None if most is None else int(most.reshape(-1)[0])
    state: list[Any] = list(carried)
    rows: list[list[ir.Value]] = []
    while bool(going.reshape(-1)[0]) and (limit is None or len(rows) < limit):
        if len(rows) == MOST_ITERATIONS:
            return rewriter.refusal(f"it runs more than {MOST_ITERATIONS} times")
        step = rewriter.constant(np.array(len(rows), np.int64))
        proceed, *results = rewriter.copy(body, [step, rewriter.constant(going), *state])
        state, row = results[: len(carried)], results[len(carried) :]
        rows.append(row)
        following = static(proceed)
        if following is None:
            return rewriter.refusal(
                "whether it goes on depends on the image; only a constant trip count is supported"
            )
        going = following
    if not rows and len(rewriter.node.outputs) > len(carried):
        return rewriter.refusal("it runs no iteration, and what it collects has no known shape")
    collected = [stack_entries(rewriter, column, 0) for column in zip(*rows, strict=True)]
    rewriter.replace([*state, *collected])
    return None


def _scan(rewriter: NodeRewriter, static: StaticValues) -> str | None:
    node, body = rewriter.node, rewriter.body("body")
    count = int(rewriter.number("num_scan_inputs", 0))
    state: list[Any] = list(node.inputs[: len(node.inputs) - count])
    scanned = list(node.inputs[len(state) :])
    outputs = len(node.outputs) - len(state)
    axes = rewriter.number("scan_input_axes", None) or [0] * count
    backward = rewriter.number("scan_input_directions", None) or [0] * count
    trips = static.size(scanned[0], axes[0])
    if trips is None:
        return rewriter.refusal(
            "its trip count is the batch or data; only a constant one has a derivative"
        )
    if not 0 < trips <= MOST_ITERATIONS:
        return rewriter.refusal(f"it runs {trips} times; 1 to {MOST_ITERATIONS} are supported")
    parts = [
        split_entries(rewriter, value, axis, trips)[:: -1 if reverse else 1]
        for value, axis, reverse in zip(scanned, axes, backward, strict=True)
    ]
    rows: list[list[ir.Value]] = []
    for entries in zip(*parts, strict=True):
        results = rewriter.copy(body, [*state, *entries])
        state, row = results[: len(state)], results[len(state) :]
        rows.append(row)
    axes = rewriter.number("scan_output_axes", None) or [0] * outputs
    backward = rewriter.number("scan_output_directions", None) or [0] * outputs
    collected = [
        stack_entries(rewriter, column[:: -1 if reverse else 1], axis)
        for column, axis, reverse in zip(zip(*rows, strict=True), axes, backward, strict=True)
    ]
    rewriter.replace([*state, *collected])
    return None


_WRITTEN = {
    "DeformConv": write_deform_conv,
    "If": _if,
    "Loop": _loop,
    "Scan": _scan,
    **RECURRENT,
}
