"""Straight-through rules of quantised ops: they ignore rounding, but not saturation.

The cotangent of a quantised value is a float, with respect to its integers. A quantiser passes it
where x rounds to an integer of the type, and stops it where x saturates, as torch's fake_quantize
does. An op between quantised tensors is differentiated as its float op. That is computed again from
the dequantised inputs, because the graph does not hold the numbers before saturation.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir

from jataug.errors import UnsupportedOperator

from ..graph.quantised_values import (
    INTEGER,
    LINEAR,
    MICROSOFT,
    Linear,
    along,
    integer_inputs,
    interval,
    real_result,
)
from ..graph.term import Term, source_of
from . import convolution, elementwise, layout, linear, pooling  # noqa: F401  (their float ops)
from .table import Rule, add_rule, rule, rule_of


@rule("QuantizeLinear", "x")
@rule("QuantizeLinear", "x", domain=MICROSOFT)
def quantize(
    g: Term,
    Y: Term,
    x: Term,
    y_scale: Term,
    y_zero_point: Term | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
) -> Term:
    passed = _represented(g, Y, x, y_scale, y_zero_point, axis, block_size)
    return (passed / along(y_scale, x, axis, block_size).cast(passed.dtype)).cast(x.dtype)


def _represented(
    g: Term, Y: Term, x: Term, scale: Term, zero: Term | None, axis: int = 1, block: int = 0
) -> Term:
    """Return the cotangent where the quantiser represents x, and zero where it saturates."""
    low, high = interval(_type(Y), x, scale, zero, axis, block)
    # The bounds are usually constants, and one Clip reads less memory than two comparisons.
    return x.maximum(low).minimum(high).equals(x).where(g, 0.0)


def _type(Y: Term) -> ir.DataType:
    if Y.dtype is None:
        raise UnsupportedOperator(f"{Y.value.name}: its quantised type cannot be inferred")
    return ir.DataType.from_numpy(Y.dtype)


@rule("DequantizeLinear", "x")
@rule("DequantizeLinear", "x", domain=MICROSOFT)
def dequantize(
    g: Term,
    Y: Term,
    x: Term,
    x_scale: Term,
    x_zero_point: Term | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> Term:
    return (g * along(x_scale, x, axis, block_size).cast(g.dtype)).cast(np.float32)


@rule("QuantizeLinear", "y_scale")
@rule("QuantizeLinear", "y_scale", domain=MICROSOFT)
@rule("DequantizeLinear", "y_scale")
@rule("DequantizeLinear", "y_scale", domain=MICROSOFT)
def data_dependent_scale(
    g: Term,
    Y: Term,
    x: Term,
    y_scale: Term,
    y_zero_point: Term | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
) -> Term:
    raise _refused(Y)


def _refused(Y: Term) -> UnsupportedOperator:
    node = source_of(Y.value).producer()
    where = f"{Y.value.name!r}" if node is None else f"{node.op_type} (node {node.name!r})"
    return UnsupportedOperator(
        f"{where}: its scale or zero point depends on the image, and a straight-through derivative "
        "needs constant ones, or those of DynamicQuantizeLinear"
    )


@rule("DynamicQuantizeLinear", "x", every_output=True)
def dynamic_quantize(g: Sequence[Term | None], Y: Sequence[Term], x: Term) -> Term:
    # Its range is that of x, so nothing saturates. The scale's dependence on x cancels when the
    # result is scaled back, so the scale counts as a constant.
    own = g[0]
    if own is None:
        raise _refused(Y[0])
    return own / Y[1]


def _linear(
    form: Linear, g: Term, Y: Term, *inputs: Term | None, index: int, **attributes: Any
) -> Term:
    places = form.places(len(inputs))
    if index not in places:
        raise _refused(Y)
    result, reals = real_result(Y.graph, form, inputs, attributes, Y.shape)
    zero = inputs[form.output + 1] if form.output + 1 < len(inputs) else None
    scale = inputs[form.output] if form.output < len(inputs) else None
    if scale is not None:
        g = _represented(g, Y, result, scale, zero) / along(scale, result, 1)
    found = _of_float(form.op_type, places.index(index), g, result, reals, form.plain(attributes))
    own = inputs[index + 1]
    return found if own is None else found * own.reshape(())


def _integer(
    op_type: str, g: Term, Y: Term, *inputs: Term | None, index: int, **attributes: Any
) -> Term:
    if index > 1:
        raise _refused(Y)
    reals = integer_inputs(op_type, inputs)
    return _of_float(op_type, index, g, Y, reals, attributes)


def _of_float(
    op_type: str, i: int, g: Term, result: Term, reals: Sequence[Term], attributes: Any
) -> Term:
    entry = rule_of(op_type, i)
    places = {"index": i} if entry.indexed else {}
    return entry.pullback(g, result, *reals, **places, **attributes)


for (_domain, _op), _form in LINEAR.items():
    _known = rule_of(_form.op_type, 0).attributes | {name for name, _ in _form.extra}
    add_rule(_domain, _op, "*", Rule(partial(_linear, _form), _known, True, False))
for (_domain, _op), _float in INTEGER.items():
    _known = rule_of(_float, 0).attributes
    add_rule(_domain, _op, "*", Rule(partial(_integer, _float), _known, True, False))
