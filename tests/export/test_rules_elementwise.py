import math

import numpy as np
import pytest
from onnx import helper

from jataug.export import differentiate

from .checking import case, check_gradient, ids, normal, on_onnx, on_runtime

X = (2, 3, 4)
POSITIVE = np.abs(normal(*X)) + 0.3
INSIDE = np.clip(normal(*X) * 0.4, -0.9, 0.9)
WIDE = normal(*X) * 4  # reaches past every bound of the hard activations

UNARY = [
    *(case(op_type, X) for op_type in ("Abs", "Asinh", "Atan", "Cos", "Cosh", "Erf", "Exp")),
    *(case(op_type, X) for op_type in ("Identity", "Neg", "Relu", "Sigmoid", "Sin", "Sinh")),
    *(case(op_type, X) for op_type in ("Softplus", "Softsign", "Tanh")),
    *(case(op_type, POSITIVE) for op_type in ("Log", "Reciprocal", "Sqrt")),
    *(case(op_type, INSIDE) for op_type in ("Acos", "Asin", "Atanh", "Tan")),
    case("Acosh", POSITIVE + 1),
]
BROADCASTS = [
    ((2, 3, 4, 5), (2, 3, 4, 5)),
    ((2, 3, 4, 5), ()),
    ((2, 3, 4, 5), (1,)),
    ((2, 3, 4, 5), (1, 3, 1, 1)),
    ((2, 3, 4, 5), (3, 1, 1)),
    ((2, 3, 4, 5), (5,)),
    ((2, 3, 4, 5), (2, 1, 4, 1)),
    ((2, 1, 4, 1), (1, 3, 1, 5)),
    ((4, 1), (2, 3, 1, 5)),
]


def binary(op_type, a, b, active):
    # Away from 0, for Div and Pow.
    left, right = (np.asarray(np.abs(normal(*s, seed=i)) + 0.5) for i, s in enumerate((a, b)))
    return case(op_type, left, right, active=active)


PAIRS = [
    binary(op_type, *shapes, active)
    for op_type in ("Add", "Sub", "Mul", "Div")
    for pair in BROADCASTS
    for shapes in (pair, pair[::-1])
    for active in ((0,), (1,), (0, 1))
    if all(shapes[i] for i in active) or len(active) > 1
]
POWERS = [case("Pow", POSITIVE, np.array(exponent)) for exponent in (0.5, 1.0, 2.0, 3.0, -1.5)] + [
    case("Pow", normal(*X), np.array(2.0)),
    case("Pow", normal(*X), np.array(3, np.int64)),
    case("Pow", POSITIVE, np.abs(normal(3, 1))),
]
SUMS = [
    case("Sum", (2, 3)),
    case("Sum", (2, 3, 4), (3, 1), (4,), active=(0, 1, 2)),
    case("Sum", (3, 1), (2, 3, 4), active=(0,)),
]
CLIPS = [
    case("Clip", WIDE, np.array(-1.0), np.array(2.0)),
    case("Clip", WIDE, np.array(0.5)),
    case("Clip", WIDE, None, np.array(0.5)),
    case("Clip", WIDE),
    # onnx converts these for float32 alone; no value lies within a step of a bound.
    case("Clip", WIDE.round() + 0.5, opset=6, min=-1.0, max=2.0, linear=True),
    case("Clip", WIDE.round() + 0.5, opset=6, max=1.0, linear=True),
]
ACTIVATIONS = [
    case("LeakyRelu", X),
    case("LeakyRelu", X, alpha=0.3),
    case("LeakyRelu", X, alpha=-0.2),
    case("HardSigmoid", WIDE),
    case("HardSigmoid", WIDE, alpha=1 / 6, beta=0.4),
    case("HardSwish", WIDE),
    case("Elu", X),
    case("Elu", X, alpha=0.5),
    case("Gelu", X, opset=20),
    case("Gelu", X, opset=20, approximate="tanh"),
    case("PRelu", (2, 3, 4, 4), (3, 1, 1)),
    case("PRelu", (2, 3, 4, 4), (1,)),
    case("PRelu", (2, 3, 4), (1, 3, 4)),
]
OTHERS = [
    case("Dropout", X),
    case("Dropout", X, np.array(0.4), np.array(False)),
    case("Cast", X, to=1, linear=True),
]
CASES = [*UNARY, *PAIRS, *POWERS, *SUMS, *CLIPS, *ACTIVATIONS, *OTHERS]


