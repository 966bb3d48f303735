"""Rewrites activation masks into cheaper nodes. Rules stay readable; this pass makes them fast.

A mask is 1 where an activation let its input through and 0 elsewhere. HardSigmoid, which is
max(0, min(1, alpha * x + beta)), is such a mask if alpha is so steep that the next number beyond
the bound gives 1. It passes over the memory once, where Clip, Equal and Cast pass three times. It
is also vectorised, and ONNX Runtime's Sign is not (benchmarks/README.md).
"""

import math
from itertools import count

import numpy as np
import onnx_ir as ir

from ..graph.shapes import constant
from ..graph.term import made_by
from ..model.classifier import Classifier

__all__ = ["lower_masks"]

_OTHER_FLOATS = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}
_STEEPEST = 100
"""The largest exponent of alpha. Next to a bound of 0 the next number is 2**-149, which this alpha
does not raise to 1. There the mask is exact from 2**-100 on, and it stays finite for activations up
to 2**28.
"""
_LARGEST = float(np.finfo(np.float32).max)
_SMALLEST = float(np.finfo(np.float32).smallest_normal)


def lower_masks(graph: ir.Graph, network: Classifier) -> None:
    """Rewrite the masks of Relu and Clip as HardSigmoid, in place, in loop bodies too.

    This applies to float32 networks only: the slope exceeds the range of float16, and ONNX Runtime
    has no HardSigmoid in float64.

    Args:
        graph: a finished graph, with its outputs named and unneeded nodes removed.
        network: the network that the graph differentiates.
    """
    if any(info.dtype in _OTHER_FLOATS for info in network.info.values()):
        return
    everything = list(ir.traversal.RecursiveGraphIterator(graph))
    names = {value.name for node in everything for value in (*node.inputs, *node.outputs) if value}
    for node in everything:
        masks = _of_sign(node) if node.op_type == "Sign" else _of_inside(node)
        if masks and not node.outputs[0].is_graph_output():
            _replace(node, masks, names)
    for value in list(graph.initializers.values()):
        if not value.uses():
            del graph.initializers[value.name or ""]


def _of_sign(node: ir.Node) -> list[ir.Node]:
    """Return the mask for a node Sign whose input is never negative; empty for any other node."""
    (value,) = node.inputs
    if value is None or made_by(value) != "Relu":
        return []
    return [_above(value, np.float32(0))]


def _of_inside(node: ir.Node) -> list[ir.Node]:
    """Return masks whose product is Cast(Clip(y, low, high) == y), as the rule of Clip writes."""
    if node.op_type != "Cast" or node.attributes["to"].as_int() != ir.DataType.FLOAT:
        return []
    equal = _maker(node.inputs[0], "Equal")
    clip = None if equal is None else _maker(equal.inputs[0], "Clip")
    if equal is None or clip is None or equal.inputs[1] is not clip.inputs[0]:
        return []
    y, *bounds = clip.inputs
    limits = [constant(bound) for bound in bounds]
    known = [
        bound is None or limit is not None for bound, limit in zip(bounds, limits, strict=True)
    ]
    if y is None or not all(known):
        return []
    low, high = [*limits, None, None][:2]
    return _between(y, low, high)


def _between(y: ir.Value, low: object, high: object) -> list[ir.Node]:
    """Return nodes whose product is 1 where low <= y <= high; empty if they cannot be exact."""
    nodes = []
    for limit, outwards, mask in ((low, -np.inf, _above), (high, np.inf, _below)):
        if limit is None:
            continue
        bound = np.float32(np.asarray(limit).item())
        if not abs(bound) < _LARGEST:
            return []
        beyond = np.nextafter(bound, np.float32(outwards))
        if 0 < abs(beyond) < 2.0**-_STEEPEST:
            return []
        nodes.append(mask(y, beyond))
    return nodes


def _above(y: ir.Value, bound: np.float32) -> ir.Node:
    return _mask(y, bound, _slope(bound, np.inf))


def _below(y: ir.Value, bound: np.float32) -> ir.Node:
    return _mask(y, bound, -_slope(bound, -np.inf))


def _mask(y: ir.Value, bound: np.float32, slope: float) -> ir.Node:
    # OpenVINO 2026.4 treats a beta of 0 as absent and uses the default, 0.5.
    beta = -slope * float(bound) or -_SMALLEST
    return ir.node("HardSigmoid", [y], {"alpha": slope, "beta": beta})


def _slope(bound: np.float32, inwards: float) -> float:
    """Return the slope that gives 1 at the next number. It is a power of two, so it is exact."""
    gap = abs(float(np.nextafter(bound, np.float32(inwards))) - float(bound))
    return 2.0 ** min(_STEEPEST, math.ceil(-math.log2(gap)))


def _replace(node: ir.Node, masks: list[ir.Node], names: set[str | None]) -> None:
    """Replace a node by the product of the masks, and remove nodes that only it read."""
    (old,) = node.outputs
    graph = node.graph
    assert graph is not None
    if len(masks) == 2:
        masks = [*masks, ir.node("Mul", [mask.outputs[0] for mask in masks])]
    for mask in masks:
        name = next(n for i in count() if (n := f"{old.name}_mask_{i}") not in names)
        names.add(name)
        mask.name = mask.outputs[0].name = name
    new = masks[-1].outputs[0]
    new.shape, new.type = old.shape, old.type
    graph.insert_before(node, masks)
    old.replace_all_uses_with(new)
    _remove_unread(node)


def _remove_unread(node: ir.Node | None) -> None:
    if node is None or node.graph is None:
        return
    if any(value.uses() or value.is_graph_output() for value in node.outputs):
        return
    sources = [value.producer() for value in node.inputs if value is not None]
    node.graph.remove(node, safe=True)
    for source in sources:
        _remove_unread(source)


def _maker(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """Return the node that computes a value if it has this op type, else None."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == op_type else None
