"""Converts a float16 model to float32: the same weights, computed without float16 rounding."""

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
    """Return a copy of the model with float32 in place of float16: inputs, outputs, weights, casts.

    Its gradients neither overflow nor vanish as they may in float16. Its results differ from the
    model's own by float16 rounding.

    Raises:
        ModelError: weights are in a data file that was not loaded.
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
        raise ModelError(
            f"weight {tensor.name!r} is in a data file that was not loaded; give the model's path"
        )
    array = numpy_helper.to_array(tensor).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _graphs(attribute.g)
