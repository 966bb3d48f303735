"""Composite ops without a rule go through the function body of their schema."""

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx import helper
from torch.nn import functional as F  # noqa: N812

from jataug.export import differentiate
from jataug.export.model.folding.functions import expand_functions

from .checking import case, check_gradient, ids, normal, on_onnx, on_runtime

HEADS = [(2, 3, 4, 8), (2, 3, 5, 8), (2, 3, 5, 6)]
GROUPED = [(2, 4, 4, 8), (2, 2, 5, 8), (2, 2, 5, 6)]
FLAT = [(2, 4, 24), (2, 5, 24), (2, 5, 12)]
DOUBLE = {"softmax_precision": 11}
EXPANDED = [
    *(case("Attention", *HEADS, active=(0, 1, 2), opset=opset) for opset in (23, 24, 25, 26)),
    case("Attention", *HEADS, opset=24, scale=0.3, softcap=2.0),
    case("Attention", *GROUPED, active=(0, 1, 2), opset=24),
    case("Attention", *FLAT, active=(0, 1, 2), opset=24, q_num_heads=3, kv_num_heads=3, **DOUBLE),
    case("Attention", *HEADS, active=(0, 1, 2), opset=24, is_causal=1, **DOUBLE),
    case("Attention", *HEADS, normal(4, 5, seed=8) > -0.5, opset=24, **DOUBLE),
    case("Attention", *HEADS, (4, 5), active=(0, 3), opset=24, **DOUBLE),
    case("RotaryEmbedding", (2, 3, 4, 8), (2, 4, 4), (2, 4, 4), opset=23, linear=True),
    case("RotaryEmbedding", (2, 4, 24), (2, 4, 4), (2, 4, 4), opset=23, linear=True, num_heads=3),
    case(
        "RotaryEmbedding", (2, 3, 4, 8), (2, 4, 4), (2, 4, 4), opset=23, linear=True, interleaved=1
    ),
    *(case("CastLike", (2, 3), np.array(1.0), opset=opset) for opset in (18, 21, 25)),
]


@pytest.mark.parametrize("case", EXPANDED, ids=ids(EXPANDED))
def test_gradient(case):
    check_gradient(case)


ROW_MASKED = (normal(4, 5, seed=8) > -0.5) & (np.arange(4) != 2)[:, None]
"""The third query may look at nothing; the standard gives it zeros."""
MASKED = [
    case("Attention", *HEADS, ROW_MASKED, active=(0, 1, 2), opset=23, **DOUBLE),
    case("Attention", *HEADS, ROW_MASKED, active=(0, 1, 2), opset=24, is_causal=1, **DOUBLE),
]


@pytest.mark.parametrize("case", MASKED, ids=ids(MASKED))
@pytest.mark.filterwarnings("ignore:invalid value")  # onnx's evaluator, in the masked row
def test_a_row_that_is_masked_out_whole(case):
    check_gradient(case)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_over_a_symbolic_batch_agrees_with_torch(causal):
    q, k, v = (normal(*shape, seed=i).astype(np.float32) for i, shape in enumerate(HEADS))
    model = case("Attention", q, k[:1], v[:1], opset=23, is_causal=int(causal)).model(np.float32)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    # Keys and values of the batch's own size: copies of the queries.
    model.graph.node[0].input[:] = ["x0", "x0", "x0"]
    leaf = torch.tensor(q, requires_grad=True)
    expected = F.scaled_dot_product_attention(leaf, leaf, leaf, is_causal=causal)
    cotangent = normal(*expected.shape, seed=7).astype(np.float32)
    expected.backward(torch.tensor(cotangent))
    vjp = differentiate(model)
    value, found = on_runtime(vjp, {"x0": q, "grad_y": cotangent})
    np.testing.assert_allclose(value, expected.detach().numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found, leaf.grad.numpy(), rtol=1e-3, atol=1e-5)
    assert vjp.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


@pytest.mark.parametrize("alpha", [1.0, 1.5])
def test_swiglu_agrees_with_torch(alpha):
    """ONNX Runtime does not have it yet."""
    gate, value = normal(2, 3), normal(2, 3, seed=1)
    model = case("SwiGLU", gate, value, active=(0, 1), opset=28, alpha=alpha)
    leaf = torch.tensor(model.start, requires_grad=True)
    a, b = leaf.reshape(2, 2, 3)
    cotangent = normal(2, 3, seed=2)
    (a * torch.sigmoid(alpha * a) * b).backward(torch.tensor(cotangent))
    vjp = differentiate(model.model(np.float64))
    found = on_onnx(vjp, {"vector": model.start, "grad_y": cotangent})[1]
    np.testing.assert_allclose(found, leaf.grad.numpy(), rtol=1e-9)


