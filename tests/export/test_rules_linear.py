"""Matrix products, normalisation and softmax."""

import itertools

import numpy as np
import pytest
from onnx import helper, numpy_helper

from jataug.errors import UnsupportedOperator
from jataug.export import differentiate

from .checking import case, check_gradient, ids, normal, on_onnx, on_runtime

GEMMS = [
    case("Gemm", a, b, c, active=active, transA=trans_a, transB=trans_b, alpha=0.5, beta=1.5)
    for trans_a, trans_b in itertools.product((0, 1), repeat=2)
    for a in [(4, 3) if trans_a else (3, 4)]
    for b in [(5, 4) if trans_b else (4, 5)]
    for c in [None, (5,), (1, 5), (3, 1), (3, 5), (1,)]
    for active in [(0,), (1,), (0, 1, 2) if c else (0, 1)]
] + [
    case("Gemm", (3, 4), (4, 5)),
    case("Gemm", (3, 4), (4, 5), (5,), transB=0),
    case("Gemm", (3, 4), (4, 5), (1, 5), active=(2,), beta=0.5),
]
PRODUCTS = [
    ((3, 4), (4, 5)),
    ((4,), (4, 5)),
    ((3, 4), (4,)),
    ((4,), (4,)),
    ((2, 3, 4), (4, 5)),
    ((3, 4), (2, 4, 5)),
    ((2, 3, 4), (2, 4, 5)),
    ((2, 1, 3, 4), (6, 4, 5)),
    ((1, 3, 4), (2, 4, 5)),
    ((2, 2, 3, 4), (4,)),
    ((4,), (2, 2, 4, 5)),
    ((2, 3, 4), (1, 4, 1)),
]
MATMULS = [
    case("MatMul", a, b, active=active) for a, b in PRODUCTS for active in ((0,), (1,), (0, 1))
]
CHANNELS = [(3,), (3,), (3,), np.abs(normal(3, seed=9)) + 0.1]
NORMS = [
    case("BatchNormalization", shape, *CHANNELS, **options)
    for shape in ((2, 3, 4, 5), (2, 3), (2, 3, 6), (2, 3, 2, 3, 2))
    # onnx's own evaluator takes a momentum in opset 9 for training: ONNX Runtime is the oracle.
    for options in ({}, {"epsilon": 0.1}, {"opset": 9, "momentum": 0.5, "linear": True})
]
SOFTMAXES = [
    case(op_type, (2, 3, 4, 5), axis=axis)
    for op_type in ("Softmax", "LogSoftmax")
    for axis in (0, 1, 2, 3, -1, -2)
] + [case(op_type, (3, 5)) for op_type in ("Softmax", "LogSoftmax")]
CASES = [*GEMMS, *MATMULS, *NORMS, *SOFTMAXES]


@pytest.mark.parametrize("case", CASES, ids=ids(CASES))
def test_gradient(case):
    check_gradient(case)


@pytest.mark.parametrize("shape", [(2, 5), (2, 3, 4, 5)])
@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("op_type", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("opset", [9, 11])
def test_softmax_before_opset_13_runs_over_all_later_axes(op_type, axis, shape, opset):
    options = {} if axis == 1 else {"axis": axis}  # 1 was the default
    old = case(op_type, shape, opset=opset, **options).model(np.float32)
    x, seed = (normal(*shape, seed=i).astype(np.float32) for i in (0, 1))
    vjp = differentiate(old)
    value, gradient = on_runtime(vjp, {"x0": x, "grad_y": seed})
    np.testing.assert_allclose(value, on_runtime(old, {"x0": x})[0], rtol=1e-5, atol=1e-6)

    flat = x.reshape(-1, shape[-1]) if axis == -1 else x.reshape(shape[0], -1)
    g, p = seed.reshape(flat.shape), np.exp(flat) / np.exp(flat).sum(1, keepdims=True)
    if op_type == "Softmax":
        expected = p * (g - (g * p).sum(1, keepdims=True))
    else:
        expected = g - p * g.sum(1, keepdims=True)
    np.testing.assert_allclose(gradient, expected.reshape(shape), rtol=1e-4, atol=1e-6)


def test_batch_norm_whose_scale_is_computed():
    """The rule cannot take the gain as a constant then: the scale is 0 * mean(x) + x1."""
    norm = case("BatchNormalization", (2, 3, 4, 4), *CHANNELS)
    plain, computed = norm.model(np.float64), norm.model(np.float64)
    nodes = [
        helper.make_node("ReduceMean", ["x0", "axes"], ["mean"], keepdims=0),
        helper.make_node("Sign", ["mean"], ["sign"]),  # flat, so that the scale has no derivative
        helper.make_node("Mul", ["sign", "zero"], ["none"]),
        helper.make_node("Add", ["none", "x1"], ["scale"]),
        *computed.graph.node,
    ]
    nodes[-1].input[1] = "scale"
    del computed.graph.node[:]
    computed.graph.node.extend(nodes)
    computed.graph.initializer.append(numpy_helper.from_array(np.array([0, 2, 3]), "axes"))
    computed.graph.initializer.append(numpy_helper.from_array(np.array(0.0), "zero"))
    feeds = {"x0": norm.start, "grad_y": normal(2, 3, 4, 4, seed=4)}
    found, expected = (on_onnx(differentiate(model), feeds)[1] for model in (computed, plain))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("opset", [14, 18])
def test_batch_norm_in_training_form_is_refused(opset):
    training = case("BatchNormalization", (2, 3, 4), *CHANNELS, opset=opset, training_mode=1)
    model = training.model(np.float64)
    model.graph.node[0].output.extend(["running_mean", "running_var"])
    with pytest.raises(UnsupportedOperator, match="training"):
        differentiate(model)
