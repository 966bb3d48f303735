"""Clip as a layer's activation, against torch's Hardtanh: its bounds included."""

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from jataug.export import differentiate

LEVELS = np.array([-7.0, -6.0, -1.0, 0.0, 0.5, 5.5, 6.0, 6.5])
LAYERS = {
    "Conv": ("x k", {"k": np.ones((1, 1, 1, 1))}),
    "BatchNormalization": ("x one zero zero one", {"one": np.ones(1), "zero": np.zeros(1)}),
    "Gemm": ("flat eye", {"eye": np.eye(len(LEVELS))}),
    "Identity": ("x", {}),
}
BOUNDS = [(0.0, 6.0), (-6.0, 6.0), (0.0, None), (None, 6.0)]


def model(layer, bounds, dtype):
    names, weights = LAYERS[layer]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    limits = {n: np.array(v) for n, v in zip(("min", "max"), bounds, strict=True) if v is not None}
    arrays = {name: array.astype(dtype) for name, array in {**weights, **limits}.items()}
    options = {"epsilon": 0.0} if layer == "BatchNormalization" else {}
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node(layer, names.split(), ["z"], **options),
        helper.make_node("Clip", ["z", *(n if n in limits else "" for n in ("min", "max"))], ["c"]),
        helper.make_node("Flatten", ["c"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes if layer == "Gemm" else nodes[1:],
        "relu6",
        [helper.make_tensor_value_info("x", kind, ["N", 1, 1, len(LEVELS)])],
        [helper.make_tensor_value_info("y", kind, ["N", len(LEVELS)])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def gradient(proto: onnx.ModelProto, dtype):
    x = LEVELS.astype(dtype).reshape(1, 1, 1, -1)
    feeds = {"x": x, "grad_y": np.ones((1, len(LEVELS)), dtype)}
    return ReferenceEvaluator(differentiate(proto)).run(["grad_x"], feeds)[0].ravel()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("layer", ["Conv", "BatchNormalization", "Gemm"])
def test_behind_a_layer_it_is_an_activation(layer, bounds, dtype):
    low, high = (v if v is not None else s * 100.0 for v, s in zip(bounds, (-1, 1), strict=True))
    x = torch.from_numpy(LEVELS).requires_grad_()
    torch.nn.functional.hardtanh(x, low, high).sum().backward()
    np.testing.assert_array_equal(gradient(model(layer, bounds, dtype), dtype), x.grad.numpy())


@pytest.mark.parametrize("bounds", BOUNDS)
def test_elsewhere_its_bounds_pass(bounds):
    x = torch.from_numpy(LEVELS).requires_grad_()
    torch.clamp(x, *bounds).sum().backward()
    found = gradient(model("Identity", bounds, np.float32), np.float32)
    np.testing.assert_array_equal(found, x.grad.numpy())


def test_only_the_output_is_read():
    """So that a runtime may fuse the Clip with the layer."""
    proto = differentiate(model("Conv", (0.0, 6.0), np.float32))
    (layer,) = [node for node in proto.graph.node if node.op_type == "Conv"][:1]
    assert sum(layer.output[0] in node.input for node in proto.graph.node) == 1
