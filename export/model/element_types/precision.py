"""The element type in which a network and its gradient are computed, independent of the file's.

The cotangent of a float16 network is not scaled up against underflow, because its largest entry is
about 1 where an attack starts. On the demo model, a ResNet-18 and EfficientNet-Lite0 at 224, no
entry of the gradient that is nonzero in float32 was 0 in float16. Factors of 2**4 to 2**10 changed
neither that nor the number of differing signs. From 2**12 on, gradients of the demo model
overflowed.
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
"""The element type of network and gradient. Warp, loss, update and state are always float32."""

_HALVES = {"float16": ir.DataType.FLOAT16, "bfloat16": ir.DataType.BFLOAT16}

_BFLOAT16_OPSET = 22
"""The first opset in which Conv, pooling and activations accept bfloat16."""


def prepare_in(precision: Precision | None, proto: onnx.ModelProto, **options: Any) -> Classifier:
    """Return the folded classifier with its floating-point values in `precision`.

    Args:
        precision: None for the model's own types.
        proto: the model; it is not changed.
        options: the options of `prepare`.

    Raises:
        BudgetError: the precision is unknown, or weights are inputs.
        ModelError: see `prepare`; or a weight lies outside the range of the type.
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
        raise BudgetError(
            f"precision {precision!r} does not work with weights 'input'; leave precision out"
        )
    if half == ir.DataType.BFLOAT16:
        options["opset"] = _BFLOAT16_OPSET
    return narrow(prepare(widen(proto), **options), half)


def is_half(network: Classifier) -> bool:
    """Return whether a network's gradient is computed in 16 bits."""
    return network.logits.dtype in _HALVES.values()


def precision_of(network: Classifier) -> str:
    """Return the type of the logits: a Precision, or float64."""
    return np.dtype(network.info[network.logits.name or ""].dtype.numpy()).name


def float32_twin(network: Classifier, proto: onnx.ModelProto, **options: Any) -> Classifier | None:
    """Return the float32 version of a 16-bit network.

    Return None for other networks, for quantised ones, and for those with weights as inputs.
    """
    if not is_half(network) or network.straight_through or network.weights:
        return None
    return prepare_in("float32", proto, **options)


def float32_ends(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy with float32 in place of 16-bit inputs and outputs: numpy has no bfloat16."""
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
