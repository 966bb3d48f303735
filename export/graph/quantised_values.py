"""Quantised ops: the float op that each one approximates, and the real values of its integers.

The integer q represents (q - zero_point) * scale. A quantiser rounds x / scale + zero_point, ties
to even, and saturates at the ends of its type. It represents x if x rounds to an integer of the
type.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from jataug.errors import UnsupportedOperator

from .term import Builder, Term

__all__ = [
    "INTEGER",
    "LINEAR",
    "MICROSOFT",
    "QUANTISERS",
    "STRAIGHT",
    "Linear",
    "along",
    "attributes_of",
    "dequantised",
    "float_node",
    "integer_inputs",
    "interval",
    "is_quantised",
    "real_result",
]

MICROSOFT = "com.microsoft"
Array = NDArray[Any]
Op = tuple[str, str]


@dataclass(frozen=True)
class Linear:
    """A float op between dequantised inputs and a quantised result.

    Attributes:
        op_type: the float op, of ai.onnx.
        inputs: the positions of the tensors; a scale and a zero point follow each. None: every
            third input, from the third on.
        output: the position of the result's scale; its zero point follows.
        bias: the position of a 32-bit bias, whose scale is the product of the inputs' scales.
        axis: the axis of output channels of the second tensor; each may have its own scale.
        extra: attributes that the float op does not have, with the only supported value.
    """

    op_type: str
    inputs: tuple[int, ...] | None
    output: int
    bias: int | None = None
    axis: int = 0
    extra: tuple[tuple[str, int], ...] = ()

    def plain(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """Return the attributes that the float op takes."""
        return {k: v for k, v in attributes.items() if k not in dict(self.extra)}

    def places(self, count: int) -> tuple[int, ...]:
        """Return the positions of the tensors among `count` inputs."""
        return tuple(range(2, count, 3)) if self.inputs is None else self.inputs


LINEAR: dict[Op, Linear] = {
    ("", "QLinearConv"): Linear("Conv", (0, 3), 6, 8),
    ("", "QLinearMatMul"): Linear("MatMul", (0, 3), 6, axis=-1),
    (MICROSOFT, "QGemm"): Linear("Gemm", (0, 3), 7, 6, axis=1),
    (MICROSOFT, "QLinearAdd"): Linear("Add", (0, 3), 6),
    (MICROSOFT, "QLinearAveragePool"): Linear(
        "AveragePool", (0,), 3, extra=(("channels_last", 0),)
    ),
    (MICROSOFT, "QLinearConcat"): Linear("Concat", None, 0),
    (MICROSOFT, "QLinearGlobalAveragePool"): Linear(
        "GlobalAveragePool", (0,), 3, extra=(("channels_last", 0),)
    ),
    (MICROSOFT, "QLinearLeakyRelu"): Linear("LeakyRelu", (0,), 3),
    (MICROSOFT, "QLinearMul"): Linear("Mul", (0, 3), 6),
    (MICROSOFT, "QLinearSigmoid"): Linear("Sigmoid", (0,), 3),
}

INTEGER: dict[Op, str] = {("", "ConvInteger"): "Conv", ("", "MatMulInteger"): "MatMul"}
"""Products of integers without rescaling, and the float op of each."""

QUANTISERS: frozenset[Op] = frozenset(
    {("", "QuantizeLinear"), (MICROSOFT, "QuantizeLinear"), ("", "DynamicQuantizeLinear")}
)

_DEQUANTISERS = {("", "DequantizeLinear"), (MICROSOFT, "DequantizeLinear")}

STRAIGHT: frozenset[Op] = frozenset({*QUANTISERS, *LINEAR, *INTEGER})
"""Ops with an integer result whose derivative is straight-through: it ignores the rounding."""


def float_node(node: ir.Node, proto: onnx.NodeProto) -> tuple[onnx.NodeProto | None, str] | None:
    """Return how to infer type and shape of an op of a runtime's own domain; None for other ops.

    Returns:
        A float op with the same shape (None: the shape is that of the first input), and the name
        of a value that has the type of the result.
    """
    if node.domain != MICROSOFT:
        return None
    form = LINEAR.get((node.domain, node.op_type))
    if form is None:
        places = {"QuantizeLinear": 2, "DequantizeLinear": 1}
        i = places.get(node.op_type)
        return None if i is None or i >= len(proto.input) else (None, proto.input[i])
    alone = onnx.NodeProto(op_type=form.op_type, output=proto.output[:1])
    alone.input.extend(proto.input[i] for i in form.places(len(proto.input)))
    alone.attribute.extend(a for a in proto.attribute if a.name not in dict(form.extra))
    typed = [i for i in (form.output + 1, form.output) if i < len(proto.input) and proto.input[i]]
    last = form.output >= len(proto.input)
    return alone, proto.input[1] if last else proto.input[typed[0]]


def is_quantised(node: ir.Node) -> bool:
    """Return whether a node's op is defined on quantised numbers."""
    return (node.domain, node.op_type) in STRAIGHT | _DEQUANTISERS


def attributes_of(node: ir.Node) -> dict[str, Any]:
    """Return a node's attributes as plain values."""
    strings = ir.AttributeType.STRING
    found = node.attributes.items()
    return {name: a.as_string() if a.type == strings else a.value for name, a in found}


