"""Exporters, heads and types: the same small classifier in many forms, its gradient the same."""

import numpy as np
import pytest
from onnx import TensorProto

from jataug.errors import ModelError
from jataug.export.model.load import prepare
from jataug.preprocessing import Preprocessing

from .files import (
    EXPECTED,
    IMAGE,
    SEED,
    WEIGHTS,
    body,
    check,
    classifier,
    gradient,
    ints,
    model,
    node,
)

# Other exporters


@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23])
def test_every_opset(opset):
    check(model(opset=opset, ir_version=8 if opset < 19 else 10))


def tensorflow(opset=9):
    """Channels last, each convolution between two Transposes, biases as Add, SAME padding."""
    nodes = [
        node("Transpose", "x", "x1", perm=[0, 3, 1, 2]),
        node("Conv", "x1 w", "c0", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Transpose", "c0", "c1", perm=[0, 2, 3, 1]),
        node("Add", "c1 b", "c"),
        node("Transpose", "c", "c2", perm=[0, 3, 1, 2]),
        node("BatchNormalization", "c2 scale shift mean var", "n2", name="dense/BiasAdd:0"),
        node("Transpose", "n2", "n", perm=[0, 2, 3, 1]),
        node("Relu", "n", "r"),
        node("Transpose", "r", "r2", perm=[0, 3, 1, 2]),
        node("MaxPool", "r2", "p2", kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER"),
        node("Transpose", "p2", "p", perm=[0, 2, 3, 1]),
        node("Transpose", "p", "p3", perm=[0, 3, 1, 2]),
        node("Reshape", "p3 s", "f"),
        node("MatMul", "f v", "m"),
        node("Add", "m u", "y"),
    ]
    return model(nodes, {"s": ints(-1, 16)}, image=["unk__1", 8, 8, 3], opset=opset)


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 17])
def test_tensorflow(opset):
    found = gradient(tensorflow(opset), np.ascontiguousarray(IMAGE.transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(found.transpose(0, 3, 1, 2), EXPECTED, rtol=1e-4, atol=1e-5)
    assert classifier(tensorflow(opset), layout="nhwc").image_shape == ("N", 8, 8, 3)


def test_caffe():
    """Batch norm beside a Scale of (1, C, 1, 1), unfolded; the last layer a convolution."""
    nodes = [
        node("Conv", "x w b", "c", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("BatchNormalization", "c ones zeros mean var", "n0"),
        node("Mul", "n0 gain", "n1"),
        node("Add", "n1 offset", "n"),
        node("Relu", "n", "r"),
        node("MaxPool", "r", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "p k u", "y"),
    ]
    extra = {
        "ones": np.ones(4, np.float32),
        "zeros": np.zeros(4, np.float32),
        "gain": WEIGHTS["scale"].reshape(1, 4, 1, 1),
        "offset": WEIGHTS["shift"].reshape(1, 4, 1, 1),
        "k": np.ascontiguousarray(WEIGHTS["v"].T.reshape(5, 4, 2, 2)),
    }
    proto = model(nodes, extra, opset=9)
    found = gradient(proto, seed=SEED.reshape(2, 5, 1, 1))
    np.testing.assert_allclose(found, EXPECTED, rtol=1e-4, atol=1e-5)
    assert classifier(proto).logits_shape == ("N", 5)


# Heads


@pytest.mark.parametrize("axes", [[1], [2], [2, 3], [1, 3]])
def test_logits_with_axes_of_size_one(axes):
    proto = model([*body(last="z"), node("Unsqueeze", "z axes", "y")], {"axes": ints(*axes)})
    assert classifier(proto).logits_shape == ("N", 5)


HEADS = {
    "Softmax": [node("Softmax", "z", "y", axis=1)],
    "Sigmoid": [node("Sigmoid", "z", "y")],
    "Softmax, Reshape": [node("Softmax", "z", "q", axis=1), node("Reshape", "q five", "y")],
    "Softmax of (N, K, 1, 1)": [
        node("Unsqueeze", "z axes", "q"),
        node("Softmax", "q", "r2", axis=1),
        node("Flatten", "r2", "y"),
    ],
    "Softmax, Identity": [node("Softmax", "z", "q", axis=-1), node("Identity", "q", "y")],
}  # fmt: skip


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("opset", [13, 18])
def test_heads_are_taken_off(head, opset):
    nodes = [*body(last="z"), *HEADS[head]]
    proto = model(nodes, {"axes": ints(2, 3), "five": ints(-1, 5)}, opset=opset)
    network = classifier(proto, outputs="probabilities")
    assert network.logits_shape == ("N", 5)
    assert "Log" not in {n.op_type for n in network.nodes}
    assert len(network.head.taken_off) >= 1
    # Only where classes may tie, the head stays beside the logits, to say which of them wins.
    kept = [n for n in network.nodes if n.op_type in ("Softmax", "Sigmoid")]
    assert len(kept) == (head == "Sigmoid")


def test_a_head_of_another_kind_gives_its_logarithm():
    nodes = [
        *body(last="z"), node("Softmax", "z", "q", axis=1), node("Mul", "z half", "z2"),
        node("Softmax", "z2", "q2", axis=1), node("Mean", "q q2", "y"),
    ]  # fmt: skip
    proto = model(nodes, {"half": np.array(0.5, np.float32)})
    network = classifier(proto, outputs="probabilities")
    assert network.nodes[-1].op_type == "Log"


def test_several_outputs():
    nodes = [*body(), node("Sigmoid", "y", "features")]
    proto = model(nodes, outputs=("features", "y"))
    with pytest.raises(ModelError, match=r"2 outputs: features.*, y.*; name the logits"):
        classifier(proto)
    assert classifier(proto, logits="y").logits.name == "y"
    check(proto, of="y")


# Types and sizes


def test_open_height_and_width():
    proto = model(image=["batch", 3, "height", "width"])
    with pytest.raises(ModelError, match="give height and width with --size"):
        classifier(proto)
    network = prepare(proto, preprocessing=Preprocessing(), size=(8, 8))
    assert network.image_shape == ("N", 3, 8, 8)
    with pytest.raises(ModelError, match=r"do not fit together"):
        prepare(proto, preprocessing=Preprocessing(), size=(16, 16))


def test_float16():
    half = {name: array.astype(np.float16) for name, array in WEIGHTS.items()}
    proto = model(weights=half, kind=TensorProto.FLOAT16)
    found = gradient(proto, IMAGE.astype(np.float16), SEED.astype(np.float16))
    assert found.dtype == np.float16
    error = np.linalg.norm(found - EXPECTED) / np.linalg.norm(EXPECTED)
    assert error < 0.01
    assert classifier(proto).logits_shape == ("N", 5)
