"""A float16 model as a float32 one: the same weights, computed without float16's rounding."""

from collections.abc import Iterable, Iterator

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from jataug.errors import ModelError

__all__ = ["widen"]

_HALF, _SINGLE = TensorProto.FLOAT16, TensorProto.FLOAT
_TYPES = {"to", "dtype", "output_dtype", "stash_type"}
"""Attributes that name an element type."""


def widen(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of the model in which every float16 is a float32: inputs, outputs, weights,
    casts.

    Gradients then neither overflow nor vanish in float16. The numbers differ from the model's own
    by its rounding.

    Raises:
        ModelError: weights lie outside the model and were not loaded.
    """
    wide = onnx.ModelProto()
    wide.CopyFrom(proto)
    for graph in _graphs(wide.graph):
        del graph.value_info[:]
        for value in (*graph.input, *graph.output):
            if value.type.tensor_type.elem_type == _HALF:
                value.type.tensor_type.elem_type = _SINGLE
        for tensor in graph.initializer:
            _widen_tensor(tensor)
        for sparse in graph.sparse_initializer:
            _widen_tensor(sparse.values)
        _widen_nodes(graph.node)
    for function in wide.functions:
        _widen_nodes(function.node)
    return wide


def _widen_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.name in _TYPES and attribute.i == _HALF:
                attribute.i = _SINGLE
            if attribute.HasField("t"):
                _widen_tensor(attribute.t)


def _widen_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type != _HALF:
        return
    if tensor.data_location == TensorProto.EXTERNAL:
        raise ModelError(f"{tensor.name}: its numbers lie in a file that was not loaded")
    array = numpy_helper.to_array(tensor).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _graphs(attribute.g)
