"""Straight-through gradients beside torch's fake_quantize, and on the float twin beside
differences.
"""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from jataug.errors import ModelError, UnsupportedOperator
from jataug.export import differentiate
from jataug.export.check.gradient import TOLERANCE, directional_error
from jataug.export.gradient.differentiate import vjp
from jataug.export.graph.quantised_values import INTEGER, LINEAR, MICROSOFT
from jataug.export.model.load import prepare

from .checking import normal, on_runtime

ELSEWHERE = {
    ("QuantizeLinear", 0),
    ("QuantizeLinear", 1),
    ("DequantizeLinear", 0),
    ("DequantizeLinear", 1),
    ("DynamicQuantizeLinear", 0),
    ("QLinearConv", 0),
    ("QLinearMatMul", 0),
    ("ConvInteger", 0),
    ("MatMulInteger", 0),
}
"""Rules whose gradient is an estimate: differences of the op itself cannot confirm them."""

RANGES = {"uint8": (0, 255), "int8": (-128, 127)}


def model(nodes, shape, constants, *, opset=18, result=TensorProto.FLOAT, domain=True):
    """Return a model of x (of this shape) -> y."""
    graph = helper.make_graph(
        nodes,
        "quantised",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items()],
    )
    graph.output[0].type.tensor_type.elem_type = result
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=opsets[: 1 + domain], ir_version=9)


def pair(shape, scale, zero, *, axis=None, opset=18, domain="", **attributes):
    options = dict(attributes) if axis is None else {"axis": axis, **attributes}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], domain=domain, **options),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], domain=domain, **options),
    ]
    return model(nodes, shape, {"s": np.asarray(scale, np.float32), "z": zero}, opset=opset)


def run(proto, x, seed=None, *, fused=False):
    """Return y, the cotangent, and the gradient, on ONNX Runtime; y is that of the model alone.

    What a runtime fuses gives way to its parts, where a gradient reads the values between: a sum in
    another order may then round to the neighbour.
    """
    (y,) = on_runtime(proto, {"x": x})
    seed = normal(*y.shape, seed=3).astype(np.float32) if seed is None else seed
    forward, gradient = on_runtime(differentiate(proto), {"x": x, "grad_y": seed})
    assert (forward != y).mean() <= (0.01 if fused else 0)
    return y, seed, gradient


def twin_agrees(proto, x):
    """Assert that the gradient of the float twin is the slope of the float twin."""
    twin = vjp(prepare(proto), rounded=False)
    y = on_runtime(proto, {"x": x})[0]
    seed = normal(*y.shape, seed=3).astype(np.float32)

    def at(x):
        return on_runtime(twin, {"x": x.astype(np.float32), "grad_y": seed})

    error = directional_error(
        lambda x: at(x)[0].astype(np.float64), lambda x: at(x)[1].astype(np.float64),
        x.astype(np.float64), seed,
    )  # fmt: skip
    assert error < TOLERANCE


