import numpy as np
import onnx
import pytest

from jataug.errors import UnsupportedOperator
from jataug.export import differentiate

from .checking import normal, on_onnx, on_runtime
from .graphs import check_graph, graph

TAIL = "z = Mul (w, w)\n            y = ReduceSum <keepdims = 0> (z, two)"
WEIGHTS = "<int64[1] two = {2}, bool yes = {1}, bool no = {0}, int64 three = {3}, int64 none = {0}>"


def model(body, shape="double[2,3,4]", opset=18):
    return graph(
        f"""
        g ({shape} x) => ({shape.split("[")[0]} y) {WEIGHTS}
        {{
            {body}
            {TAIL}
        }}""",
        opset,
    )


BRANCHES = """<then_branch = a () => (double p) { p = Exp (x) },
            else_branch = b () => (double q) { q = Sin (x) }>"""
COUNTED = """Loop (three, yes, x) <
            body = b (int64 i, bool go, double[2,3,4] s) => (bool on, double[2,3,4] t)
            {
                on = Identity (go)  f = Cast <to = 11> (i)
                u = Sin (s)  v = Mul (u, x)  t = Add (v, f)
            }>"""
LOOPS = {
    "then": f"w = If (yes) {BRANCHES}",
    "else": f"w = If (no) {BRANCHES}",
    "an outer value": "o = Tanh (x)  w = If (yes) <then_branch = a () => (double p)"
    " { p = Identity (o) }, else_branch = b () => (double q) { q = Sin (x) }>",
    "a computed condition": f"c = Greater (three, none)  w = If (c) {BRANCHES}",
    "a condition on the shape": "s = Shape (x)  n = Size (s)  c = Equal (n, three)"
    f"  w = If (c) {BRANCHES}",
    "counted": f"w = {COUNTED}",
    "no iteration": f"w = {COUNTED.replace('three', 'none', 1)}",
    "while": """k, w = Loop (, yes, none, x) <
            body = b (int64 i, bool go, int64 n, double[2,3,4] s) =>
            (bool on, int64 m, double[2,3,4] t)
            {
                one = Constant <value_int = 1> ()  m = Add (n, one)
                on = Less (m, three)  t = Sin (s)
            }>""",
    "collecting": """e, c = Loop (three, yes, x) <body = b (int64 i, bool go, double[2,3,4] s) =>
            (bool on, double[2,3,4] t, double[2,4] r)
            { on = Identity (go)  t = Sin (s)  r = Gather <axis = 1> (t, i) }>
            f = Transpose <perm = [1, 0, 2]> (c)  w = Add (e, f)""",
    "nested": """w = Loop (three, yes, x) <body = b (int64 i, bool go, double[2,3,4] s) =>
            (bool on, double[2,3,4] t)
            { on = Identity (go)  c = Equal (i, none)
              t = If (c) <then_branch = d () => (double p) { p = Sin (s) },
                          else_branch = e () => (double q) { q = Mul (s, x) }> }>""",
    "scan": """v = Transpose <perm = [2, 0, 1]> (x)  h = ReduceSum <keepdims = 0> (x, two)
            last, all = Scan (h, v) <num_scan_inputs = 1,
            body = b (double[2,3] s, double[2,3] e) => (double[2,3] t, double[2,3] r)
            { u = Mul (s, e)  t = Sin (u)  r = Add (t, e) }>
            w = Transpose <perm = [1, 2, 0]> (all)""",
    "scan backward": """h = ReduceSum <keepdims = 0> (x, two)
            last, w = Scan (h, x) <num_scan_inputs = 1, scan_input_axes = [2],
            scan_input_directions = [1], scan_output_axes = [2], scan_output_directions = [1],
            body = b (double[2,3] s, double[2,3] e) => (double[2,3] t, double[2,3] r)
            { u = Mul (s, e)  t = Sin (u)  r = Add (t, e) }>""",
}


LOOPS_OVER_IMAGES = """h = ReduceSum <keepdims = 0> (x, first)
            last, w = Scan (h, x) <num_scan_inputs = 1,
            body = b (double[3,4] s, double[3,4] e) => (double[3,4] t, double[3,4] r)
            { u = Mul (s, e)  t = Sin (u)  r = Add (t, e) }>"""


def test_a_scan_over_a_fixed_batch():
    body = LOOPS_OVER_IMAGES
    network = model(body)
    network.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0]), "first"))
    check_graph(network, normal(2, 3, 4))


def test_a_scan_over_any_batch_is_refused():
    network = model(LOOPS_OVER_IMAGES, "double[N,3,4]")
    network.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0]), "first"))
    with pytest.raises(UnsupportedOperator, match="the batch or data"):
        differentiate(network)


@pytest.mark.parametrize("name", LOOPS)
def test_gradient(name):
    # onnx's own evaluator joins what a Loop collects, and scans forward only.
    original = name not in ("collecting", "scan backward")
    vjp = check_graph(model(LOOPS[name]), normal(2, 3, 4), original=original)
    assert not {node.op_type for node in vjp.graph.node} & {"If", "Loop", "Scan"}


@pytest.mark.parametrize("body", LOOPS.values(), ids=LOOPS)
def test_the_value_stays(body):
    """In float32 by ONNX Runtime, before and after; check_graph compares onnx's own evaluator."""
    single = body.replace("double", "float").replace("to = 11", "to = 1")
    network = model(single, "float[2,3,4]")
    x = normal(2, 3, 4).astype(np.float32)
    (expected,) = on_runtime(network, {"x": x})
    found = on_runtime(differentiate(network), {"x": x, "grad_y": np.ones_like(expected)})[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_batch_of_any_size():
    network = model(LOOPS["counted"].replace("[2,3,4]", ""), "double[N,3,4]")
    vjp = differentiate(network)
    images, seeds = normal(5, 3, 4), normal(5, 3)
    whole = on_onnx(vjp, {"x": images, "grad_y": seeds})[1]
    one = on_onnx(vjp, {"x": images[3:4], "grad_y": seeds[3:4]})[1]
    np.testing.assert_allclose(whole[3:4], one, rtol=1e-12)


DATA = "a = ReduceSum <keepdims = 0> (x)  b = Cast <to = 7> (a)  c = Cast <to = 9> (a)"


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (f"{DATA}  w = If (c) {BRANCHES}", r"If \(node .*its condition"),
        (f"{DATA}  w = {COUNTED.replace('three', 'b')}", r"Loop \(node .*trip count"),
        (f"{DATA}  w = {COUNTED.replace('yes', 'c')}", r"Loop \(node .*trip count"),
        (
            f"{DATA}  w = {COUNTED.replace('Identity (go)', 'Identity (c)')}",
            r"Loop \(node .*goes on",
        ),
        (
            f"m = Constant <value_int = 1001> ()  w = {COUNTED.replace('three', 'm')}",
            "more than 1000",
        ),
    ],
    ids=["If", "trips", "start", "goes on", "too many"],
)
def test_refusals(body, match):
    with pytest.raises(UnsupportedOperator, match=match):
        differentiate(model(body))


def test_a_loop_that_nothing_reads_is_no_obstacle():
    body = f"{DATA}  unread = {COUNTED.replace('three', 'b')}  w = Sin (x)"
    check_graph(model(body), normal(2, 3, 4))
