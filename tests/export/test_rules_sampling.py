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


def grid(*shape, reach=1.6, seed=3):
    """Places inside and outside the image; none on a kink for any of the sizes here."""
    return np.random.default_rng(seed).uniform(-reach, reach, (*shape, 2))


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


@pytest.mark.parametrize("corners", [0, 1])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_grid_sample_agrees_with_torch(mode, padding, corners):
    image, places = normal(2, 3, 4, 5), grid(2, 6, 3)
    name = {"linear": "bilinear"}.get(mode, mode)
    images, grids = (torch.tensor(array, requires_grad=True) for array in (image, places))
    read = F.grid_sample(images, grids, name, padding, bool(corners))
    cotangent = normal(*read.shape)
    read.backward(torch.tensor(cotangent))
    for active, leaf in ((0, images), (1, grids)):
        if mode == "nearest" and active == 1:
            continue
        options = {"mode": name, "padding_mode": padding, "align_corners": corners, "opset": 18}
        sampled = case("GridSample", image, places, active=(active,), **options)
        feeds = {f"x{active}": sampled.start.astype(np.float32)}
        feeds["grad_y"] = cotangent.astype(np.float32)
        vjp = differentiate(sampled.model(np.float32))
        assert not [node for node in vjp.graph.node if node.op_type.startswith("Scatter")]
        value, found = on_runtime(vjp, feeds)
        np.testing.assert_allclose(value, read.detach().numpy(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found, leaf.grad.numpy(), rtol=1e-3, atol=1e-4)


def test_the_names_of_opset_20():
    for mode in ("linear", "nearest"):
        check_gradient(
            case("GridSample", X, grid(2, 3, 3, reach=0.9), opset=20, linear=True, mode=mode)
        )


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


@pytest.mark.parametrize(
    ("sampled", "match"),
    [
        (case("GridSample", X, grid(2, 3, 3), mode="bicubic"), "bicubic"),
        (case("GridSample", (1, 1, 2, 2), grid(1, 3000, 3000)), "intermediate numbers"),
        (case("GridSample", X, grid(2, 3, 3), active=(1,), mode="nearest"), "moves nothing"),
    ],
    ids=["bicubic", "large", "nearest"],
)
def test_refusals(sampled, match):
    with pytest.raises(UnsupportedOperator, match=match):
        differentiate(sampled.model(np.float32))
