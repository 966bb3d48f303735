"""The two halves of a gradient, with what one keeps for the other in between."""

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from jataug.export.gradient.differentiate import vjp
from jataug.export.gradient.split_vjp import split_vjp
from jataug.export.model.load import prepare


def relu6():
    """A convolution that gives what it is given, and ReLU6."""
    tensors = {
        "w": np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1),
        "low": np.float32(0),
        "high": np.float32(6),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["z"]),
            helper.make_node("Clip", ["z", "low", "high"], ["a"]),
            helper.make_node("Flatten", ["a"], ["y"]),
        ],
        "relu6",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3, 2, 2])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 12])],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def run(model, feeds):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {v.name: feeds[v.name] for v in session.get_inputs()})


def test_relu6_is_told_from_its_output_as_in_the_whole():
    """At a bound the gradient is 0; the input of ReLU6 is not kept."""
    network = prepare(relu6())
    parts = split_vjp(network, None)
    assert len(parts.saved) == 1
    x = np.array([0, 6, -1, 7, 3, 5.5, 0, 6, 1e-3, 5.999, 2, 8], np.float32).reshape(1, 3, 2, 2)
    g = np.full((1, 12), 0.5, np.float32)
    logits, *saved = run(parts.forward, {"image": x})
    feeds = dict(zip(parts.saved, saved, strict=True)) | {"cotangent": g}
    (found,) = run(parts.backward, feeds)
    whole = run(vjp(network), {"x": x, "grad_y": g})
    np.testing.assert_array_equal(logits, whole[0])
    np.testing.assert_array_equal(found, whole[1])
    inside = (x > 0) & (x < 6)
    np.testing.assert_array_equal(found, inside * np.float32(0.5))
