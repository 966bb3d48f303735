"""Pools with ceil_mode. Before opset 22 ONNX's shape inference counts one window too many.

That window would start in the padding at the end of an axis, and runtimes leave it out.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir

from jataug.errors import UnsupportedOperator

from ..graph.pool_size import POOLS, node_attribute

__all__ = ["settle_pools"]


def settle_pools(model: ir.Model, shapes: Mapping[str, Sequence[Any]]) -> None:
    """Rewrite such pools, in place, as pools with the same windows that round down.

    Raises:
        UnsupportedOperator: an average pool counts its padding, which rewriting would change.
    """
    if model.opset_imports.get("", 0) >= 22:
        return
    for node in model.graph:
        if node.domain or node.op_type not in POOLS or not node_attribute(node, "ceil_mode", 0):
            continue
        sizes, results = (
            shapes.get(v.name or "", ()) for v in (node.inputs[0], node.outputs[0]) if v
        )
        pads = _floored(node, sizes, results)
        if pads is None:
            continue
        if node_attribute(node, "count_include_pad", 0):
            raise UnsupportedOperator(
                f"{node.op_type} (node {node.name!r}): its last window lies wholly in the padding, "
                "which runtimes and ONNX's shape inference treat differently under ceil_mode and "
                "count_include_pad; export it at opset 22 or newer, or with ceil_mode=0"
            )
        node.attributes["pads"] = ir.AttrInt64s("pads", pads)
        node.attributes["ceil_mode"] = ir.AttrInt64("ceil_mode", 0)


def _floored(node: ir.Node, sizes: Sequence[Any], results: Sequence[Any]) -> list[int] | None:
    """Return the pads of an equal pool that rounds down; None if no window is too many."""
    rank = len(sizes) - 2
    if not all(isinstance(size, int) for size in (*sizes[2:], *results[2:])):
        return None
    if node_attribute(node, "auto_pad", "NOTSET") != "NOTSET":
        return None
    pads, strides = (
        node_attribute(node, "pads", [0] * 2 * rank),
        node_attribute(node, "strides", [1] * rank),
    )
    dilations, kernel = (
        node_attribute(node, "dilations", [1] * rank),
        node_attribute(node, "kernel_shape", []),
    )
    behind, dropped = [], False
    for i, (size, result) in enumerate(zip(sizes[2:], results[2:], strict=True)):
        extent = (kernel[i] - 1) * dilations[i] + 1
        most = -(-(size + pads[i] + pads[rank + i] - extent) // strides[i]) + 1
        dropped |= most > result
        behind.append(max((result - 1) * strides[i] + extent - pads[i] - size, 0))
    return [*pads[:rank], *behind] if dropped else None
