"""GridSample and Col2Im; torch is a second oracle of the padding modes."""

import numpy as np
import pytest
import torch
from onnx import helper, numpy_helper
from torch.nn import functional as F  # noqa: N812

from jataug.errors import UnsupportedOperator
from jataug.export import differentiate

from .checking import case, check_gradient, ids, normal, on_runtime

X = (2, 3, 4, 5)


def ints(*values):
    return np.array(values, np.int64)


def grid(*shape, reach=1.6, seed=3, axes=2):
    """Places inside and outside the image; none on a kink for any of the sizes here."""
    return np.random.default_rng(seed).uniform(-reach, reach, (*shape, axes))


PADDINGS = ("zeros", "border", "reflection")
ELSEWHERE = {("GridSample", 0), ("GridSample", 1)}
CASES = [
    case("Col2Im", (1, 8, 12), ints(4, 5), ints(2, 2)),
    case("Col2Im", (2, 18, 4), ints(5, 6), ints(3, 3), strides=[2, 3]),
    case("Col2Im", (1, 6, 20), ints(4, 5), ints(2, 3), pads=[0, 1, 1, 1]),
    case("Col2Im", (1, 8, 15), ints(5, 7), ints(2, 2), dilations=[2, 2]),
    case("Col2Im", (1, 6, 4), ints(9), ints(3), strides=[2]),
]


@pytest.mark.parametrize("case", CASES, ids=ids(CASES))
def test_gradient(case):
    check_gradient(case)


OLD_NAMES = {"linear": "bilinear", "cubic": "bicubic"}
KINDS = [
    *[(mode, (2, 3, 4, 5), (2, 6, 3), opset) for mode in OLD_NAMES for opset in (16, 20, 22)],
    ("nearest", (2, 3, 4, 5), (2, 6, 3), 16),
    ("nearest", (2, 3, 4, 5), (2, 6, 3), 22),
    *[(mode, (2, 2, 3, 4, 5), (2, 2, 3, 4), 20) for mode in ("linear", "nearest")],
]


@pytest.mark.parametrize("corners", [0, 1])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(("mode", "shape", "read", "opset"), KINDS, ids=str)
def test_grid_sample_agrees_with_torch(mode, shape, read, opset, padding, corners):
    check_with_torch(mode, shape, read, opset, padding, corners)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("mode", OLD_NAMES)
def test_an_image_of_one_row(mode, padding):
    """Its corners cannot be aligned: there torch and ONNX Runtime give no number."""
    check_with_torch(mode, (1, 2, 1, 2), (1, 5, 3), 20, padding, 0)