@pytest.mark.parametrize("kind", RANGES)
@pytest.mark.parametrize("zero", [0, 3, -7])
def test_a_pair_is_torchs_fake_quantize(kind, zero):
    least, largest = RANGES[kind]
    zero = max(zero, least)
    x, scale = (3 * normal(2, 3, 9, 9)).astype(np.float32), 0.02
    y, seed, gradient = run(pair(x.shape, scale, np.array(zero, kind)), x)
    given = torch.tensor(x, requires_grad=True)
    expected = torch.fake_quantize_per_tensor_affine(given, scale, zero, least, largest)
    expected.backward(torch.tensor(seed))
    np.testing.assert_allclose(y, expected.detach(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(gradient, given.grad, rtol=1e-5, atol=1e-6)
    assert 0.05 < (gradient == 0).mean() < 0.95


@pytest.mark.parametrize("domain", ["", MICROSOFT])
@pytest.mark.parametrize("axis", [1, -1])
def test_a_pair_per_channel_is_torchs(axis, domain):
    x = (3 * normal(2, 4, 5, 6)).astype(np.float32)
    count = x.shape[axis]
    scales = np.linspace(0.005, 0.04, count).astype(np.float32)
    zeros = np.arange(count).astype(np.int8)
    _, seed, gradient = run(pair(x.shape, scales, zeros, axis=axis, domain=domain), x)
    given = torch.tensor(x, requires_grad=True)
    torch.fake_quantize_per_channel_affine(
        given, torch.tensor(scales), torch.tensor(zeros.astype(np.int32)), axis % 4, -128, 127
    ).backward(torch.tensor(seed))
    np.testing.assert_allclose(gradient, given.grad, rtol=1e-5, atol=1e-6)
    assert 0.05 < (gradient == 0).mean() < 0.95


@pytest.mark.parametrize("kind", RANGES)
def test_at_the_ends_of_the_range(kind):
    """Identity at the least and the largest number, and as far as rounding leads back to them."""
    least, largest = RANGES[kind]
    steps = np.array([least - 1, least - 0.6, least - 0.4, least, largest, largest + 0.4,
                      largest + 0.6, largest + 1])  # fmt: skip
    x = ((steps - 5) * 0.25).astype(np.float32)[None]
    ones = np.ones_like(x)
    _, _, gradient = run(pair(x.shape, 0.25, np.array(5, kind)), x, ones)
    np.testing.assert_array_equal(gradient[0], [0, 0, 1, 1, 1, 1, 0, 0])


@pytest.mark.parametrize("kind", ["int16", "uint16"])
def test_sixteen_bits(kind):
    x = np.linspace(-40, 80, 48, dtype=np.float32).reshape(1, 48)
    _, _, gradient = run(pair(x.shape, 0.001, np.array(5, kind), opset=21), x, np.ones_like(x))
    low, high = np.array(np.iinfo(kind).min - 5.5), np.array(np.iinfo(kind).max - 4.5)
    np.testing.assert_allclose(gradient, (low * 0.001 <= x) & (x <= high * 0.001), atol=1e-6)


def test_blocks_of_scales():
    x = (3 * normal(2, 6, 4)).astype(np.float32)
    scales = np.array([0.01, 0.02, 0.03], np.float32).reshape(1, 3, 1) * np.ones((2, 3, 4))
    zeros = np.zeros(scales.shape, np.int8)
    proto = pair(x.shape, scales, zeros, axis=1, opset=21, block_size=2)
    seed = normal(*x.shape, seed=3).astype(np.float32)
    _, gradient = on_runtime(differentiate(proto), {"x": x, "grad_y": seed})
    wide = np.repeat(scales, 2, 1)
    inside = (-128.5 * wide <= x) & (x <= 127.5 * wide)
    np.testing.assert_allclose(gradient, seed * inside, rtol=1e-5)


def _convolution(form, kind, per_channel, *, relu=False):
    """A convolution of quantised numbers; its result saturates in part."""
    w = np.clip(np.round(normal(4, 3, 3, 3, seed=1) * 40), -127, 127).astype(np.int8)
    ws = np.array([0.01, 0.02, 0.015, 0.005], np.float32) if per_channel else np.float32(0.01)
    wz = np.zeros(4, np.int8) if per_channel else np.int8(0)
    b = np.array([100, -200, 300, 0], np.int32)
    constants = {
        "xs": np.float32(0.03), "xz": np.array(20, kind), "w": w, "ws": ws, "wz": wz,
        "ys": np.float32(0.03), "yz": np.array(np.iinfo(kind).min if relu else 30, kind), "b": b,
        "bs": (np.float32(0.03) * ws).astype(np.float32),
        "bz": np.zeros(np.shape(ws), np.int32),
    }  # fmt: skip
    first = [helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["q"])]
    last = [helper.make_node("DequantizeLinear", ["r", "ys", "yz"], ["y"])]
    geometry = {"pads": [1, 1, 1, 1], "strides": [2, 2]}
    if form == "QOperator":
        names = ["q", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"]
        middle = [helper.make_node("QLinearConv", names, ["r"], **geometry)]
        for name in ("bs", "bz"):
            del constants[name]
    else:
        middle = [
            helper.make_node("DequantizeLinear", ["q", "xs", "xz"], ["f"]),
            helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wf"], axis=0),
            helper.make_node("DequantizeLinear", ["b", "bs", "bz"], ["bf"], axis=0),
            helper.make_node("Conv", ["f", "wf", "bf"], ["c"], **geometry),
            helper.make_node("QuantizeLinear", ["c", "ys", "yz"], ["r"]),
        ]
    return model([*first, *middle, *last], ("N", 3, 9, 9), constants, domain=False), constants


def _in_torch(c, x, seed):
    """The same in torch: the gradient of fake-quantised tensors."""
    least, largest = RANGES[str(np.asarray(c["xz"]).dtype)]
    given = torch.tensor(x, requires_grad=True)

    def fake(value, scale, zero):
        return torch.fake_quantize_per_tensor_affine(value, float(scale), int(zero), least, largest)

    scales = np.reshape(c["ws"], (-1, 1, 1, 1))
    kernel = torch.tensor(c["w"].astype(np.float32) * scales)
    bias = torch.tensor((c["b"] * np.float32(c["xs"]) * c["ws"]).astype(np.float32))
    inner = torch.nn.functional.conv2d(fake(given, c["xs"], c["xz"]), kernel, bias, 2, 1)
    result = fake(inner, c["ys"], c["yz"])
    result.backward(torch.tensor(seed))
    return result.detach().numpy(), given.grad.numpy()


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("kind", RANGES)
@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_a_convolution_is_torchs(form, kind, per_channel, relu):
    proto, constants = _convolution(form, kind, per_channel, relu=relu)
    x = (2 * normal(2, 3, 9, 9, seed=5)).astype(np.float32)
    y, seed, gradient = run(proto, x, fused=form == "QDQ")
    expected, slope = _in_torch(constants, x, seed)
    # A sum in another order may round to the neighbour; everywhere else they are equal.
    assert (np.abs(y - expected) > 1e-5).mean() < 0.01
    np.testing.assert_allclose(gradient, slope, rtol=1e-5, atol=1e-5)
    saturated = np.isin(np.round(expected / 0.03 + float(constants["yz"])), RANGES[kind])
    assert 0.02 < saturated.mean() < 0.9
    twin_agrees(proto, x)


def _dense(op_type):
    """x -> quantised -> a product with constants -> y, of QLinearMatMul, QGemm or MatMulInteger."""
    w = np.clip(np.round(normal(6, 5, seed=1) * 40), -127, 127).astype(np.int8)
    constants = {
        "s": np.float32(0.03), "z": np.uint8(20), "w": w, "ws": np.float32(0.01), "wz": np.int8(2),
        "ys": np.float32(0.02), "yz": np.uint8(30), "b": np.arange(5, dtype=np.int32) * 50,
    }  # fmt: skip
    names = ["q", "s", "z", "w", "ws", "wz"]
    if op_type == "MatMulInteger":
        nodes = [
            helper.make_node(op_type, ["q", "w", "z", "wz"], ["r"]),
            helper.make_node("Cast", ["r"], ["y"], to=TensorProto.FLOAT),
        ]
        for name in ("ws", "ys", "yz", "b"):
            del constants[name]
    else:
        more = ["b"] if op_type == "QGemm" else []
        domain = MICROSOFT if op_type == "QGemm" else ""
        inputs = [*names, *more, "ys", "yz"]
        nodes = [
            helper.make_node(op_type, inputs, ["r"], domain=domain),
            helper.make_node("DequantizeLinear", ["r", "ys", "yz"], ["y"]),
        ]
        if op_type != "QGemm":
            del constants["b"]
    first = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"])
    return model([first, *nodes], ("N", 6), constants), constants


@pytest.mark.parametrize("op_type", ["QLinearMatMul", "QGemm", "MatMulInteger"])
def test_products_with_constants(op_type):
    proto, c = _dense(op_type)
    x = (3 * normal(7, 6, seed=5)).astype(np.float32)
    y, seed, gradient = run(proto, x)
    real = (c["w"].astype(np.float32) - 2) * float(c.get("ws", 1))
    inside = (x >= -20.5 * 0.03) & (x <= 235.5 * 0.03)
    q = np.clip(np.round(x / 0.03) + 20, 0, 255)
    result = ((q - 20) * (1 if op_type == "MatMulInteger" else 0.03)) @ real
    if op_type == "MatMulInteger":
        expected = seed @ real.T * inside / 0.03
    else:
        bias = c["b"] * 0.03 * 0.01 if op_type == "QGemm" else 0
        kept = (result + bias >= -30.5 * 0.02) & (result + bias <= 225.5 * 0.02)
        assert 0.05 < kept.mean() < 0.95
        expected = (seed * kept) @ real.T * inside
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)
    assert np.isfinite(y).all()
    twin_agrees(proto, x)


def test_an_integer_convolution():
    w = np.clip(np.round(normal(4, 3, 3, 3, seed=1) * 40), -127, 127).astype(np.int8)
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("ConvInteger", ["q", "w", "z"], ["r"], pads=[1, 1, 1, 1]),
        helper.make_node("Cast", ["r"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["f", "s"], ["y"]),
    ]
    proto = model(nodes, ("N", 3, 6, 6), {"w": w}, domain=False)
    x = normal(2, 3, 6, 6, seed=5).astype(np.float32)
    _, seed, gradient = run(proto, x)
    given = torch.tensor(x, requires_grad=True)
    kernel = torch.tensor(w.astype(np.float32))
    torch.nn.functional.conv2d(given, kernel, padding=1).backward(torch.tensor(seed))
    np.testing.assert_allclose(gradient, given.grad, rtol=1e-4, atol=1e-3)
    twin_agrees(proto, x)


SHAPE = (2, 3, 8, 8)


def _pointwise(op_type, tensors, floats, **attributes):
    """A com.microsoft op between quantised tensors, each of them x times a constant."""
    constants = {"ys": np.float32(0.02), "yz": np.int8(10)}
    nodes, parts = [], []
    for i in range(tensors):
        constants |= {f"k{i}": np.float32(1 + i), f"s{i}": np.float32(0.02 + i / 50),
                      f"z{i}": np.int8(i - 1)}  # fmt: skip
        nodes.append(helper.make_node("Mul", ["x", f"k{i}"], [f"x{i}"]))
        nodes.append(helper.make_node("QuantizeLinear", [f"x{i}", f"s{i}", f"z{i}"], [f"q{i}"]))
        parts += [f"q{i}", f"s{i}", f"z{i}"]
    names = ["ys", "yz", *parts] if op_type == "QLinearConcat" else [*parts, "ys", "yz"]
    nodes.append(helper.make_node(op_type, names, ["r"], domain=MICROSOFT, **attributes))
    nodes.append(helper.make_node("DequantizeLinear", ["r", "ys", "yz"], ["y"]))
    return model(nodes, ("N", *SHAPE[1:]), constants)


MICROSOFTS = {
    "QLinearAdd": (2, lambda a, b: a + b, {}),
    "QLinearMul": (2, lambda a, b: a * b, {}),
    "QLinearConcat": (2, lambda a, b: torch.cat([a, b], 1), {"axis": 1}),
    "QLinearSigmoid": (1, torch.sigmoid, {}),
    "QLinearLeakyRelu": (1, lambda a: torch.nn.functional.leaky_relu(a, 0.1), {"alpha": 0.1}),
    "QLinearGlobalAveragePool": (1, lambda a: a.mean((2, 3), keepdim=True), {}),
    "QLinearAveragePool": (
        1,
        lambda a: torch.nn.functional.avg_pool2d(a, 2),
        {"kernel_shape": [2, 2], "strides": [2, 2]},
    ),
}


@pytest.mark.parametrize("op_type", MICROSOFTS)
def test_ops_of_the_runtimes_domain(op_type):
    tensors, function, attributes = MICROSOFTS[op_type]
    proto = _pointwise(op_type, tensors, function, **attributes)
    x = (1.5 * normal(*SHAPE, seed=5)).astype(np.float32)
    _, seed, gradient = run(proto, x)
    given = torch.tensor(x, requires_grad=True)
    fake = torch.fake_quantize_per_tensor_affine
    parts = [fake(given * (1 + i), 0.02 + i / 50, i - 1, -128, 127) for i in range(tensors)]
    fake(function(*parts), 0.02, 10, -128, 127).backward(torch.tensor(seed))
    np.testing.assert_allclose(gradient, given.grad, rtol=1e-4, atol=1e-5)
    twin_agrees(proto, x)


def test_every_op_of_the_table_is_tested():
    tested = {op_type for op_type, _ in ELSEWHERE} | set(MICROSOFTS) | {"QGemm"}
    assert {op_type for _, op_type in {**LINEAR, **INTEGER}} <= tested


@pytest.mark.parametrize("op_type", ["MaxPool", "Reshape", "Transpose", "Concat", "Pad"])
def test_other_ops_between_quantised_numbers(op_type):
    """They pass the gradient as between floats."""
    more = {
        "MaxPool": ([], {"kernel_shape": [2, 2], "strides": [2, 2]}),
        "Reshape": (["sizes"], {}),
        "Transpose": ([], {"perm": [0, 2, 3, 1]}),
        "Concat": (["own"], {"axis": 1}),
        "Pad": (["pads", "fill"], {}),
    }
    inputs, attributes = more[op_type]
    constants = {
        "s": np.float32(0.02), "z": np.uint8(100), "sizes": np.array([0, -1], np.int64),
        "own": np.full((2, 1, 8, 8), 7, np.uint8), "pads": np.array([0, 0, 1, 1] * 2, np.int64),
        "fill": np.uint8(9),
    }  # fmt: skip
    constants = {k: v for k, v in constants.items() if k in ("s", "z", *inputs)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node(op_type, ["q", *inputs], ["r"], **attributes),
        helper.make_node("DequantizeLinear", ["r", "s", "z"], ["y"]),
    ]
    proto = model(nodes, SHAPE, constants, domain=False)
    x = (2 * normal(*SHAPE, seed=5)).astype(np.float32)
    _, _, gradient = run(proto, x)
    outside = (x < -100.5 * 0.02) | (x > 155.5 * 0.02)
    assert outside.any()
    assert not gradient[outside].any()
    assert gradient.any()
    if op_type not in ("MaxPool", "Pad", "Concat"):
        assert (gradient[~outside] != 0).all()
    twin_agrees(proto, x)


def test_a_scale_that_depends_on_the_image():
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["s"], keepdims=0),
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    proto = model(nodes, (1, 3, 4, 4), {"z": np.uint8(0)}, domain=False)
    with pytest.raises(UnsupportedOperator, match="scale or zero point depends on the image") as e:
        differentiate(proto)
    assert "\n" not in str(e.value)


def test_float8_is_refused():
    zero = helper.make_tensor("z", TensorProto.FLOAT8E4M3FN, [], [0.0])
    proto = pair((1, 4), 0.1, np.uint8(0), opset=21)
    proto.graph.initializer[1].CopyFrom(zero)
    with pytest.raises(UnsupportedOperator, match="only integer types"):
        differentiate(proto)


def test_channels_last_is_refused():
    proto = _pointwise("QLinearGlobalAveragePool", 1, None, channels_last=1)
    with pytest.raises((UnsupportedOperator, ModelError), match="channels_last"):
        differentiate(proto)
