"""Normalizations that take their statistics from the data, and batch norm, which does not."""

import numpy as np
import pytest
import torch
from onnx import helper, numpy_helper
from torch.nn import functional as F  # noqa: N812

from jataug.errors import UnsupportedOperator
from jataug.export import differentiate

from .checking import case, check_gradient, ids, normal, on_onnx, on_runtime

CHANNELS = [(3,), (3,), (3,), np.abs(normal(3, seed=9)) + 0.1]
BATCH = [
    case("BatchNormalization", shape, *CHANNELS, **options)
    for shape in ((2, 3, 4, 5), (2, 3), (2, 3, 6), (2, 3, 2, 3, 2))
    # onnx's own evaluator takes a momentum in opset 9 for training: ONNX Runtime is the oracle.
    for options in ({}, {"epsilon": 0.1}, {"opset": 9, "momentum": 0.5, "linear": True})
]
LAYER = [
    *(case("LayerNormalization", (2, 3, 4), (4,), *rest) for rest in ((), ((4,),))),
    case("LayerNormalization", (2, 3, 4), (3, 4), (3, 4), axis=1, epsilon=0.1),
    case("LayerNormalization", (2, 3, 4), (3, 4), axis=-2),
    case("LayerNormalization", (2, 3, 4), (4,), (4,), active=(0, 1, 2)),
    case("LayerNormalization", (2, 3, 4), (1,), (4,), active=(0,)),
]
RMS = [
    case("RMSNormalization", (2, 3, 4), (4,), opset=23),
    case("RMSNormalization", (2, 3, 4), (3, 4), opset=23, axis=1, epsilon=0.1),
    case("RMSNormalization", (2, 3, 4), (4,), opset=23, active=(0, 1)),
]
INSTANCE = [
    case("InstanceNormalization", shape, (3,), (3,), **options)
    for shape in ((2, 3, 4, 5), (2, 3, 6), (1, 3, 2, 3, 2))
    for options in ({}, {"epsilon": 0.1})
]
GROUP = [
    case("GroupNormalization", shape, (size,), (size,), num_groups=groups, opset=21, **options)
    for shape, size, groups in [((2, 6, 3, 4), 6, 2), ((2, 6, 5), 6, 3), ((2, 6), 6, 2)]
    for options in ({}, {"epsilon": 0.1})
] + [
    case("GroupNormalization", (2, 6, 3, 4), (6,), (6,), num_groups=groups, opset=21)
    for groups in (1, 6)
]
LP = [
    case("LpNormalization", (2, 3, 4), p=p, **options)
    for p in (1, 2)
    for options in ({}, {"axis": 1}, {"axis": -2})
]
LOCAL = [
    case("LRN", (2, 5, 3, 4), size=size, **options)
    for size in (1, 3, 5, 7)
    for options in ({}, {"alpha": 0.5, "beta": 0.6, "bias": 2.0})
]
CASES = [*BATCH, *LAYER, *RMS, *INSTANCE, *GROUP, *LP, *LOCAL]
ELSEWHERE = {("MeanVarianceNormalization", 0)}  # its function body has no double: torch below


@pytest.mark.parametrize("case", CASES, ids=ids(CASES))
def test_gradient(case):
    check_gradient(case)


