"""Converts a float32 network to float16 or bfloat16, which halves its weights and activations.

The nodes stay the same. Some operators take an input in float32 only, as their ONNX schemas say:
1. a constant there, such as the scales of a Resize, stays float32;
2. any other such input, and any such result, gets a Cast.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir

from jataug.errors import ModelError, UnsupportedOperator

from ...graph.quantised_values import is_quantised
from ...graph.shapes import Info, constant
from ..classifier import Classifier
from ..folding.fold import register

__all__ = ["narrow"]

_SINGLE = ir.DataType.FLOAT
_TYPES = ("to", "dtype", "output_dtype")
"""Attributes that name the type of a result. stash_type, the type of inner sums, stays float32."""

_SINGLE_BY_ATTRIBUTE = {("LayerNormalization", "U")}
"""Type variables of schemas that stash_type decides."""


def narrow(network: Classifier, dtype: ir.DataType) -> Classifier:
    """Return the network with its float32 values in `dtype`. Its nodes are changed in place.

    Args:
        network: its image is float32.
        dtype: FLOAT16 or BFLOAT16.

    Raises:
        ModelError: the image is of another type, or a weight lies outside the range of `dtype`.
        UnsupportedOperator: a node is quantised, is control flow, or is not an ai.onnx op.
    """
    return _Narrower(network, dtype).narrowed()


class _Narrower:
    """Converts one network to `dtype`."""

    def __init__(self, network: Classifier, dtype: ir.DataType) -> None:
        self._network, self._dtype = network, dtype
        self._info = dict(network.info)
        self._constants: dict[ir.Value, ir.Value] = {}
        self._single: set[ir.Value] = set()
        self._successors: dict[ir.Value, ir.Value] = {}

    def narrowed(self) -> Classifier:
        network = self._network
        if network.image.dtype != _SINGLE:
            raise ModelError(
                f"input {network.image.name!r} has the type {_word(network.image.dtype)}, which "
                f"--precision does not convert to {_word(self._dtype)}; leave --precision out"
            )
        for node in network.nodes:
            self._refuse(node)
        nodes = [new for node in network.nodes for new in self._node(node)]
        for value in (network.image, *(y for node in nodes for y in node.outputs)):
            if value.dtype == _SINGLE and value not in self._single:
                value.dtype = self._dtype
                if (known := self._info.get(value.name or "")) is not None:
                    self._info[value.name or ""] = Info(self._dtype, known.shape)
        return replace(
            network,
            nodes=nodes,
            info=self._info,
            logits=self._successors.get(network.logits, network.logits),
            outputs=[self._successors.get(value, value) for value in network.outputs],
        )

    def _refuse(self, node: ir.Node) -> None:
        why = None
        if is_quantised(node):
            why = "a quantised network keeps its own types"
        elif node.domain:
            why = f"jataug does not know the types of the domain {node.domain}"
        elif any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values()):
            why = "control flow keeps its own types"
        if why is not None:
            raise UnsupportedOperator(
                f"{node.op_type} (node {node.name!r}) cannot be computed in "
                f"{_word(self._dtype)}: {why}; leave --precision out"
            )

    def _node(self, node: ir.Node) -> Iterator[ir.Node]:
        """Yield the node in the new type, with the casts that it needs around it."""
        schema = onnx.defs.get_schema(node.op_type, self._network.opset)
        for i, value in enumerate(node.inputs):
            if value is None or value.dtype != _SINGLE:
                continue
            narrows = self._takes(schema, _formal(schema.inputs, i))
            if constant(value) is None:
                if not narrows:
                    cast = self._cast(value, f"{value.name}_float32_for_{node.name}")
                    node.replace_input_with(i, cast.outputs[0])
                    self._single.add(cast.outputs[0])
                    yield cast
            elif narrows:
                node.replace_input_with(i, self._constant(value))
        single = [
            value
            for i, value in enumerate(node.outputs)
            if value.name
            and value.dtype == _SINGLE
            and not self._takes(schema, _formal(schema.outputs, i))
        ]
        if not single:
            self._set_types(node)
        yield node
        for value in single:
            yield self._after(value)

    def _takes(self, schema: onnx.defs.OpSchema, formal: str) -> bool:
        """Return whether a type variable of an op's schema allows the new type."""
        if (schema.name, formal) in _SINGLE_BY_ATTRIBUTE:
            return False
        known = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
        return f"tensor({_word(self._dtype)})" in known.get(formal, [formal])

    def _set_types(self, node: ir.Node) -> None:
        for name, attribute in list(node.attributes.items()):
            if name in _TYPES and attribute.value == int(_SINGLE):
                node.attributes[name] = ir.AttrInt64(name, int(self._dtype))
            elif attribute.type == ir.AttributeType.TENSOR:
                tensor = attribute.as_tensor()
                if tensor.dtype == _SINGLE:
                    array = self._rounded(tensor.numpy(), node.name or node.op_type)
                    node.attributes[name] = ir.AttrTensor(name, ir.Tensor(array))

    def _constant(self, value: ir.Value) -> ir.Value:
        if value not in self._constants:
            array, graph = constant(value), value.graph
            assert array is not None
            assert graph is not None
            name = value.name or "weight"
            rounded = self._rounded(array, name)
            self._constants[value] = register(graph, f"{name}_{_word(self._dtype)}", rounded)
        return self._constants[value]

    def _rounded(self, array: np.ndarray, name: str) -> np.ndarray:
        with np.errstate(over="ignore"):
            rounded = array.astype(self._dtype.numpy())
        if (np.isinf(rounded) & np.isfinite(array)).any():
            largest = float(np.abs(array[np.isfinite(array)]).max())
            raise ModelError(
                f"{name}: {largest:g} lies outside the range of {_word(self._dtype)}; use another "
                "--precision"
            )
        return rounded

    def _cast(self, value: ir.Value, name: str, dtype: ir.DataType = _SINGLE) -> ir.Node:
        node = ir.node("Cast", [value], {"to": int(dtype)}, name=name)
        result = node.outputs[0]
        result.name, result.dtype, result.shape = name, _SINGLE, value.shape
        if (known := self._info.get(value.name or "")) is not None:
            self._info[name] = known
        return node

    def _after(self, value: ir.Value) -> ir.Node:
        """Return the cast after a result that stays float32. It takes over name and readers."""
        name = value.name or ""
        cast = self._cast(value, f"{name}_cast", self._dtype)
        result = cast.outputs[0]
        value.name = f"{name}_float32"
        self._info[value.name] = self._info[name]
        result.name = name
        for use in list(value.uses()):
            if use.node is not cast:
                use.node.replace_input_with(use.idx, result)
        self._single.add(value)
        self._successors[value] = result
        return cast


def _formal(formals: "Sequence[onnx.defs.OpSchema.FormalParameter]", i: int) -> str:
    # The last formal parameter may be variadic.
    return str(formals[min(i, len(formals) - 1)].type_str)


def _word(dtype: ir.DataType | None) -> str:
    """Return a type as schemas spell it."""
    if dtype is None:
        return "no type"
    return {ir.DataType.FLOAT: "float32"}.get(dtype, dtype.name.lower())
