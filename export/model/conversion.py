"""Converts older models to a newer opset. onnx's own converter loses the meaning of Resize."""

from collections.abc import Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from jataug.errors import ModelError

__all__ = ["convert"]

_RESIZE = 11
"""From this opset on, Resize has an attribute for its coordinates. Before, there was one way."""


def convert(proto: onnx.ModelProto, opset: int, target: int) -> onnx.ModelProto:
    """Return a model of ai.onnx version `opset` at the newer version `target`.

    Raises:
        ModelError: it cannot be converted.
    """
    try:
        converted = onnx.version_converter.convert_version(proto, target)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ModelError(
            f"the model (opset {opset}) cannot be converted to {target}: {reason}"
        ) from error
    if opset < _RESIZE:
        for graph in _graphs(converted.graph):
            _pin_coordinates(graph)
    return converted


def _pin_coordinates(graph: onnx.GraphProto) -> None:
    """Write the meaning of Upsample and Resize before opset 11 as attributes.

    They read coordinates i / scale and round to the nearest entry: down when they enlarge, up when
    they reduce. onnx's converter leaves the newer default, half_pixel, which gives other numbers.
    """
    for node in graph.node:
        if node.op_type != "Resize" or node.domain:
            continue
        names = {attribute.name for attribute in node.attribute}
        if "coordinate_transformation_mode" not in names:
            mode = helper.make_attribute("coordinate_transformation_mode", "asymmetric")
            node.attribute.append(mode)
        if "nearest_mode" not in names:
            scales = _constant(graph, node.input[2]) if len(node.input) > 2 else None
            reduces = scales is not None and (scales < 1).any()
            if scales is not None and reduces and (scales > 1).any():
                raise ModelError(
                    f"Resize (node {node.name!r}) enlarges one axis and reduces another, which "
                    "rounded in two ways before opset 11; export at opset 11 or newer"
                )
            rounding = "ceil" if reduces else "floor"
            node.attribute.append(helper.make_attribute("nearest_mode", rounding))


def _constant(graph: onnx.GraphProto, name: str) -> NDArray[np.float32] | None:
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if (
            node.op_type == "Constant"
            and node.output[0] == name
            and node.attribute[0].HasField("t")
        ):
            tensors[name] = node.attribute[0].t
    return numpy_helper.to_array(tensors[name]) if name in tensors else None


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _graphs(attribute.g)