@pytest.mark.parametrize("activation", ["none", "silu"])
def test_a_causal_convolution_agrees_with_torch(activation):
    """Neither ONNX Runtime nor float64 has it."""
    x, w, b = normal(2, 3, 6), normal(3, 1, 4, seed=1), normal(3, seed=2)
    model = case("CausalConvWithState", x, w, b, opset=27, activation=activation).model(np.float32)
    model.graph.node[0].output.append("state")
    leaf = torch.tensor(x.astype(np.float32), requires_grad=True)
    weights = [torch.tensor(a.astype(np.float32)) for a in (w, b)]
    expected = F.conv1d(F.pad(leaf, (3, 0)), *weights, groups=3)
    expected = F.silu(expected) if activation == "silu" else expected
    cotangent = normal(*expected.shape, seed=7).astype(np.float32)
    expected.backward(torch.tensor(cotangent))
    feeds = {"x0": x.astype(np.float32), "grad_y": cotangent}
    value, found = on_onnx(differentiate(model), feeds)
    np.testing.assert_allclose(value, expected.detach().numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found, leaf.grad.numpy(), rtol=1e-4, atol=1e-5)


def test_linear_attention_agrees_with_torch():
    q, k, v = (normal(2, 4, 16, seed=i) for i in range(3))
    options = {"q_num_heads": 2, "kv_num_heads": 2, "update_rule": "linear", "scale": 0.5}
    attention = case("LinearAttention", q, k, v, active=(0, 1, 2), opset=27, **options)
    model = attention.model(np.float32)
    model.graph.node[-1].output.append("state")
    leaf = torch.tensor(attention.start.astype(np.float32), requires_grad=True)
    heads = leaf.reshape(3, 2, 4, 2, 8).transpose(2, 3)
    scores = (heads[0] @ heads[1].transpose(-1, -2)).tril() * 0.5
    expected = (scores @ heads[2]).transpose(1, 2).reshape(2, 4, 16)
    cotangent = normal(2, 4, 16, seed=7).astype(np.float32)
    expected.backward(torch.tensor(cotangent))
    feeds = {"vector": attention.start.astype(np.float32), "grad_y": cotangent}
    value, found = on_onnx(differentiate(model), feeds)
    np.testing.assert_allclose(value, expected.detach().numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found, leaf.grad.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("align_corners", [0, 1])
@pytest.mark.parametrize("size", [(2, 3, 4, 5), (2, 3, 4, 5, 3)])
def test_an_affine_grid_agrees_with_torch(size, align_corners):
    rank = len(size) - 2
    theta = normal(2, rank, rank + 1)
    options = {"opset": 20, "align_corners": align_corners}
    model = case("AffineGrid", theta, np.array(size), **options).model(np.float64)
    leaf = torch.tensor(theta, requires_grad=True)
    expected = F.affine_grid(leaf, size, bool(align_corners))
    cotangent = normal(*expected.shape, seed=7)
    expected.backward(torch.tensor(cotangent))
    value, found = on_onnx(differentiate(model), {"x0": theta, "grad_y": cotangent})
    np.testing.assert_allclose(value, expected.detach().numpy(), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found, leaf.grad.numpy(), rtol=1e-5, atol=1e-5)


def test_a_cast_like_a_computed_value():
    """The value whose type is taken is no path of the gradient."""
    model = case("CastLike", (2, 3), np.array(1.0)).model(np.float32)
    model.graph.node[0].input[:] = ["x0", "half"]
    model.graph.node.insert(0, helper.make_node("Cast", ["x0"], ["half"], to=10))
    model.graph.output[0].type.tensor_type.elem_type = 10
    seed = normal(2, 3, seed=1).astype(np.float16)
    found = on_runtime(differentiate(model), {"x0": np.ones((2, 3), "f"), "grad_y": seed})[1]
    np.testing.assert_array_equal(found, seed.astype(np.float32))


@pytest.mark.parametrize("op_type", ["Selu", "ReduceL2", "LayerNormalization"])
def test_an_op_that_has_a_rule_stays_whole(op_type):
    inputs = [(2, 3), (3,)] if op_type == "LayerNormalization" else [(2, 3)]
    vjp = differentiate(case(op_type, *inputs).model(np.float32))
    assert op_type in [node.op_type for node in vjp.graph.node]


def test_nothing_to_expand():
    assert not expand_functions(ir.from_proto(case("Relu", (2, 3)).model(np.float32)))


def test_what_stands_in_for_an_op_is_inlined_whole():
    model = ir.from_proto(case("Attention", *HEADS, opset=24).model(np.float32))
    assert expand_functions(model)
    assert not model.functions
    assert {node.domain for node in model.graph} == {""}
    assert "Attention" not in {node.op_type for node in model.graph}
