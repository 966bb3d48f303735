"""Pools. onnx's own evaluator pads, ceils and counts wrongly in places, so ONNX Runtime is the
oracle; torch is a second one where it has the same pool.
"""

import numpy as np
import onnx
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from jataug.errors import UnsupportedOperator
from jataug.export import differentiate

from .checking import case, check_gradient, distinct, ids, normal, on_onnx, on_runtime

WINDOWS = [
    {"kernel_shape": [2, 2], "strides": [2, 2]},
    {"kernel_shape": [3, 2]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    {"kernel_shape": [3, 3], "strides": [2, 1], "pads": [1, 0, 0, 2]},
    {"kernel_shape": [2, 2], "strides": [3, 4]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
    {"kernel_shape": [3, 3], "strides": [3, 2], "ceil_mode": 1},
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1},
    {"kernel_shape": [3, 2], "strides": [3, 2], "pads": [1, 1, 0, 0], "ceil_mode": 1},
    {"kernel_shape": [4, 3], "strides": [4, 4], "pads": [2, 1, 1, 1], "ceil_mode": 1},
    {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2]},
    {"kernel_shape": [2, 3], "auto_pad": "SAME_LOWER", "strides": [2, 2]},
    {"kernel_shape": [2, 2], "auto_pad": "SAME_LOWER"},
    {"kernel_shape": [3, 3], "auto_pad": "VALID", "strides": [2, 2]},
]
OTHER_RANKS = [
    ((2, 2, 9), {"kernel_shape": [3], "strides": [2], "pads": [0, 1]}),
    ((2, 2, 8), {"kernel_shape": [3], "strides": [2], "ceil_mode": 1}),
    ((1, 2, 4, 5, 6), {"kernel_shape": [2, 2, 3], "strides": [2, 1, 2]}),
    ((1, 1, 5, 5, 4), {"kernel_shape": [3, 2, 2], "pads": [1, 0, 1, 1, 1, 0]}),
]
SHAPES = [(2, 2, 7, 8), (1, 2, 8, 9)]
DILATED = [
    {"kernel_shape": [2, 3], "dilations": [2, 1]},
    {"kernel_shape": [2, 2], "dilations": [3, 2], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    {"kernel_shape": [2, 3], "dilations": [2, 2], "strides": [2, 2], "ceil_mode": 1},
]
POOLS = [(shape, window) for shape in SHAPES for window in WINDOWS] + OTHER_RANKS
MAXIMA = [
    case("MaxPool", distinct(*shape), linear=True, **window)
    for shape, window in [*POOLS, *((SHAPES[0], window) for window in DILATED)]
]
AVERAGES = [
    case("AveragePool", shape, linear=True, count_include_pad=include, **window)
    for include in (0, 1)
    for shape, window in POOLS
] + [
    case("AveragePool", SHAPES[0], linear=True, opset=19, count_include_pad=include, **window)
    for include in (0, 1)
    for window in DILATED
]
GLOBAL = [case("GlobalAveragePool", shape) for shape in ((2, 3, 4, 5), (2, 3, 7), (1, 2, 3, 2, 4))]
# onnx's own evaluator rounds wrongly under ceil_mode and has no GlobalLpPool: torch is the oracle
# below.
NORMS = [
    case("LpPool", SHAPES[0], p=p, **window)
    for p in (1, 2, 3)
    for window in WINDOWS
    if "ceil_mode" not in window
] + [
    case("LpPool", (2, 2, 9), kernel_shape=[3], strides=[2]),
    case("LpPool", SHAPES[0], p=4, **DILATED[0]),
    # A norm with p = 1 of positive entries is a sum. (torch scales windows that ceil_mode cuts.)
    *(
        case("LpPool", distinct(*SHAPES[0]) + 1, p=1, linear=True, **window)
        for window in WINDOWS
        if "ceil_mode" in window
    ),
]
ELSEWHERE = {("GlobalLpPool", 0), ("MaxUnpool", 0)}
PEAKS = [case("GlobalMaxPool", distinct(2, 3, 4, 5))]
CASES = [*MAXIMA, *AVERAGES, *GLOBAL, *NORMS, *PEAKS]


@pytest.mark.parametrize("case", CASES, ids=ids(CASES))
def test_gradient(case):
    check_gradient(case)


def gradient(case, cotangent):
    feeds = {"x0": case.start, "grad_y": cotangent}
    return on_onnx(differentiate(case.model(case.dtype)), feeds)[1]


def test_the_first_of_tied_maxima_takes_the_whole_cotangent():
    tied = case("MaxPool", np.zeros((1, 1, 4, 4)), kernel_shape=[2, 2], strides=[2, 2])
    found = gradient(tied, np.array([[[[1.0, 2.0], [3.0, 4.0]]]]))
    expected = np.zeros((4, 4))
    expected[::2, ::2] = [[1, 2], [3, 4]]
    np.testing.assert_array_equal(found[0, 0], expected)


def test_the_first_of_tied_global_maxima_takes_it_all():
    image = np.array([[[[1.0, 3.0], [3.0, 3.0]]]])
    found = gradient(case("GlobalMaxPool", image), np.full((1, 1, 1, 1), 5.0))
    np.testing.assert_array_equal(found[0, 0], [[0, 5], [0, 0]])


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("window", [None, {"kernel_shape": [3, 2], "strides": [2, 2]}])
def test_norms_agree_with_torch(window, p):
    image = normal(2, 3, 8, 9) * 1.0
    leaf = torch.tensor(image, requires_grad=True)
    if window is None:
        normed, pooled = (
            case("GlobalLpPool", image, p=p),
            (leaf.abs() ** p).sum((2, 3), True) ** (1 / p),
        )
    else:
        normed = case("LpPool", image, p=p, **window)
        pooled = F.lp_pool2d(leaf.abs(), p, window["kernel_shape"], window["strides"])
    cotangent = normal(*pooled.shape)
    pooled.backward(torch.tensor(cotangent))
    feeds = {"x0": image.astype(np.float32), "grad_y": cotangent.astype(np.float32)}
    found = on_runtime(differentiate(normed.model(np.float32)), feeds)[1]
    np.testing.assert_allclose(found, leaf.grad.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 7), (1, 2, 3, 4, 2)])