def along(numbers: Term, like: Term, axis: int, block: int = 0) -> Term:
    """Return a scale or zero point in a shape that broadcasts against `like`.

    Args:
        numbers: one number, one for each entry along `axis`, or one for each block of them.
        like: the tensor.
        axis: of `like`.
        block: how many entries share a number, where numbers has the rank of `like`; else 0.
    """
    rank, size = len(like.shape or ()), len(numbers.shape or ())
    if size == rank > 1 or block:
        return _repeated(numbers, axis, block)
    if size == 0 or rank == 0 or numbers.shape == (1,):
        return numbers.reshape(())
    axis %= rank
    return numbers.reshape((*[1] * axis, *(numbers.shape or ()), *[1] * (rank - axis - 1)))


def _repeated(numbers: Term, axis: int, block: int) -> Term:
    if block <= 0:
        return numbers
    if numbers.const is None:
        raise UnsupportedOperator(
            f"{numbers.value.name}: block-wise scales need to be constant to have a derivative"
        )
    return numbers.graph.derived(
        numbers, f"blocks_{axis}_{block}", lambda s: np.repeat(s, block, axis)
    )


def dequantised(
    q: Term, scale: Term, zero_point: Term | None, axis: int = 1, block: int = 0
) -> Term:
    """Return (q - zero_point) * scale; it is a constant if the inputs are."""
    s = along(scale, q, axis, block)
    zero = None if zero_point is None else along(zero_point, q, axis, block)
    terms = (s,) if zero is None else (s, zero)
    if q.const is not None and all(term.const is not None for term in terms):
        return q.graph.derived(q, "dequantised", _dequantise, *terms)
    real = q.cast(scale.dtype)
    return (real if zero is None else real - zero.cast(scale.dtype)) * s


def _dequantise(q: Array, scale: Array, zero: Array | int = 0) -> Array:
    whole = q.astype(np.int64) - np.asarray(zero, np.int64)
    return (whole * scale).astype(scale.dtype)


def interval(
    dtype: ir.DataType, x: Term, scale: Term, zero_point: Term | None, axis: int, block: int = 0
) -> tuple[Term, Term]:
    """Return the ends of the interval that a quantiser represents without saturation.

    They lie half a step beyond the least and the largest integer of the type.

    Raises:
        UnsupportedOperator: the type is not an integer type.
    """
    if dtype.is_floating_point():
        raise UnsupportedOperator(
            f"{x.value.name}: quantised to {dtype}; only integer types have a straight-through "
            "derivative"
        )
    bits, signed = int(dtype.bitwidth), not dtype.name.startswith("U")
    least = -(2 ** (bits - 1)) if signed else 0
    s = along(scale, x, axis, block)
    zero = s.graph.constant(0, np.int32)
    zero = zero if zero_point is None else along(zero_point, x, axis, block)
    ends = (least - 0.5, least + 2**bits - 0.5)
    low, high = (_reals(end, s, zero) for end in ends)
    return low, high


def _reals(end: float, s: Term, zero: Term) -> Term:
    if s.const is not None and zero.const is not None:
        return s.graph.constant((end - zero.const.astype(np.float64)) * s.const, s.dtype)
    return (zero.cast(s.dtype) * -1.0 + end) * s


def real_result(
    graph: Builder,
    form: Linear,
    inputs: Sequence[Term | None],
    attributes: Mapping[str, Any],
    shape: Any,
) -> tuple[Term, list[Term]]:
    """Return a QLinear op's result before quantisation, and the inputs of its float op.

    Raises:
        UnsupportedOperator: an attribute has an unsupported value.
    """
    for name, known in form.extra:
        if attributes.get(name, known) != known:
            raise UnsupportedOperator(
                f"{form.op_type} of quantised numbers: {name}={attributes[name]} has no derivative "
                "rule"
            )
    reals = []
    for number, i in enumerate(form.places(len(inputs))):
        axis = 0 if attributes.get("transB") else form.axis
        axis = axis if number else 1
        q, scale = _given(inputs[i]), _given(inputs[i + 1])
        reals.append(dequantised(q, scale, inputs[i + 2], axis))
    bias = None if form.bias is None or form.bias >= len(inputs) else inputs[form.bias]
    if bias is not None:
        first, second = (_given(inputs[i + 1]) for i in form.places(len(inputs)))
        reals.append(_bias(bias, first, second, attributes.get("alpha", 1.0)))
    plain, dtype = form.plain(attributes), reals[0].dtype
    return graph.op(form.op_type, *reals, dtype=dtype, shape=shape, **plain), reals


def integer_inputs(op_type: str, inputs: Sequence[Term | None]) -> list[Term]:
    """Return the two tensors of an integer product, minus their zero points, as float32."""
    padded = [*inputs, None, None][:4]
    axes = (1, 0) if op_type == "Conv" else (-2, -1)
    reals = []
    for q, zero, axis in zip(map(_given, padded[:2]), padded[2:], axes, strict=True):
        one = q.graph.constant(1.0, np.float32)
        reals.append(dequantised(q, one, zero, axis))
    return reals


def _bias(bias: Term, first: Term, second: Term, alpha: float) -> Term:
    if bias.const is None or first.const is None or second.const is None:
        return bias.cast(first.dtype) * (first.reshape(()) * second * alpha)

    def dequantise(b: Array, scale: Array, others: Array) -> Array:
        factor = scale.reshape(()) * others * alpha
        return (b * factor).astype(factor.dtype)

    return bias.graph.derived(bias, f"dequantised_bias_{alpha}", dequantise, first, second)


def _given(term: Term | None) -> Term:
    if term is None:
        raise UnsupportedOperator("a quantised op lacks a tensor or its scale")
    return term
