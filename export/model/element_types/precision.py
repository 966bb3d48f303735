"""The element type that a network and its gradient are computed in, whatever the file's is.

The cotangent that a float16 network is differentiated with is not scaled up against underflow:
where an attack starts, its largest entry is about 1. On the demo model, a ResNet-18 and
EfficientNet-Lite0 at 224 no entry of the gradient that is not 0 in float32 was 0 in float16, with
or without a factor of 2**4 to 2**10, and as many signs differed; from 2**12 on the demo model's
gradients overflowed.
"""

from typing import Any, Literal, get_args

import numpy as np
import onnx
import onnx_ir as ir

from jataug.errors import BudgetError

from ..classifier import Classifier
from ..load import prepare
from .narrow import narrow
from .widen import widen

__all__ = ["Precision", "float32_ends", "float32_twin", "is_half", "precision_of", "prepare_in"]

Precision = Literal["float32", "float16", "bfloat16"]
"""An element type; warp, loss, update and state are float32 with all of them."""

_HALVES = {"float16": ir.DataType.FLOAT16, "bfloat16": ir.DataType.BFLOAT16}

_BFLOAT16_OPSET = 22
"""The first opset whose Conv, pooling and activations take bfloat16."""


def prepare_in(precision: Precision | None, proto: onnx.ModelProto, **options: Any) -> Classifier:
    """Return the folded classifier with its floating-point values in `precision`.

    Args:
        precision: None for the model's own types.
        proto: the model; it is not changed.
        options: as of `prepare`.

    Raises:
        BudgetError: there is no such precision, or it does not go with weights as inputs.
        ModelError: as `prepare`; a weight lies outside the range of the type.
        UnsupportedOperator: a node cannot be computed in the type; the message names it.
    """
    if precision is not None and precision not in get_args(Precision):
        raise BudgetError(
            f"precision: expected one of {', '.join(get_args(Precision))}, got {precision!r}"
        )
    half = None if precision is None else _HALVES.get(precision)
    if half is None:
        return prepare(proto if precision is None else widen(proto), **options)
    if options.get("weights"):
        raise BudgetError(f"precision {precision!r}: expected none with weights 'input'")
    if half == ir.DataType.BFLOAT16:
        options["opset"] = _BFLOAT16_OPSET
    return narrow(prepare(widen(proto), **options), half)


def is_half(network: Classifier) -> bool:
    """Tell whether a network's gradient is computed in 16 bits."""
    return network.logits.dtype in _HALVES.values()


def precision_of(network: Classifier) -> str:
    """Return the type of the logits: a Precision, or float64."""
    return np.dtype(network.info[network.logits.name or ""].dtype.numpy()).name


def float32_twin(network: Classifier, proto: onnx.ModelProto, **options: Any) -> Classifier | None:
    """Return the same network in float32, for one of 16 bits; None for any other, and where it
    cannot stand for the network: quantised, or with weights as inputs.
    """
    if not is_half(network) or network.straight_through or network.weights:
        return None
    return prepare_in("float32", proto, **options)


def float32_ends(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose inputs and outputs of 16 bits are float32, cast inside: numpy has no
    bfloat16.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    before: list[onnx.NodeProto] = []
    after: list[onnx.NodeProto] = []
    for values, casts in ((copy.graph.input, before), (copy.graph.output, after)):
        for value in values:
            kind = value.type.tensor_type.elem_type
            if kind not in map(int, _HALVES.values()):
                continue
            inner = f"{value.name}_16_bits"
            for node in copy.graph.node:
                for names in (node.input, node.output):
                    names[:] = [inner if name == value.name else name for name in names]
            ends, to = ([value.name], [inner]), kind
            if casts is after:
                ends, to = ([inner], [value.name]), int(ir.DataType.FLOAT)
            casts.append(onnx.helper.make_node("Cast", *ends, to=to))
            value.type.tensor_type.elem_type = int(ir.DataType.FLOAT)
    nodes = [*before, *copy.graph.node, *after]
    del copy.graph.node[:], copy.graph.value_info[:]
    copy.graph.node.extend(nodes)
    return copy
