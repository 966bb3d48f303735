"""Matrix products, einsum and softmax."""

import itertools

import numpy as np
import pytest
from onnx import numpy_helper

from jataug.export import differentiate

from .checking import case, check_gradient, ids, normal, on_runtime
from .graphs import graph

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
EQUATIONS = [
    ("ij,jk->ik", [(2, 3), (3, 4)]),
    ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)]),
    ("bhid,bhjd->bhij", [(2, 2, 3, 4), (2, 2, 5, 4)]),
    ("ij,jk", [(2, 3), (3, 4)]),
    ("ki,kj", [(2, 3), (2, 4)]),
    ("ij->ji", [(2, 3)]),
    ("ij->i", [(2, 3)]),  # an axis of one input alone is summed
    ("ij->", [(2, 3)]),
    ("ij,k->ik", [(2, 3), (4,)]),
    ("i,j->ij", [(2,), (3,)]),
    ("i,i", [(3,), (3,)]),
    ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)]),
    ("bi,oi->bo", [(2, 3), (4, 3)]),
    (" b i , o i -> b o ", [(2, 3), (4, 3)]),
    ("...ij,...jk->...ik", [(2, 3, 4), (2, 4, 5)]),
    ("...ij,...jk", [(2, 1, 3, 4), (1, 3, 4, 5)]),  # stretched, and in implicit form
    ("...i,i->...", [(2, 3, 4), (4,)]),
    ("b...c,cd->b...d", [(2, 3, 4, 5), (5, 2)]),
    ("aB,Bc->ca", [(2, 3), (3, 4)]),
    ("ii->i", [(3, 3)]),
    ("ii", [(3, 3)]),
    ("iji->j", [(3, 2, 3)]),
    ("iii->i", [(3, 3, 3)]),
    ("bijij,bj->bi", [(2, 3, 4, 3, 4), (2, 4)]),
    ("...ii->...i", [(2, 3, 3)]),
    ("ijj,jk->ik", [(2, 3, 3), (3, 4)]),
]
EINSUMS = [
    case("Einsum", *shapes, active=active, equation=equation)
    for equation, shapes in EQUATIONS
    for active in [(i,) for i in range(len(shapes))] + [tuple(range(len(shapes)))]
]
SOFTMAXES = [
    case(op_type, (2, 3, 4, 5), axis=axis)
    for op_type in ("Softmax", "LogSoftmax")
    for axis in (0, 1, 2, 3, -1, -2)
] + [case(op_type, (3, 5)) for op_type in ("Softmax", "LogSoftmax")]
INDICES = np.array([[0, 2, 1], [2, 2, 7]])
ONE_HOTS = [
    case("OneHot", INDICES, np.array(4), (2,), active=(2,), axis=axis) for axis in (0, 1, -1)
]
CASES = [*GEMMS, *MATMULS, *EINSUMS, *ONE_HOTS, *SOFTMAXES]


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


def test_rows_masked_out_whole_are_zero_where_they_are_sifted_out():
    """As torch exports its attention: a softmax over nothing, and a Where that takes it away."""
    proto = graph("""net (float[2, 3] x) => (float[2, 3] y)
    <float[2, 3] mask = {0, 0, 0, 0, 0, 0}, float zero = {0}> {
      masked = Add(x, mask)
      p = Softmax <axis = -1> (masked)
      again = Identity(p)
      none = IsNaN(again)
      y = Where(none, zero, again)
    }""")
    mask = np.array([[0, -np.inf, 0], [-np.inf] * 3], np.float32)
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(mask, "mask"))
    x, seed = (normal(2, 3, seed=i).astype(np.float32) for i in (1, 2))
    value, found = on_runtime(differentiate(proto), {"x": x, "grad_y": seed})
    p = np.exp(x[0, ::2]) / np.exp(x[0, ::2]).sum()
    expected = np.zeros((2, 3))
    expected[0, ::2] = p * (seed[0, ::2] - (p * seed[0, ::2]).sum())
    np.testing.assert_allclose(value[0, ::2], p, rtol=1e-5)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