def test_global_maxima_of_other_ranks(shape):
    """onnx's own evaluator reduces images only."""
    check_gradient(case("GlobalMaxPool", distinct(*shape), linear=True))


@pytest.mark.parametrize("p", [1, 2, 3])
def test_a_norm_of_zeros_has_no_gradient(p):
    zeros = case("LpPool", np.zeros((1, 1, 4, 4)), kernel_shape=[2, 2], p=p)
    np.testing.assert_array_equal(gradient(zeros, normal(1, 1, 3, 3)), np.zeros((1, 1, 4, 4)))


@pytest.mark.parametrize("window", [w for w in WINDOWS if "ceil_mode" not in w])
def test_averages_need_few_nodes(window):
    vjp = differentiate(case("AveragePool", SHAPES[0], linear=True, **window).model(np.float32))
    assert len(vjp.graph.node) <= 8


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_ties_agree_with_torch(stride, padding):
    image = np.random.default_rng(0).integers(0, 3, (2, 3, 7, 8)).astype(np.float64)
    tied = case("MaxPool", image, kernel_shape=[3, 3], strides=[stride] * 2, pads=[padding] * 4)
    leaf = torch.tensor(image, requires_grad=True)
    pooled = F.max_pool2d(leaf, 3, stride, padding)
    cotangent = normal(*pooled.shape)
    pooled.backward(torch.tensor(cotangent))
    np.testing.assert_allclose(gradient(tied, cotangent), leaf.grad.numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("include", [0, 1])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, 1), (4, 3, 2), (3, 2, 0)])
def test_averages_with_ceil_agree_with_torch(kernel, stride, padding, include):
    image = normal(2, 3, 8, 9)
    averaged = case(
        "AveragePool",
        image,
        linear=True,
        kernel_shape=[kernel] * 2,
        strides=[stride] * 2,
        pads=[padding] * 4,
        ceil_mode=1,
        count_include_pad=include,
    )
    leaf = torch.tensor(image, requires_grad=True)
    pooled = F.avg_pool2d(leaf, kernel, stride, padding, True, bool(include))
    cotangent = normal(*pooled.shape)
    pooled.backward(torch.tensor(cotangent))
    found = gradient(averaged, cotangent.astype(np.float32))
    np.testing.assert_allclose(found, leaf.grad.numpy(), rtol=0, atol=1e-6)