def against_torch(case, function, batch=None):
    """Assert that value and gradient of a case are those of a torch function, in float32."""
    model = case.model(np.float32)
    if batch is not None:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = batch
    leaf = torch.tensor(case.start.astype(np.float32), requires_grad=True)
    expected = function(leaf)
    cotangent = normal(*expected.shape, seed=7).astype(np.float32)
    expected.backward(torch.tensor(cotangent))
    feeds = {"x0": leaf.detach().numpy(), "grad_y": cotangent}
    value, gradient = on_runtime(differentiate(model), feeds)
    np.testing.assert_allclose(value, expected.detach().numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gradient, leaf.grad.numpy(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("batch", [None, "N"])
@pytest.mark.parametrize("axes", [None, (0, 2, 3), (2, 3), (1,), (-1,)])
def test_mean_variance_normalization_agrees_with_torch(axes, batch):
    options = {} if axes is None else {"axes": list(axes)}

    def standardized(x):
        centred = x - x.mean(axes or (0, 2, 3), keepdim=True)
        return centred / ((centred**2).mean(axes or (0, 2, 3), keepdim=True).sqrt() + 1e-9)

    shape = (2, 3, 4, 5)
    against_torch(case("MeanVarianceNormalization", shape, **options), standardized, batch)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_local_response_agrees_with_torch(size):
    local = case("LRN", (2, 6, 3, 4), size=size, alpha=0.3, beta=0.7, bias=1.5)
    against_torch(local, lambda x: F.local_response_norm(x, size, 0.3, 0.7, 1.5))


@pytest.mark.parametrize("size", [2, 4])
def test_an_even_window_reaches_one_channel_further_ahead(size):
    """ONNX Runtime has no even windows; torch's reach one channel further back."""
    local = case("LRN", (2, 6, 3, 4), size=size, alpha=0.3, beta=0.7, bias=1.5)
    leaf = torch.tensor(local.start, requires_grad=True)
    expected = F.local_response_norm(leaf.flip(1), size, 0.3, 0.7, 1.5).flip(1)
    cotangent = normal(*expected.shape, seed=7)
    expected.backward(torch.tensor(cotangent))
    vjp = differentiate(local.model(np.float64))
    value, found = on_onnx(vjp, {"x0": local.start, "grad_y": cotangent})
    np.testing.assert_allclose(value, expected.detach().numpy(), rtol=1e-6)
    np.testing.assert_allclose(found, leaf.grad.numpy(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("axis", [1, -1])
def test_lp_norms_agree_with_torch(axis, p):
    against_torch(
        case("LpNormalization", (2, 3, 4), axis=axis, p=p), lambda x: F.normalize(x, p, axis)
    )


@pytest.mark.parametrize("batch", [None, "N"])
@pytest.mark.parametrize(("size", "opset"), [(2, 18), (6, 21)])
def test_group_norm_agrees_with_torch(size, opset, batch):
    """Opset 18 has one scale a group, later ones have one a channel."""
    gain, shift = normal(size, seed=1), normal(size, seed=2)
    options = {"num_groups": 2, "opset": opset}
    group = case("GroupNormalization", (3, 6, 4, 5), gain, shift, **options)
    whole = [torch.tensor(a.astype(np.float32)).repeat_interleave(6 // size) for a in (gain, shift)]
    against_torch(group, lambda x: F.group_norm(x, 2, *whole), batch)


@pytest.mark.parametrize("p", [1, 2])
def test_the_norm_of_nothing_but_zeros_has_derivative_zero(p):
    vjp = differentiate(case("LpNormalization", np.zeros((2, 3)), p=p).model(np.float64))
    found = on_onnx(vjp, {"x0": np.zeros((2, 3)), "grad_y": np.ones((2, 3))})[1]
    np.testing.assert_array_equal(found, np.zeros((2, 3)))


def test_half_precision_takes_its_statistics_in_float32():
    layer = case("LayerNormalization", (2, 3, 64), (64,), (64,))
    half = layer.model(np.float16)
    x = (layer.start * 100 + 300).astype(np.float16)  # squares beyond the largest float16
    seed = normal(2, 3, 64, seed=5).astype(np.float16)
    found = on_runtime(differentiate(half), {"x0": x, "grad_y": seed})[1]
    single = {"x0": x.astype(np.float32), "grad_y": seed.astype(np.float32)}
    expected = on_runtime(differentiate(layer.model(np.float32)), single)[1]
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, expected, atol=5e-3 * np.abs(expected).max())


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
    # Before any pass: onnx-ir before 1.1 would make it one of inference.
    with pytest.raises(UnsupportedOperator, match=r"BatchNormalization \(node .*\) in training"):
        differentiate(model)
