"""An image's logits follow from that image alone: from no random number, and from no other image of
its batch. The graph decides it, so that no effect is too small to be noticed.
"""

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from jataug.errors import UnsupportedOperator

from ..graph.builder import Shape, needed_nodes, reads
from ..graph.shapes import Info, constant, is_random

__all__ = ["find_mixing", "refuse_random"]

_DATALESS = {"EyeLike", "Shape", "Size"}
"""What these give depends on a shape alone."""

_ALONG = {
    "CumSum": None,
    "Hardmax": -1,
    "LogSoftmax": -1,
    "LpNormalization": -1,
    "Softmax": -1,
    "TopK": -1,
}
"""Ops that mix the entries along an axis, and its default; None: it is the second input."""

_FROM = {"LayerNormalization", "RMSNormalization"}
"""Ops that mix the entries along an axis and all behind it; default the last."""


def refuse_random(nodes: Sequence[ir.Node], outputs: Sequence[ir.Value]) -> None:
    """Refuse nodes that draw numbers.

    Raises:
        UnsupportedOperator: the outputs need one.
    """
    for node in needed_nodes(nodes, outputs):
        if is_random(node):
            raise UnsupportedOperator(
                f"{node.op_type} (node {node.name!r}) draws random numbers: the same image would "
                "not give the same bytes; take it out of the model, or export the model in eval "
                "mode"
            )


def find_mixing(
    nodes: Sequence[ir.Node], image: ir.Value, logits: ir.Value, infos: Mapping[str, Info]
) -> str | None:
    """Return why the logits of an image depend on other images of its batch; None where no node
    says so.

    Args:
        nodes: of a graph in order.
        image: its first axis is the batch.
        logits: what the nodes compute.
        infos: shapes by name, the batch symbolic.
    """
    touched = {image}
    for node in needed_nodes(nodes, [logits]):
        sources = [v for v in reads(node) if v in touched]
        if not sources or node.op_type in _DATALESS:
            continue
        results = list(node.outputs)
        if node.op_type == "DynamicQuantizeLinear":
            results = results[:1]  # its scale is the whole batch's: survey says so
        shapes = [_shape(v, infos) for v in sources]
        if _mixes(node, infos) or (
            any(map(_has_batch, shapes)) and any(_is_fixed(v, infos) for v in results)
        ):
            return (
                f"{node.op_type} (node {node.name!r}) mixes images: the logits of one depend on "
                "the other images of its batch; a batch normalisation without running statistics "
                "(track_running_stats=False, or training mode) does that: export the model in "
                "eval mode, with them"
            )
        touched.update(results)
    return None


def _mixes(node: ir.Node, infos: Mapping[str, Info]) -> bool:
    """Tell whether a node keeps the batch axis and yet reads along it."""
    if node.domain or not node.inputs:
        return False
    shape, op_type = _shape(node.inputs[0], infos), node.op_type
    if op_type in _ALONG:
        axis = _ALONG[op_type]
        if axis is None:
            along = constant(node.inputs[1])
            return along is not None and _is_batch(shape, int(along.reshape(-1)[0]))
        return _is_batch(shape, _number(node, "axis", axis))
    if op_type in _FROM:
        return bool(shape) and _has_batch(shape[_number(node, "axis", -1) :])
    if op_type == "MatMul":
        return len(shape) > 1 and _is_batch(shape, -1)
    if op_type == "Gemm":
        return _is_batch(shape, 0 if _number(node, "transA", 0) else 1)
    if op_type == "Slice" and len(node.inputs) > 4:
        axes, steps = (constant(v) for v in node.inputs[3:5])
        if axes is None or steps is None:
            return False
        pairs = zip(axes.tolist(), steps.tolist(), strict=True)
        return any(step != 1 and _is_batch(shape, axis) for axis, step in pairs)
    return False


def _number(node: ir.Node, name: str, default: int) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default


def _shape(value: ir.Value | None, infos: Mapping[str, Info]) -> Shape:
    info = None if value is None else infos.get(value.name or "")
    return () if info is None else info.shape


def _is_batch(shape: Shape, axis: int) -> bool:
    return -len(shape) <= axis < len(shape) and _has_batch((shape[axis],))


def _has_batch(shape: Shape) -> bool:
    return any(isinstance(size, str) and size != "?" for size in shape)


def _is_fixed(value: ir.Value, infos: Mapping[str, Info]) -> bool:
    """Tell whether every size of a value is known and the same at every batch."""
    info = infos.get(value.name or "")
    used = bool(value.uses()) or value.is_graph_output()
    return used and info is not None and all(isinstance(size, int) for size in info.shape)