def test_a_pool_whose_size_is_unknown_is_refused():
    unknown = case("MaxPool", distinct(1, 1, 4, 4), kernel_shape=[2, 2]).model(np.float32)
    unknown.graph.input[0].type.tensor_type.shape.dim[2].ClearField("dim_value")
    with pytest.raises(ValueError, match="height and width must be known"):
        differentiate(unknown)


UNPOOL_PLACES = np.array([[[[0, 2], [8, 15]], [[16, 19], [24, 31]]]])
EMPTY_LAST = [
    case(op_type, distinct(1, 2, *sizes), opset=opset, ceil_mode=1, **options)
    for op_type in ("MaxPool", "AveragePool", "LpPool")
    for opset in (18, 22)
    for sizes, options in [
        ((7, 7), {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
        ((4, 5), {"kernel_shape": [1, 1], "strides": [2, 2]}),
        ((5, 6), {"kernel_shape": [2, 3], "strides": [3, 2], "pads": [1, 1, 1, 1]}),
    ]
]


@pytest.mark.parametrize("case", EMPTY_LAST, ids=ids(EMPTY_LAST))
def test_a_window_of_padding_alone_is_left_out(case):
    """As ONNX Runtime, torch and onnx's evaluator do; its shape inference does from opset 22 on."""
    proto, image = case.model(np.float32), case.start.astype(np.float32)
    (expected,) = on_runtime(proto, {"x0": image})
    vjp = differentiate(proto)
    onnx.checker.check_model(vjp, full_check=True)
    seed = normal(*expected.shape).astype(np.float32)
    value, found = on_runtime(vjp, {"x0": image, "grad_y": seed})
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    direction = np.sign(normal(*image.shape, seed=5)).astype(np.float32)
    ahead, behind = (on_runtime(proto, {"x0": image + h * direction})[0] for h in (0.25, -0.25))
    change = ((ahead - behind) * seed).sum() / 0.5
    np.testing.assert_allclose((found * direction).sum(), change, rtol=2e-3, atol=1e-3)


def test_an_average_that_counts_such_padding_is_refused():
    options = {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1}
    window = case("AveragePool", (1, 1, 7, 7), count_include_pad=1, **options).model(np.float32)
    with pytest.raises(UnsupportedOperator, match="opset 22 or newer, or with ceil_mode=0"):
        differentiate(window)


UNPOOLED = [
    case("MaxUnpool", (1, 2, 2, 2), UNPOOL_PLACES, opset=opset, kernel_shape=[2, 2], strides=[2, 2])
    for opset in (11, 22)
]


@pytest.mark.parametrize("case", UNPOOLED, ids=ids(UNPOOLED))
def test_unpooling(case):
    check_gradient(case)


def test_unpooling_to_a_given_size():
    options = {"kernel_shape": [2, 2], "strides": [2, 2], "linear": True}
    size = np.array([1, 2, 5, 4], np.int64)
    places = np.array([[[[0, 2], [9, 15]], [[20, 23], [33, 39]]]])
    unpooled = case("MaxUnpool", (1, 2, 2, 2), places, size, **options)
    vjp = differentiate(unpooled.model(np.float32))
    seed = normal(1, 2, 5, 4).astype(np.float32)
    value, found = on_runtime(vjp, {"x0": unpooled.start, "grad_y": seed})
    np.testing.assert_array_equal(value.reshape(-1)[places], unpooled.start)
    np.testing.assert_array_equal(found, seed.reshape(-1)[places])


def test_the_places_of_max_pool_are_no_obstacle():
    model = case("MaxPool", distinct(1, 1, 4, 4), kernel_shape=[2, 2]).model(np.float32)
    model.graph.node[0].output.append("places")
    assert [value.name for value in differentiate(model).graph.output] == ["y", "grad_x0"]
