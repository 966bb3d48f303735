"""Finds the values of a network that change with the image, through which a gradient passes."""

import onnx_ir as ir

from jataug.errors import ModelError, UnsupportedOperator

from ..graph.builder import needed_nodes, reads
from ..graph.quantised_values import MICROSOFT, STRAIGHT
from ..graph.shapes import MIXED, Info
from ..rules.table import FLAT, has_rule

__all__ = ["reached_from", "require_shapes", "stopped_at", "straight_through"]

_INTEGERS = {
    ir.DataType[name]
    for name in ("INT4", "UINT4", "INT8", "UINT8", "INT16", "UINT16", "INT32", "UINT32")
}


def reached_from(image: ir.Value, nodes: list[ir.Node]) -> set[ir.Value]:
    """Return the values through which a gradient with respect to the image passes.

    They are floating point, or integers of a quantiser. Ops with a derivative of zero end them.
    """
    active = {image}
    for node in nodes:
        if (node.domain, node.op_type) in FLAT or not any(v in active for v in node.inputs):
            continue
        active.update(y for y in _moved(node, active) if y.name)
    return active


_NUMBERS_ONLY = {"Shape", "Size", "ConstantOfShape", "EyeLike"}
"""Ops that read only the shape of a value."""


def stopped_at(image: ir.Value, logits: ir.Value, nodes: list[ir.Node]) -> ir.Node | None:
    """Return the first node between image and logits whose derivative is zero.

    Return None if no path leads from the image to the logits.
    """
    active, needed = reached_from(image, nodes), {logits}
    found = None
    for node in reversed(nodes):
        if node.op_type in _NUMBERS_ONLY or not any(value in needed for value in node.outputs):
            continue
        needed.update(value for value in node.inputs if value is not None)
        if any(v in active for v in node.inputs) and not any(v in active for v in node.outputs):
            found = node
    return found


def _moved(node: ir.Node, active: set[ir.Value]) -> list[ir.Value]:
    if node.op_type == "DynamicQuantizeLinear":  # scale and zero point are treated as constants
        return list(node.outputs[:1])
    quantised = (node.domain, node.op_type) in STRAIGHT
    quantised |= any(v in active and v.dtype in _INTEGERS for v in node.inputs)
    floating = [y for y in node.outputs if y.dtype is None or y.dtype.is_floating_point()]
    return floating + [y for y in node.outputs if quantised and y.dtype in _INTEGERS]


def straight_through(image: ir.Value, logits: ir.Value, nodes: list[ir.Node]) -> list[ir.Node]:
    """Return the nodes between image and logits whose gradient is a straight-through estimate."""
    active = reached_from(image, nodes)
    return [
        node
        for node in needed_nodes(nodes, [logits])
        if (node.domain, node.op_type) in STRAIGHT and any(v in active for v in node.outputs)
    ]


def require_shapes(
    nodes: list[ir.Node], image: ir.Value, logits: ir.Value, info: dict[str, Info]
) -> None:
    """Check that every value between the image and the logits has a type and a shape.

    Raises:
        ModelError: the shape of a value cannot be inferred.
        UnsupportedOperator: the size of a value is not a multiple of the batch.
    """
    needed = {logits, *(v for node in needed_nodes(nodes, [logits]) for v in reads(node))}
    reached = {image}
    quantised = reached_from(image, nodes)
    for node in nodes:
        if not any(value in reached for value in node.inputs):
            continue
        for value in node.outputs:
            known = info.get(value.name or "")
            whole = known is not None and not known.dtype.is_floating_point()
            if whole and value not in quantised:
                continue
            reached.add(value)
            if value not in needed:
                continue
            if known is not None and MIXED in known.shape:
                raise UnsupportedOperator(
                    f"{node.op_type} (node {node.name!r}): the size of its result is not a "
                    "multiple of the batch, so it mixes images and cannot be differentiated"
                )
            if known is None or "?" in known.shape:
                if node.domain == MICROSOFT and not has_rule(node.domain, node.op_type):
                    raise UnsupportedOperator(
                        f"no derivative rule for {node.op_type} (domain {node.domain}, node "
                        f"{node.name!r}), an operator that ONNX Runtime's optimiser may have "
                        "written; use the original file, or one optimised at the level basic"
                    )
                raise ModelError(
                    f"the shape of {value.name!r} cannot be inferred ({node.op_type}, domain "
                    f"{node.domain or 'ai.onnx'}, node {node.name!r}); declare its type and shape "
                    "in the graph's value_info, with a symbolic batch"
                )
