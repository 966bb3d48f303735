import numpy as np
import pytest

from jataug.errors import UnsupportedOperator
from jataug.export import differentiate

from .checking import case, check_gradient, distinct, ids, normal, on_onnx
from .graphs import check_graph, graph

X = (2, 3, 4, 5)


def ints(*values):
    return np.array(values, np.int64)


GATHERS = [
    case("Gather", X, ints(0, 2, 0), axis=1),
    case("Gather", X, np.array(1), axis=2),
    case("Gather", X, np.array(-1), axis=-1),
    case("Gather", X, ints(3, -1, 0, 0, -4), axis=2),
    case("Gather", X, ints(*[2] * 12, 1), axis=3),
    case("Gather", X, ints(*[2] * 12, 1), axis=1),
    case("Gather", X, ints([[0, 1], [1, 2]], [[2, 2], [1, 0]]), axis=3),
    case("Gather", X, ints(1, 1)),
    case("Gather", (5,), ints(0, 0, 1, 1, 2, 2, 3, 3, 4, 4)),
    case("Gather", (5,), ints(*[3] * 20)),
    case("Gather", X, ints(3, 1, 4, 0, 2).astype(np.int32), axis=3),
]
ELEMENTS = [
    case("GatherElements", (3, 4), ints([0, 2, 1, 0], [1, -1, 1, 0])),
    case("GatherElements", (3, 4), ints([0, 3], [-1, 3], [2, 2]), axis=1),
    case("GatherElements", (2, 3, 4), ints([[0, 1, 1, 0]], [[1, 1, 1, 0]]), axis=1),
]
NESTED = [
    case("GatherND", (3, 4, 2), ints([0, 1], [2, -1], [0, 1])),
    case("GatherND", (3, 4, 2), ints([[1], [1]], [[2], [0]])),
    case("GatherND", (2, 3, 4), ints([1], [-1]), batch_dims=1),
    case("GatherND", (2, 3, 4, 2), ints([[0, 1], [0, 1]], [[1, 1], [2, 3]]), batch_dims=1),
    case("GatherND", (2, 3, 4), ints([0], [3])[:, None].repeat(3, 1), batch_dims=2),
]
SCATTERS = [
    *(
        case("ScatterElements", (3, 4), ints([0, 2, 1, 0], [1, -2, 2, 1]), (2, 4), active=active)
        for active in ((0,), (2,), (0, 2))
    ),
    # onnx's own GatherElements wants full sizes on the other axes: ONNX Runtime is the oracle.
    case(
        "ScatterElements",
        (3, 4),
        ints([0, 3], [-1, 2]),
        (2, 2),
        axis=-1,
        active=(0, 2),
        linear=True,
    ),
    *(
        case("ScatterND", (4, 3), ints([2], [-4]), (2, 3), active=active)
        for active in ((0,), (2,), (0, 2))
    ),
    case("ScatterND", (4, 3), ints([2, 0], [1, -1]), (2,), active=(0, 2)),
    case(
        "ScatterElements",
        (3, 4),
        ints([0, 0, 1, 0], [0, 0, 1, 1]),
        (2, 4),
        active=(0, 2),
        reduction="add",
    ),
    case("ScatterND", (4, 3), ints([2], [2]), (2, 3), active=(0, 2), reduction="add"),
]
ELSEWHERE = {("TopK", 0)}
CASES = [*GATHERS, *ELEMENTS, *NESTED, *SCATTERS]


@pytest.mark.parametrize("case", CASES, ids=ids(CASES))
def test_gradient(case):
    check_gradient(case)


@pytest.mark.parametrize(
    ("axis", "largest", "read"),
    [(-1, 1, "Mul (v, v)"), (1, 0, "Mul (v, v)"), (-1, 1, "ReduceProd <keepdims = 0> (v, two)")],
)
def test_top_k(axis, largest, read):
    text = f"""
        g (double[2,6,5] x) => (double y) <int64[1] k = {{3}}, int64[1] two = {{2}}>
        {{
            v, i = TopK <axis = {axis}, largest = {largest}> (x, k)
            y = {read}
        }}"""
    vjp = check_graph(graph(text), distinct(2, 6, 5), step=1e-4)
    assert not {node.op_type for node in vjp.graph.node} & {"ScatterElements", "ScatterND"}