def check_with_torch(mode, shape, read, opset, padding, corners):
    image, places = normal(*shape), grid(*read, axes=len(shape) - 2)
    images, grids = (torch.tensor(array, requires_grad=True) for array in (image, places))
    value = F.grid_sample(images, grids, OLD_NAMES.get(mode, mode), padding, bool(corners))
    cotangent = normal(*value.shape)
    value.backward(torch.tensor(cotangent))
    named = OLD_NAMES.get(mode, mode) if opset < 20 else mode
    options = {"mode": named, "padding_mode": padding, "align_corners": corners, "opset": opset}
    for active, leaf in ((0, images), (1, grids)):
        sampled = case("GridSample", image, places, active=(active,), **options)
        feeds = {f"x{active}": sampled.start.astype(np.float32)}
        feeds["grad_y"] = cotangent.astype(np.float32)
        vjp = differentiate(sampled.model(np.float32))
        assert not [node for node in vjp.graph.node if node.op_type.startswith("Scatter")]
        forward, found = on_runtime(vjp, feeds)
        np.testing.assert_allclose(forward, value.detach().numpy(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found, leaf.grad.numpy(), rtol=1e-3, atol=1e-4)


SMOOTH = [
    case("GridSample", shape, places, active=(0, 1), opset=opset, **options)
    for shape, places, opset, options in [
        (X, grid(2, 4, 3), 20, {"mode": "linear"}),
        (X, grid(2, 4, 3), 20, {"mode": "linear", "padding_mode": "border"}),
        (X, grid(2, 4, 3), 22, {"mode": "linear", "padding_mode": "reflection"}),
        (X, grid(2, 4, 3), 20, {"mode": "cubic", "align_corners": 1}),
        (X, grid(2, 4, 3), 22, {"mode": "cubic", "padding_mode": "reflection"}),
        ((1, 2, 3, 4, 5), grid(1, 2, 3, 2, axes=3), 20, {"mode": "linear"}),
        ((1, 2, 3, 4, 5), grid(1, 2, 3, 2, axes=3), 22, {"padding_mode": "border"}),
    ]
]


@pytest.mark.parametrize("case", SMOOTH, ids=ids(SMOOTH))
def test_grid_sample_agrees_with_differences(case):
    check_gradient(case)


def test_a_table_that_is_cut_into_parts(monkeypatch):
    sampled = case("GridSample", X, grid(2, 5, 3), mode="bilinear", linear=True)
    feeds = {"x0": normal(*X).astype(np.float32), "grad_y": normal(2, 3, 5, 3).astype(np.float32)}
    whole = differentiate(sampled.model(np.float32))
    monkeypatch.setattr("jataug.export.rules.sampling.ONE_HOT", 50)
    parts = differentiate(sampled.model(np.float32))
    products = [sum(n.op_type == "MatMul" for n in vjp.graph.node) for vjp in (whole, parts)]
    assert products == [1, 4]  # 3 channels of 4 rows, at 15 places, 50 at a time
    expected, found = (on_runtime(vjp, feeds)[1] for vjp in (whole, parts))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_whole_photograph_can_be_read():
    vjp = differentiate(case("GridSample", (1, 3, 224, 224), grid(1, 224, 224)).model(np.float32))
    assert sum(node.op_type == "MatMul" for node in vjp.graph.node) == 3


def test_a_batch_of_any_size():
    sampled = case("GridSample", X, grid(1, 3, 3), linear=True).model(np.float32)
    del sampled.graph.initializer[:]
    text = sampled.graph.input[0].type.tensor_type.shape
    text.dim[0].dim_param = "N"
    node = sampled.graph.node[0]
    places = grid(1, 3, 3).astype(np.float32)
    sampled.graph.initializer.extend(
        [
            numpy_helper.from_array(places[0].reshape(-1)[None], "places"),
            numpy_helper.from_array(ints(1, 2, 3), "axes"),
            numpy_helper.from_array(ints(-1, 3, 3, 2), "shape"),
        ]
    )
    before = [
        helper.make_node("ReduceSum", ["x0", "axes"], ["total"], keepdims=0),
        helper.make_node("Sign", ["total"], ["sign"]),
        helper.make_node("Abs", ["sign"], ["one"]),
        helper.make_node("Unsqueeze", ["one", "last"], ["column"]),
        helper.make_node("MatMul", ["column", "places"], ["rows"]),
        helper.make_node("Reshape", ["rows", "shape"], ["x1"]),
    ]
    sampled.graph.initializer.append(numpy_helper.from_array(ints(1), "last"))
    del sampled.graph.node[:]
    sampled.graph.node.extend([*before, node])
    vjp = differentiate(sampled)
    images, seeds = normal(5, 3, 4, 5).astype(np.float32), normal(5, 3, 3, 3).astype(np.float32)
    whole = on_runtime(vjp, {"x0": images, "grad_y": seeds})[1]
    one = on_runtime(vjp, {"x0": images[3:4], "grad_y": seeds[3:4]})[1]
    assert np.abs(one).max() > 0
    np.testing.assert_allclose(whole[3:4], one, rtol=1e-5, atol=1e-6)


def test_the_grid_of_a_nearest_reading_has_no_slope():
    vjp = differentiate(
        case("GridSample", X, grid(2, 3, 3), active=(1,), mode="nearest").model("f")
    )
    feeds = {"x1": grid(2, 3, 3).astype(np.float32), "grad_y": np.ones((2, 3, 3, 3), np.float32)}
    found = on_runtime(vjp, feeds)[1]
    assert found.shape == (2, 3, 3, 2)
    assert not found.any()


@pytest.mark.parametrize(
    ("sampled", "match"),
    [(case("GridSample", (1, 64, 2048, 2), grid(1, 128, 128)), "intermediate numbers")],
    ids=["large"],
)
def test_refusals(sampled, match):
    with pytest.raises(UnsupportedOperator, match=match):
        differentiate(sampled.model(np.float32))
