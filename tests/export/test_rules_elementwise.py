import math

import numpy as np
import pytest
from onnx import helper

from jataug.errors import UnsupportedOperator
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
MANY_EXPONENTS = np.array([0.0, 1.0, 2.0, -1.0, 0.5, 3.0])
POWERS += [
    case("Pow", normal(*X), np.array(0.0)),
    case("Pow", normal(*X), np.array([-1.0])),
    case("Pow", normal(*X), np.array(5.0)),
    case("Pow", np.abs(normal(4, 6)) + 0.5, MANY_EXPONENTS),
    case("Pow", POSITIVE, (3, 1), active=(1,)),
    case("Pow", POSITIVE, (3, 1), active=(0, 1)),
]
SUMS = [
    case("Sum", (2, 3)),
    case("Sum", (2, 3, 4), (3, 1), (4,), active=(0, 1, 2)),
    case("Sum", (3, 1), (2, 3, 4), active=(0,)),
    case("Mean", (2, 3)),
    case("Mean", (2, 3, 4), (3, 1), (4,), active=(0, 1, 2)),
]
EXTREMES = [
    case(op_type, *shapes, active=active)
    for op_type in ("Max", "Min")
    for shapes, active in [
        ([(2, 3)], (0,)),
        ([(2, 3, 4), (3, 1), (4,)], (0, 1, 2)),
        ([(3, 1), (2, 3, 4)], (0,)),
        ([(3, 1), (2, 3, 4)], (1,)),
    ]
]
CHOICES = [
    case("Where", normal(*mask, seed=5) > 0, a, b, active=active)
    for mask, a, b in [(X, X, X), ((3, 1), X, (4,)), (X, (1, 4), X)]
    for active in ((1,), (2,), (1, 2))
]
# Quotients well between whole numbers.
REMAINDERS = [
    case("Mod", np.array([[5.3, -4.1, 7.9]]), np.array([[2.0], [-3.0]]), active=active, fmod=1)
    for active in ((0,), (1,), (0, 1))
]
CLIPS = [
    case("Clip", WIDE, np.array(-1.0), np.array(2.0)),
    case("Clip", WIDE, np.array(0.5)),
    case("Clip", WIDE, None, np.array(0.5)),
    case("Clip", WIDE),
    case("Clip", WIDE, np.array(-1.0), np.array(2.0), active=(0, 1, 2)),
    case("Clip", WIDE, np.array(0.7), None, active=(0, 1)),
    case("Clip", WIDE, None, np.array(0.7), active=(0, 2)),
    case("Clip", WIDE, np.array(2.0), np.array(-1.0), active=(0, 1, 2)),  # then max wins
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
    case("PRelu", (2, 3, 4), (3, 1), active=(1,)),
    case("PRelu", (2, 3, 4), (1,), active=(0, 1)),
    case("Celu", X, opset=28),
    case("Celu", X, opset=28, alpha=0.4),
    case("Selu", X),
    case("Selu", X, alpha=0.7, gamma=1.3),
    case("ThresholdedRelu", WIDE),
    case("ThresholdedRelu", WIDE, alpha=-0.5),
    case("Shrink", WIDE),
    case("Shrink", WIDE, lambd=1.5, bias=0.4),
    case("Mish", X),
    case("Swish", X, opset=24),
    case("Swish", X, opset=24, alpha=1.7),
]
OTHERS = [
    case("Dropout", X),
    case("Dropout", X, np.array(0.4), np.array(False)),
    case("Cast", X, to=1, linear=True),
]
CASES = [*UNARY, *PAIRS, *POWERS, *SUMS, *EXTREMES, *CHOICES, *REMAINDERS, *CLIPS]
CASES += [*ACTIVATIONS, *OTHERS]


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
    ("x", "exponent", "expected"),
    [
        (0.0, 0.0, 0.0),
        (0.0, 1.0, 1.0),
        (0.0, 2.0, 0.0),
        (0.0, 7.0, 0.0),
        (-2.0, 0.0, 0.0),
        (-2.0, 3.0, 12.0),
        (-2.0, -1.0, -0.25),
        (-2.0, 5.0, 80.0),
    ],
)
def test_powers_at_zero_and_of_negative_numbers_are_finite(x, exponent, expected):
    """For a constant exponent, one among several, and a computed one; that of the exponent too."""
    base, one, several = np.array([[x]]), np.array(exponent), np.array([exponent, 9.5])
    assert gradient(case("Pow", base, one)) == expected
    found = gradient(case("Pow", np.array([[x, 1.0]]), several))
    assert found[0, 0] == expected
    if x == 0:
        both = case("Pow", base, np.array([[exponent]]), active=(0, 1))
        vjp = differentiate(both.model(np.float64))
        found = on_onnx(vjp, {"vector": both.start, "grad_y": np.ones((1, 1))})[1]
        np.testing.assert_array_equal(found, [expected, 0])


@pytest.mark.parametrize("op_type", ["Max", "Min"])
def test_the_first_of_tied_inputs_takes_the_cotangent(op_type):
    tied = case(op_type, np.ones((1, 2)), np.ones((1, 2)), np.ones((1, 2)), active=(0, 1, 2))
    vjp = differentiate(tied.model(np.float64))
    feeds = {"vector": tied.start, "grad_y": np.array([[3.0, 5.0]])}
    np.testing.assert_array_equal(on_onnx(vjp, feeds)[1], [3, 5, 0, 0, 0, 0])


def test_dropout_in_training_form_is_refused():
    training = case("Dropout", X, np.array(0.4), np.array(True)).model(np.float64)
    with pytest.raises(UnsupportedOperator, match="training"):
        differentiate(training)


@pytest.mark.parametrize("op_type", ["RandomNormalLike", "RandomUniformLike", "Bernoulli"])
def test_random_numbers_are_refused(op_type):
    model = case("Mul", (2, 3)).model(np.float32)
    node = helper.make_node(op_type, ["x0"], ["noise"], name="draw")
    model.graph.node[0].input[:] = ["x0", "noise"]
    model.graph.node.insert(0, node)
    with pytest.raises(UnsupportedOperator, match=f"{op_type} .node 'draw'. draws random numbers"):
        differentiate(model)


@pytest.mark.parametrize("x", [100.0, -100.0, 1e4, -1e4])
@pytest.mark.parametrize("op_type", ["Celu", "Mish", "Selu", "Softsign", "Swish", "Asinh", "Atan"])
def test_large_arguments_have_finite_derivatives(op_type, x):
    large = case(op_type, (1, 1), opset=24 if op_type == "Swish" else 18).model(np.float32)
    feeds = {"x0": np.full((1, 1), x, np.float32), "grad_y": np.ones((1, 1), np.float32)}
    limits = {"Selu": 1.0507, "Softsign": 0.0, "Asinh": 0.0, "Atan": 0.0}
    expected = limits.get(op_type, 1.0) if x > 0 or op_type in ("Asinh", "Atan") else 0.0
    tolerance = 0.011 if op_type == "Asinh" else 1e-4
    np.testing.assert_allclose(on_runtime(differentiate(large), feeds)[1], expected, atol=tolerance)


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
