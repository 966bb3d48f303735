"""Output sizes of pools that round up (ceil_mode)."""

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

__all__ = ["POOLS", "node_attribute", "pool_size"]


POOLS = ("AveragePool", "LpPool", "MaxPool")


def pool_size(node: ir.Node, sizes: Sequence[Any], inferred: Sequence[Any]) -> list[Any] | None:
    """Return a pool's output sizes without windows that lie wholly in the padding at the end.

    Args:
        node: any node.
        sizes: the sizes of its first input.
        inferred: the sizes of its first output, as ONNX's shape inference gives them.

    Returns:
        The sizes, or None if there are no such windows.
    """
    if node.domain or node.op_type not in POOLS or not node_attribute(node, "ceil_mode", 0):
        return None
    rank = len(sizes) - 2
    pads, strides = (
        node_attribute(node, "pads", [0] * 2 * rank),
        node_attribute(node, "strides", [1] * rank),
    )
    found = list(inferred)
    for i in range(rank):
        size, result = sizes[2 + i], inferred[2 + i]
        known = isinstance(size, int) and isinstance(result, int)
        if known and (result - 1) * strides[i] >= size + pads[i]:
            found[2 + i] = result - 1
    return found if found != list(inferred) else None


def node_attribute(node: ir.Node, name: str, default: Any) -> Any:
    found = node.attributes.get(name)
    return default if found is None else found.value
