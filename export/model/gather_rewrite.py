"""Rewrites gathers that involve the batch axis as one Gather along a static axis.

1. torch's exporter writes as_strided as a flat Gather over the whole batch.
2. It writes adaptive pooling as GatherND over the axes before the batch.
"""

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..graph.builder import Shape
from ..graph.shapes import PROBES, constant
from .folding.fold import register

__all__ = ["settle_gather", "settle_gather_nd"]

Places = NDArray[Any]


def settle_gather(
    model: ir.Model, node: ir.Node, before: Shape, after: Shape, places: list[Places | None]
) -> bool:
    """Rewrite a Gather along axis 0, in place, as one along axis 1 of (batch, entry).

    Args:
        model: the model.
        node: the Gather; its first axis holds a multiple of the batch.
        before: the shape of its data.
        after: the shape of its result.
        places: its indices at both probed batch sizes.

    Returns:
        Whether it was rewritten.
    """
    along = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    entry = _per_image(before, places) if along == 0 else None
    if entry is None or any(isinstance(size, str) for size in (*before[1:], *after[1:])):
        return False
    count = int(str(before[0]).removesuffix("N") or 1)
    apart = _inserted(model, node, "Reshape", [node.inputs[0]], [-1, count, *before[1:]], "apart")
    axis = ir.AttrInt64("axis", 1)
    picked = _inserted(model, node, "Gather", [apart], entry, "picked", axis)
    sizes = np.array([-1, *after[1:]], np.int64)
    node.op_type = "Reshape"
    node.attributes.clear()
    node.replace_input_with(0, picked)
    node.replace_input_with(1, register(model.graph, f"{node.name}_sizes", sizes))
    return True


def settle_gather_nd(model: ir.Model, node: ir.Node, before: Shape, after: Shape) -> bool:
    """Rewrite a GatherND with constant indices whose slices hold the batch, in place.

    Returns:
        Whether it was rewritten.
    """
    places = constant(node.inputs[1])
    if places is None or (
        "batch_dims" in node.attributes and node.attributes["batch_dims"].as_int()
    ):
        return False
    depth = places.shape[-1]
    sizes, rest = before[:depth], before[depth:]
    if any(isinstance(size, str) for size in sizes) or sum(isinstance(s, str) for s in rest) != 1:
        return False
    outer = np.array([int(size) for size in sizes])
    index = np.where(places < 0, places + outer, places)
    flat = np.ravel_multi_index(tuple(np.moveaxis(index, -1, 0)), tuple(outer))
    merged = [int(outer.prod()), *(-1 if isinstance(size, str) else size for size in rest)]
    data = _inserted(model, node, "Reshape", [node.inputs[0]], merged, "merged")
    # The derivative rule of Gather needs the batch as the first axis.
    batch = next(i for i, size in enumerate(rest) if isinstance(size, str))
    forward = [batch + 1, 0, *(i + 1 for i in range(len(rest)) if i != batch)]
    first = _added(model, node, ir.node("Transpose", [data], {"perm": forward}), "batch_first")
    where = register(model.graph, f"{node.name}_places", flat.astype(np.int64))
    picked = _added(model, node, ir.node("Gather", [first, where], {"axis": 1}), "picked")
    back = [*range(1, flat.ndim + 1), *range(flat.ndim + 1, flat.ndim + len(rest))]
    back.insert(flat.ndim + batch, 0)
    node.op_type = "Transpose"
    node.attributes.clear()
    node.attributes["perm"] = ir.AttrInt64s("perm", back)
    node.resize_inputs(1)
    node.replace_input_with(0, picked)
    return True


def _per_image(before: Shape, places: list[Places | None]) -> Places | None:
    """Return the indices within one image if they are the same for every image, else None."""
    if not before or not isinstance(before[0], str) or not before[0].endswith("N"):
        return None
    count = int(before[0].removesuffix("N") or 1)
    found = []
    for batch, array in zip(PROBES, places, strict=False):
        if array is None or array.ndim == 0 or array.shape[0] % batch:
            return None
        rows = array.reshape(batch, -1) - count * np.arange(batch)[:, None]
        if (rows != rows[0]).any() or rows.min() < 0 or rows.max() >= count:
            return None
        found.append(rows[0])
    same = len(found) == len(PROBES) and np.array_equal(*found)
    return found[0].astype(np.int64) if same else None


def _inserted(
    model: ir.Model,
    node: ir.Node,
    op_type: str,
    inputs: list[ir.Value | None],
    numbers: Any,
    suffix: str,
    *attributes: ir.Attr,
) -> ir.Value:
    """Add an op with a constant last input before `node`; return its result."""
    name = f"{node.name}_{suffix}_constant"
    constant = register(model.graph, name, np.array(numbers, np.int64))
    return _added(
        model, node, ir.Node("", op_type, [*inputs, constant], attributes=attributes), suffix
    )


def _added(model: ir.Model, node: ir.Node, added: ir.Node, suffix: str) -> ir.Value:
    added.name = added.outputs[0].name = f"{node.name}_{suffix}"
    model.graph.insert_before(node, added)
    return added.outputs[0]
