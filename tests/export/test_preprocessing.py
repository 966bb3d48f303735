"""What the artifact does to an image before the network and to the output after it."""

import numpy as np
import pytest
from onnx import helper, numpy_helper

from jataug import AttackConfig, FlowBudget, PixelBudget, Session
from jataug.export import export_attack
from jataug.preprocessing import Preprocessing

CONFIG = AttackConfig(flow=FlowBudget(0.4), pixel=PixelBudget("8/255"), steps=1)
WEIGHT = np.random.default_rng(1).standard_normal((108, 4)).astype(np.float32) / 10
IMAGES = np.random.default_rng(0).random((3, 3, 6, 6)).astype(np.float32)


def model(*tail, layout="nchw", sizes=(6, 6), shape=("batch", 4), outputs=("y",), **weights):
    """Logits "l" = flat(image) @ WEIGHT, then the nodes in `tail`."""
    height, width = sizes
    image = ["batch", 3, height, width] if layout == "nchw" else ["batch", height, width, 3]
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y" if not tail else "l"]),
        *tail,
    ]
    arrays = {"w": WEIGHT, **weights}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", 1, image)],
        [helper.make_tensor_value_info(name, 1, shape) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    opsets = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def exported(proto, path, preprocessing, **options):
    export_attack(proto, CONFIG, path, preprocessing=preprocessing, **options)
    with Session.open(path, device="cpu") as session:
        return session.predict(IMAGES), session.attack(IMAGES, [0, 1, 2])


def per_channel(*values):
    return np.reshape(values, (1, -1, 1, 1))


MEAN, STD = (0.48, 0.45, 0.41), (0.23, 0.22, 0.25)
OPTIONS = {
    "none": ({}, lambda x: x),
    "mean and std": (
        {"mean": MEAN, "std": STD},
        lambda x: (x - per_channel(*MEAN)) / per_channel(*STD),
    ),
    "one number": ({"mean": 0.5, "std": 0.5}, lambda x: 2 * x - 1),
    "scale": (
        {"scale": 255, "mean": 127.0, "std": 128.0},
        lambda x: (255 * x - 127) / 128,
    ),
    "bgr": ({"channels": "bgr"}, lambda x: x[:, ::-1]),
    "bgr, means in rgb order": (
        {"channels": "bgr", "mean": MEAN},
        lambda x: (x - per_channel(*MEAN))[:, ::-1],
    ),
    "nhwc": ({"layout": "nhwc"}, lambda x: x.transpose(0, 2, 3, 1)),
    "everything": (
        {"layout": "nhwc", "channels": "bgr", "mean": MEAN, "std": STD, "scale": 2},
        lambda x: ((2 * x - per_channel(*MEAN)) / per_channel(*STD))[:, ::-1].transpose(0, 2, 3, 1),
    ),
}


@pytest.mark.parametrize(("options", "by_hand"), OPTIONS.values(), ids=OPTIONS)
def test_logits_and_gradient_are_those_of_preprocessing_by_hand(tmp_path, options, by_hand):
    layout = options.get("layout", "nchw")
    logits, result = exported(model(layout=layout), tmp_path / "a.onnx", Preprocessing(**options))
    flat = by_hand(IMAGES.astype(np.float64)).reshape(3, -1)
    np.testing.assert_allclose(logits, flat @ WEIGHT, rtol=1e-4, atol=1e-4)
    assert result.adversarial.shape == IMAGES.shape
    assert (result.loss > -np.inf).all()


def test_the_attack_ascends_through_the_preprocessing(tmp_path):
    """A linear model, pixels alone: the step is the sign of the weights as the image sees them."""
    options, by_hand = OPTIONS["everything"]
    config = CONFIG.replace(flow=FlowBudget(0), pixel_objective="margin", start="zero")
    export_attack(
        model(layout="nhwc"), config, tmp_path / "a.onnx", preprocessing=Preprocessing(**options)
    )
    grey = np.full_like(IMAGES, 0.5)
    with Session.open(tmp_path / "a.onnx", device="cpu") as session:
        found = session.attack(grey, [0, 1, 2], targets=[1, 2, 3])
    basis = np.eye(108).reshape(108, 3, 6, 6)
    moved = by_hand(basis) - by_hand(np.zeros((1, 3, 6, 6)))
    slope = moved.reshape(108, -1) @ WEIGHT
    for i in range(3):
        uphill = np.sign(slope[:, i + 1] - slope[:, i]).reshape(3, 6, 6)
        np.testing.assert_allclose(found.delta[i], uphill * 8 / 255, atol=1e-6)


def test_a_size_for_a_model_that_leaves_it_open(tmp_path):
    open_size = model(sizes=("height", "width"))
    logits, _ = exported(open_size, tmp_path / "a.onnx", None, size=(6, 6))
    np.testing.assert_allclose(logits, IMAGES.reshape(3, -1) @ WEIGHT, rtol=1e-4, atol=1e-5)


EXPECTED = IMAGES.reshape(3, -1) @ WEIGHT
SOFTMAX = np.exp(EXPECTED) / np.exp(EXPECTED).sum(1, keepdims=True)
PROBABLE = Preprocessing(outputs="probabilities")


def test_probabilities_of_a_softmax_are_taken_back_to_logits(tmp_path):
    proto = model(helper.make_node("Softmax", ["l"], ["y"]))
    logits, _ = exported(proto, tmp_path / "a.onnx", PROBABLE)
    np.testing.assert_allclose(logits, EXPECTED, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", ["by hand", "sigmoid"])
def test_probabilities_by_hand_are_taken_back_to_logits(tmp_path, head):
    if head == "sigmoid":
        tail = [
            helper.make_node("Sigmoid", ["l"], ["s"]),
            helper.make_node("ReduceSum", ["s", "one"], ["total"]),
            helper.make_node("Div", ["s", "total"], ["y"]),
        ]
    else:
        tail = [
            helper.make_node("Exp", ["l"], ["e"]),
            helper.make_node("ReduceSum", ["e", "one"], ["total"]),
            helper.make_node("Div", ["e", "total"], ["y"]),
        ]
    logits, result = exported(model(*tail, one=np.array([1])), tmp_path / "a.onnx", PROBABLE)
    np.testing.assert_allclose(logits, EXPECTED, rtol=1e-4, atol=1e-4)
    assert not result.failed.any()


def test_other_probabilities_become_their_logarithm(tmp_path):
    tail = [
        helper.make_node("Softmax", ["l"], ["q"]),
        helper.make_node("Neg", ["l"], ["m"]),
        helper.make_node("Softmax", ["m"], ["r"]),
        helper.make_node("Mean", ["q", "r"], ["y"]),
    ]
    other = np.exp(-EXPECTED) / np.exp(-EXPECTED).sum(1, keepdims=True)
    logits, result = exported(model(*tail), tmp_path / "a.onnx", PROBABLE)
    np.testing.assert_allclose(logits, np.log((SOFTMAX + other) / 2), rtol=1e-4, atol=1e-4)
    assert not result.failed.any()


def test_logits_by_name(tmp_path):
    tail = [helper.make_node("Softmax", ["l"], ["y"]), helper.make_node("Identity", ["l"], ["z"])]
    for name, expected in (("l", EXPECTED), ("z", EXPECTED), ("y", SOFTMAX)):
        proto = model(*tail, outputs=("y", "z"))
        logits, _ = exported(
            proto, tmp_path / "a.onnx", Preprocessing(logits=name, outputs="logits")
        )
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("trailing", [(1,), (1, 1)])
def test_trailing_axes_of_size_one_are_dropped(tmp_path, trailing):
    tail = helper.make_node("Reshape", ["l", "sizes"], ["y"])
    proto = model(tail, shape=("batch", 4, *trailing), sizes=(6, 6), **{})
    proto.graph.initializer.append(numpy_helper.from_array(np.array([-1, 4, *trailing]), "sizes"))
    logits, _ = exported(proto, tmp_path / "a.onnx", None)
    np.testing.assert_allclose(logits, EXPECTED, rtol=1e-4, atol=1e-5)


WRONG = {
    "std below zero": ({"std": (0.5, -0.5, 0.5)}, "expected a std above 0"),
    "no float32": ({"scale": 1e39}, "expected finite numbers"),
    "std zero": ({"std": 0.0}, "expected a std above 0"),
    "scale zero": ({"scale": 0}, "a scale other than 0"),
    "mean NaN": ({"mean": float("nan")}, "mean: expected finite numbers"),
    "mean a word": ({"mean": "half"}, "mean: expected numbers"),
    "no mean": ({"mean": ()}, "mean"),
    "layout": ({"layout": "chwn"}, "layout: expected nchw or nhwc, got 'chwn'"),
    "channels": ({"channels": "RGB"}, "channels: expected rgb or bgr"),
    "outputs": ({"outputs": "scores"}, "outputs: expected logits or probabilities"),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing(**options)


def test_options_survive_the_manifest():
    options, _ = OPTIONS["everything"]
    preprocessing = Preprocessing(**options, logits="l")
    assert Preprocessing.from_dict(preprocessing.to_dict()) == preprocessing
