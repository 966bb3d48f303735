"""The float twin of a quantised network: it saturates as the network does, but rounds nothing.

A straight-through gradient is the exact gradient of the float twin, so finite differences can check
it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from ..graph.quantised_values import (
    INTEGER,
    LINEAR,
    along,
    attributes_of,
    dequantised,
    integer_inputs,
    interval,
    is_quantised,
    real_result,
)
from ..graph.term import Builder, Term

__all__ = ["FloatTwin"]


class FloatTwin:
    """Writes nodes of a quantised network without their rounding.

    Values that are integers in the network become floats. Their terms still record the network's
    type.
    """

    def __init__(self, graph: Builder) -> None:
        self._graph = graph
        self._floats: set[ir.Value] = set()

    def write(
        self, node: ir.Node, inputs: Sequence[Term | None], declared: Sequence[Term]
    ) -> list[Term] | None:
        """Add the replacement of a node and return its results, or None if it needs none.

        Args:
            node: a node of the network.
            inputs: the terms that it reads in this graph.
            declared: terms with the type and shape of its results in the network.
        """
        quantised = is_quantised(node) and any(t is not None and t.const is None for t in inputs)
        if quantised:
            first, *others = self._rewrite(node, inputs, declared)
        elif node.op_type == "Cast" and inputs[0] is not None and self._is_float(inputs[0]):
            first, others = _cast(inputs[0], declared[0]), []
        else:
            return None
        found = Term(self._graph, first.value, declared[0].dtype, declared[0].shape)
        if _is_whole(found):
            self._floats.add(found.value)
        return [found, *others]

    def _rewrite(
        self, node: ir.Node, inputs: Sequence[Term | None], declared: Sequence[Term]
    ) -> list[Term]:
        key, attributes, result = (node.domain, node.op_type), attributes_of(node), declared[0]
        if form := LINEAR.get(key):
            real, _ = real_result(self._graph, form, inputs, attributes, result.shape)
            places = [form.output, form.output + 1]
            scale, zero = (inputs[i] if i < len(inputs) else None for i in places)
            return [real if scale is None else _unrounded(real, result, scale, zero)]
        if op_type := INTEGER.get(key):
            reals = integer_inputs(op_type, inputs)
            return [_op(self._graph, op_type, reals, result, attributes)]
        if node.op_type == "DynamicQuantizeLinear":
            return self._dynamic(node, inputs, declared)
        x, scale, zero = [*inputs, None][:3]
        axis, block = attributes.get("axis", 1), attributes.get("block_size", 0)
        if x is None or scale is None:
            raise TypeError(f"{node.name}: expected a tensor and its scale")
        if node.op_type == "DequantizeLinear":
            return [dequantised(x, scale, zero, axis, block)]
        return [_unrounded(x, result, scale, zero, axis, block)]

    def _dynamic(
        self, node: ir.Node, inputs: Sequence[Term | None], declared: Sequence[Term]
    ) -> list[Term]:
        outputs = [ir.Value(name=self._graph.unique(f"twin_{i}")) for i in range(3)]
        values = [None if t is None else t.value for t in inputs]
        self._graph.add(ir.Node("", node.op_type, values, outputs=outputs))
        scale, zero = (
            Term(self._graph, value, np.dtype(dtype), ())
            for value, dtype in zip(outputs[1:], (np.float32, np.uint8), strict=True)
        )
        x = inputs[0]
        if x is None:
            raise TypeError(f"{node.name}: expected a tensor")
        return [x / scale + zero.cast(np.float32), *[scale, zero][: len(declared) - 1]]

    def adapt_inputs(self, inputs: Sequence[Term | None]) -> list[Term | None]:
        """Return the inputs of an unchanged node, with constants beside floats made float."""
        kinds = {t.dtype for t in inputs if t is not None and self._is_float(t)}
        found: list[Term | None] = []
        for term in inputs:
            if term is not None and term.const is not None and term.dtype in kinds:
                term = self._graph.constant(term.const.astype(np.float32))
            found.append(term)
        return found

    def mark_floats(self, inputs: Sequence[Term | None], outputs: Sequence[Term]) -> None:
        """Record that the outputs of an unchanged node are floats if its inputs are."""
        kinds = {t.dtype for t in inputs if t is not None and self._is_float(t)}
        self._floats.update(t.value for t in outputs if t.dtype in kinds)

    def _is_float(self, term: Term) -> bool:
        return term.value in self._floats


def _unrounded(
    x: Term, result: Term, scale: Term, zero: Term | None, axis: int = 1, block: int = 0
) -> Term:
    if result.dtype is None:
        raise TypeError("a quantiser's type is not known")
    kind = ir.DataType.from_numpy(result.dtype)
    low, high = interval(kind, x, scale, zero, axis, block)
    inside = x.maximum(low).minimum(high) / along(scale, x, axis, block)
    return inside if zero is None else inside + along(zero, x, axis, block).cast(x.dtype)


def _cast(x: Term, result: Term) -> Term:
    if _is_whole(result):
        return x
    return x.graph.op(
        "Cast", x, to=int(ir.DataType.from_numpy(result.dtype or np.dtype(np.float32)))
    )


def _op(
    graph: Builder, op_type: str, inputs: list[Term], result: Term, attributes: dict[str, Any]
) -> Term:
    return graph.op(op_type, *inputs, dtype=inputs[0].dtype, shape=result.shape, **attributes)


def _is_whole(term: Term) -> bool:
    return term.dtype is not None and not ir.DataType.from_numpy(term.dtype).is_floating_point()