COMPUTED = {
    "Gather": "i = ArgMax <axis = 1, keepdims = 0> (m)  z = Gather <axis = 2> (x, i)",
    "Gather of one": "i = ArgMax <axis = 0, keepdims = 0> (p)  z = Gather <axis = 1> (x, i)",
    "GatherElements": "i = ArgMax <axis = 1> (x)  z = GatherElements <axis = 1> (x, i)",
    "GatherND": "a = ArgMax <axis = 2, keepdims = 1> (x)  z = GatherND <batch_dims = 2> (x, a)",
    "ScatterElements": "i = ArgMax <axis = 1, keepdims = 1> (x)  w = ReduceMean (x, one)"
    "  z = ScatterElements <axis = 1> (x, i, w)",
}


@pytest.mark.parametrize("name", COMPUTED)
def test_computed_indices(name):
    text = f"""
        g (double[2,4,3] x) => (double y)
        <int64[1] zero = {{0}}, int64[1] one = {{1}}, int64[1] all = {{0}}>
        {{
            m = ReduceSum <keepdims = 0> (x, zero)
            p = ReduceSum <keepdims = 0> (m, one)
            {COMPUTED[name]}
            y = Mul (z, z)
        }}"""
    vjp = check_graph(graph(text), distinct(2, 4, 3) / 8, step=1e-5)
    scatters = [node for node in vjp.graph.node if node.op_type.startswith("Scatter")]
    assert all(attribute.name != "reduction" for node in scatters for attribute in node.attribute)


def test_computed_indices_of_few_rows():
    """onnx's own evaluator wants all rows: ONNX Runtime is the oracle."""
    text = """
        g (float[2,4,3] x) => (float y) <int64[1] zero = {0}, int64[1] one = {1}>
        {
            a = ArgMax <axis = 2> (x)
            i = Slice (a, zero, one, one)
            y = GatherElements <axis = 2> (x, i)
        }"""
    check_graph(graph(text), distinct(2, 4, 3).astype(np.float32), step=1 / 8)


def test_computed_pairs():
    """GatherND at pairs that follow from the image, one of them counted from the end."""
    text = """
        g (double[3,4,2] x) => (double y) <int64[1] zero = {0}, int64[2] end = {0, 4}>
        {
            m = ReduceSum <keepdims = 0> (x, zero)
            a = ArgMax <axis = 0, keepdims = 1> (m)
            b = Sub (a, end)
            i = Concat <axis = 0> (a, b)
            z = GatherND (x, i)
            y = Mul (z, z)
        }"""
    check_graph(graph(text), distinct(3, 4, 2) / 8, step=1e-5)


def test_a_batch_of_any_size():
    text = """
        g (float[N,6,4] x) => (float y) <int64[3] i = {0, 5, 0}, int64[1] k = {2}>
        {
            a = Gather <axis = 1> (x, i)
            b, j = TopK <axis = 1> (a, k)
            c = GatherElements <axis = 1> (x, j)
            y = Add (b, c)
        }"""
    check_graph(graph(text), distinct(3, 6, 4).astype(np.float32), step=0.25)


@pytest.mark.parametrize(
    ("node", "match"),
    [
        ("y = Gather <axis = 0> (x, i)", "Gather along axis 0 .* mixes the images"),
        ("y = GatherND (x, p)", "batch"),
        ("y = ScatterND (w, q, u)", "occurs twice"),
        ('y = ScatterND <reduction = "mul"> (x, p, u)', "'mul'"),
    ],
)
def test_refusals(node, match):
    text = f"""
        g (float[N,3] x) => (float y)
        <int64[1] i = {{0}}, int64[2,2] p = {{0, 1, 0, 1}}, int64[2,1] q = {{1, -1}},
        float[2] w = {{1.0, 2.0}}>
        {{
            s = ReduceMax <keepdims = 0> (x)
            u = Mul (w, s)
            {node}
        }}"""
    with pytest.raises(UnsupportedOperator, match=match):
        differentiate(graph(text))


def test_a_table_that_is_too_large_is_refused():
    text = """
        g (float[N,100000] x) => (float y) <int64[1] k = {1000}>
        { y, i = TopK (x, k) }"""
    with pytest.raises(UnsupportedOperator, match=r"table of .* entries"):
        differentiate(graph(text))


def test_cotangents_of_one_place_add_up_exactly():
    model = case("Gather", (4,), ints(1, 1, -3, 2)).model(np.float64)
    feeds = {"x0": normal(4), "grad_y": np.array([1.0, 2, 4, 8])}
    np.testing.assert_array_equal(on_onnx(differentiate(model), feeds)[1], [0, 7, 8, 0])