@pytest.mark.parametrize("case", CASES, ids=ids(CASES))
def test_gradient(case):
    check_gradient(case)


def gradient(case):
    vjp = differentiate(case.model(np.float64))
    return on_onnx(vjp, {"x0": case.start, "grad_y": np.ones(case.start.shape)})[1]


def test_clip_passes_the_gradient_at_its_bounds():
    at_bounds = case("Clip", np.array([[-1.5, -1, 0, 2, 2.5]]), np.array(-1.0), np.array(2.0))
    np.testing.assert_array_equal(gradient(at_bounds), [[0, 1, 1, 1, 0]])


@pytest.mark.parametrize("op_type", ["Relu", "Abs"])
def test_kinks_at_zero_have_derivative_zero(op_type):
    np.testing.assert_array_equal(gradient(case(op_type, np.zeros((1, 3)))), np.zeros((1, 3)))


@pytest.mark.parametrize(
    ("op_type", "x", "expected"),
    [
        ("Sigmoid", 800.0, 0.0),
        ("Sigmoid", -800.0, 0.0),
        ("Softplus", 800.0, 1.0),
        ("Softplus", -800.0, 0.0),
        ("Elu", 800.0, 1.0),
        ("Elu", -800.0, 0.0),
        ("Gelu", 800.0, 1.0),
        ("Gelu", -800.0, 0.0),
        ("Erf", 800.0, 0.0),
        ("Tanh", 800.0, 0.0),
    ],
)
def test_large_arguments_do_not_overflow(op_type, x, expected):
    large = case(op_type, (1, 1), opset=20 if op_type == "Gelu" else 18).model(np.float32)
    feeds = {"x0": np.full((1, 1), x, np.float32), "grad_y": np.ones((1, 1), np.float32)}
    assert on_runtime(differentiate(large), feeds)[1] == expected


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_cast_brings_the_cotangent_back_in_the_type_of_its_input(dtype):
    model = case("Cast", (2, 3), to=int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype))))
    model = model.model(np.float32)
    model.graph.output[0].ClearField("type")
    seed = normal(2, 3, seed=1).astype(dtype)
    feeds = {"x0": normal(2, 3).astype(np.float32), "grad_y": seed}
    value, found = on_runtime(differentiate(model), feeds)
    assert (value.dtype, found.dtype) == (dtype, np.float32)
    np.testing.assert_array_equal(found, seed.astype(np.float32))


def test_a_shared_value_gets_the_sum_of_its_cotangents():
    square = case("Mul", (2, 3))
    model = square.model(np.float64)
    model.graph.node[0].input[:] = ["x0", "x0"]
    seed = normal(2, 3, seed=1)
    found = on_onnx(differentiate(model), {"x0": square.start, "grad_y": seed})[1]
    np.testing.assert_allclose(found, 2 * square.start * seed, rtol=1e-12)


def test_gelu_is_the_product_with_the_normal_distribution():
    x = np.array([[-1.0, 0.0, 2.0]])
    cdf = [0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x[0]]
    pdf = [math.exp(-v * v / 2) / math.sqrt(2 * math.pi) for v in x[0]]
    expected = [[c + v * p for c, v, p in zip(cdf, x[0], pdf, strict=True)]]
    np.testing.assert_allclose(gradient(case("Gelu", x, opset=20)), expected, rtol=1e-12)
