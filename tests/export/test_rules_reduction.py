import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from jataug.errors import ModelError
from jataug.export import differentiate

from .checking import case, check_gradient, ids, normal, on_onnx, on_runtime

X = (2, 3, 4, 5)


def axes(*values):
    return np.array(values, np.int64)


CASES = [
    case(op_type, X, chosen, keepdims=keepdims)
    for op_type in ("ReduceMean", "ReduceSum")
    for keepdims in (0, 1)
    for chosen in (axes(1), axes(2, 3), axes(-1), axes(-1, -2), axes(3, 1), axes(0, 1, 2, 3))
]
CASES += [
    case(op_type, X, *chosen, keepdims=keepdims, noop_with_empty_axes=noop)
    for op_type in ("ReduceMean", "ReduceSum")
    for keepdims in (0, 1)
    for noop in (0, 1)
    for chosen in ((), (axes(),))
]
CASES += [
    case("ReduceMean", X, opset=11, axes=[2, 3]),
    case("ReduceMean", X, opset=11, axes=[-1], keepdims=0),
    case("ReduceMean", X, opset=11),
    case("ReduceSum", X, opset=11, axes=[1], keepdims=0),
]
AWAY = np.abs(normal(*X)) + 0.3
SIGNED = AWAY * np.sign(normal(*X, seed=1))
OTHERS = {
    **dict.fromkeys(("ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceProd"), SIGNED),
    **dict.fromkeys(("ReduceLogSumExp", "ReduceSumSquare"), SIGNED),
    "ReduceLogSum": AWAY,
}
CASES += [
    case(op_type, data, chosen, keepdims=keepdims)
    for op_type, data in OTHERS.items()
    for keepdims in (0, 1)
    for chosen in (axes(1), axes(-1, 2), axes(0, 1, 2, 3))
]
CASES += [case(op_type, data) for op_type, data in OTHERS.items()]
CASES += [
    case(op_type, data, axes(), keepdims=keepdims, noop_with_empty_axes=noop)
    for op_type, data in OTHERS.items()
    for keepdims in (0, 1)
    for noop in (0, 1)
]
CASES += [
    case(op_type, data.astype(np.float32), opset=11, axes=[-1], keepdims=keepdims)
    for op_type, data in OTHERS.items()
    for keepdims in (0, 1)
]
CASES += [
    case("CumSum", X, np.array(axis), exclusive=exclusive, reverse=reverse)
    for axis in (0, 2, -1)
    for exclusive in (0, 1)
    for reverse in (0, 1)
]
# One zero, two zeros and none along the axis of the products.
ZEROS = SIGNED.copy()
ZEROS[0, 0, 1] = ZEROS[1, 1, 0] = ZEROS[0, 2, 0, 0] = ZEROS[0, 2, 2, 0] = 0
CASES += [case("ReduceProd", ZEROS, axes(*chosen)) for chosen in ((2,), (1, 2), (3,))]
CUMULATIVE = [
    case("CumProd", data, np.array(axis), opset=26, exclusive=exclusive, reverse=reverse)
    for data in (SIGNED, ZEROS)
    for axis in (2, -1)
    for exclusive in (0, 1)
    for reverse in (0, 1)
]
CASES += CUMULATIVE


@pytest.mark.parametrize("case", CASES, ids=ids(CASES))
def test_gradient(case):
    check_gradient(case)


def gradient(case, cotangent):
    vjp = differentiate(case.model(np.float64))
    return on_onnx(vjp, {"x0": case.start, "grad_y": cotangent})[1]


@pytest.mark.parametrize(("op_type", "extreme"), [("ReduceMax", "amax"), ("ReduceMin", "amin")])
def test_tied_extremes_share_equally_as_in_torch(op_type, extreme):
    data = np.random.default_rng(0).integers(0, 3, (4, 5, 6)).astype(np.float64)
    leaf = torch.tensor(data, requires_grad=True)
    found = getattr(leaf, extreme)((1, 2))
    cotangent = normal(4)
    found.backward(torch.tensor(cotangent))
    tied = gradient(case(op_type, data, axes(1, 2), keepdims=0), cotangent)
    np.testing.assert_allclose(tied, leaf.grad.numpy(), rtol=1e-12)


def test_norms_of_nothing_but_zeros_have_derivative_zero():
    for op_type in ("ReduceL1", "ReduceL2"):
        found = gradient(case(op_type, np.zeros((2, 3)), axes(1)), np.ones((2, 1)))
        np.testing.assert_array_equal(found, np.zeros((2, 3)))


def test_log_of_summed_exponentials_does_not_overflow():
    large = case("ReduceLogSumExp", np.array([[1000.0, 1000.0, -1000.0]]), axes(1))
    with np.errstate(over="ignore"):
        vjp = differentiate(large.model(np.float32))
    feeds = {"x0": large.start.astype(np.float32), "grad_y": np.ones((1, 1), np.float32)}
    np.testing.assert_allclose(on_runtime(vjp, feeds)[1], [[0.5, 0.5, 0]], rtol=1e-4)


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("op_type", ["ReduceMean", "ReduceMax", "ReduceL2"])
@pytest.mark.parametrize("chosen", [[0], [0, 2], [0, 1, 2]])
def test_a_symbolic_batch_may_be_reduced_too(op_type, chosen, keepdims):
    data = SIGNED[:, :, :, 0]
    fixed = case(op_type, data, axes(*chosen), keepdims=keepdims).model(np.float64)
    open_ = onnx.ModelProto()
    open_.CopyFrom(fixed)
    open_.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    (value,) = on_onnx(fixed, {"x0": data})
    feeds = {"x0": data, "grad_y": normal(*value.shape, seed=3)}
    found, expected = (on_onnx(differentiate(model), feeds)[1] for model in (open_, fixed))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_axes_that_are_computed_are_refused():
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0),
        helper.make_node("Cast", ["mean"], ["axis"], to=TensorProto.INT64),
        helper.make_node("Unsqueeze", ["axis", "zero"], ["axes"]),
        helper.make_node("ReduceSum", ["x", "axes"], ["sum"]),
        helper.make_node("Reshape", ["sum", "size"], ["y"]),
    ]
    constants = {"zero": np.array([0]), "size": np.array([3])}
    graph = helper.make_graph(
        nodes,
        "computed",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    with pytest.raises(ModelError, match="the shape of 'sum' cannot be inferred"):
        differentiate(model)
