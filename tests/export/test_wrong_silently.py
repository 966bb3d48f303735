"""Models that were attacked unlike themselves, silently: right now, or refused in one line."""

import json

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from jataug import AttackConfig, FlowBudget, PixelBudget
from jataug.artifact import KEY, load_artifact, prune
from jataug.errors import ArtifactError, CheckError, ModelError, UnsupportedOperator
from jataug.export import differentiate, export_attack
from jataug.export.gradient.split_vjp import split_vjp
from jataug.export.model.load import prepare
from jataug.preprocessing import Preprocessing

from .checking import on_runtime
from .graphs import graph

CLASSIFIER = Preprocessing()
CONFIG = AttackConfig(flow=FlowBudget(0.3), pixel=PixelBudget("8/255"), steps=2)


def masked_attention():
    """Attention of which one row is masked out whole, as torch writes it."""
    return graph(
        """net (float[N,2,3] x) => (float[N,2,2] y)
        <float[2,2] mask = {-inf, -inf, 0, 0}, float zero = {0}> {
            t = Transpose <perm = [0, 2, 1]> (x)
            scores = MatMul (x, t)
            held = Add (scores, mask)
            p = Softmax <axis = -1> (held)
            bad = IsNaN (p)
            y = Where (bad, zero, p)
        }"""
    )


def test_a_row_that_is_masked_out_has_a_gradient_of_zero_in_both_halves():
    model = masked_attention()
    x = np.random.default_rng(0).standard_normal((1, 2, 3)).astype(np.float32)
    g = np.random.default_rng(1).standard_normal((1, 2, 2)).astype(np.float32)
    expected = on_runtime(differentiate(model), {"x": x, "grad_y": g})[1]
    parts = split_vjp(prepare(model), None)
    _, *saved = on_runtime(parts.forward, {"image": x})
    feeds = {**dict(zip(parts.saved, saved, strict=True)), "cotangent": g}
    (found,) = on_runtime(parts.backward, feeds)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


def one_kernel_dequantised_twice(*, axis=(1, 1), zero=(0, 100), scale=(0.1,)):
    names = [("DequantizeLinear", i) for i in range(2)]
    scales = np.array(scale, np.float32)
    scales = scales[0] if len(scale) == 1 else scales
    weights = np.arange(9, dtype=np.uint8).reshape(3, 3)
    tensors = {"w": weights, "s": scales}
    for i, z in enumerate(zero):
        tensors[f"z{i}"] = np.full(np.shape(scales), z, np.uint8)
    nodes = []
    for op, i in names:
        nodes.append(helper.make_node(op, ["w", "s", f"z{i}"], [f"d{i}"], axis=axis[i]))
        nodes.append(helper.make_node("MatMul", ["x", f"d{i}"], [f"m{i}"]))
    nodes.append(helper.make_node("Mul", ["m0", "m1"], ["y"]))
    made = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", 1, ["N", 3])],
        [helper.make_tensor_value_info("y", 1, ["N", 3])],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in tensors.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


TWICE = {
    "another zero point": {},
    "another axis": {"axis": (0, 1), "zero": (1, 1), "scale": (0.1, 0.5, 2.0)},
}


@pytest.mark.parametrize("options", TWICE.values(), ids=TWICE)
def test_what_is_dequantised_twice_is_two_constants(options):
    model = one_kernel_dequantised_twice(**options)
    x = np.array([[1.0, -2.0, 0.5]], np.float32)
    g = np.array([[1.0, 0.5, -1.0]], np.float32)
    gradient = on_runtime(differentiate(model), {"x": x, "grad_y": g})[1]
    h = 2.0**-6  # the output is a quadratic form: differences are exact but for rounding
    for i, step in enumerate(np.eye(3, dtype=np.float32)[:, None] * np.float32(h)):
        ahead, behind = (on_runtime(model, {"x": x + s})[0] for s in (step, -step))
        slope = float(((ahead.astype(np.float64) - behind) * g).sum()) / (2 * h)
        assert gradient[0, i] == pytest.approx(slope, rel=1e-3, abs=1e-3)


RANDOM = {
    "RandomNormalLike": "noise = RandomNormalLike <mean = 0.0, scale = 1e-6> (x)",
    "RandomUniformLike": "noise = RandomUniformLike (x)",
    "RandomNormal": "noise = RandomNormal <shape = [3, 4, 4]> ()",
    "RandomUniform": "noise = RandomUniform <shape = [3, 4, 4]> ()",
    "Bernoulli": "half = Sigmoid (x) noise = Bernoulli (half)",
    "Dropout": "noise = Dropout (x, tiny, yes)",
}


@pytest.mark.parametrize("op_type", RANDOM)
def test_random_operators_are_refused_by_name_and_node(op_type):
    model = graph(
        f"""net (float[N,3,4,4] x) => (float[N,48] y)
        <float tiny = {{1e-7}}, bool yes = {{1}}> {{
            {RANDOM[op_type]}
            sum = Add (x, noise)
            y = Flatten (sum)
        }}"""
    )
    for node in model.graph.node:
        node.name = f"the_{node.op_type}"
    with pytest.raises(UnsupportedOperator, match=rf"{op_type}.*the_{op_type}.*(eval|same)"):
        prepare(model, preprocessing=CLASSIFIER)


def test_a_random_operator_in_a_loop_or_a_function_is_refused():
    inside = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 18, "own": 1]>
        net (float[N,3,4,4] x) => (float[N,48] y) { s = own.Noisy (x) y = Flatten (s) }
        <opset_import: ["": 18], domain: "own">
        Noisy (a) => (b) { n = RandomNormalLike (a) b = Add (a, n) }"""
    )
    looped = graph(
        """net (float[N,3,4,4] x) => (float[N,48] y) <int64 trips = {2}, bool go = {1}> {
            s = Loop (trips, go, x) <body = round (int64 i, bool c, float[N,3,4,4] a)
                => (bool d, float[N,3,4,4] b)
                { d = Identity (c) n = RandomNormalLike (a) b = Add (a, n) }>
            y = Flatten (s)
        }"""
    )
    for model in (inside, looped):
        with pytest.raises(UnsupportedOperator, match="RandomNormalLike"):
            prepare(model, preprocessing=CLASSIFIER)


def test_a_random_operator_that_nothing_needs_is_dropped():
    model = graph(
        """net (float[N,3,4,4] x) => (float[N,48] y) <bool no = {0}, float tenth = {0.1}> {
            noise = RandomNormalLike (x)
            z = Dropout (x, tenth, no)
            y = Flatten (z)
        }"""
    )
    network = prepare(model, preprocessing=CLASSIFIER)
    assert [node.op_type for node in network.nodes] == ["Flatten"]


MIXING = {
    "batch norm written out": "m = ReduceMean (x, axes) s = Mul (m, tiny) z = Sub (x, s)",
    "one image for all": "m = Gather <axis = 0> (x, zero) s = Mul (m, tiny) z = Add (x, s)",
    "a softmax over images": "m = Softmax <axis = 0> (x) s = Mul (m, tiny) z = Add (x, s)",
    "a sum along the batch": "m = CumSum (x, zero) s = Mul (m, tiny) z = Add (x, s)",
    "backwards": "m = Slice (x, minus, least, zeros, minus) s = Mul (m, tiny) z = Add (x, s)",
    "a product of images": """f = Flatten (x) t = Transpose (f) c = MatMul (t, f)
        r = ReduceMax <keepdims = 0> (c) s = Mul (r, tiny) z = Add (x, s)""",
}


@pytest.mark.parametrize("batch", ["N", "4"])
@pytest.mark.parametrize("lines", MIXING.values(), ids=MIXING)
def test_a_batch_whose_images_mix_is_refused_however_small_the_effect(lines, batch):
    model = graph(
        f"""net (float[{batch},3,4,4] x) => (float[{batch},48] y)
        <float tiny = {{1e-9}}, int64[3] axes = {{0, 2, 3}}, int64 zero = {{0}},
         int64[1] zeros = {{0}}, int64[1] minus = {{-1}}, int64[1] least = {{-1000}}> {{
            {lines}
            y = Flatten (z)
        }}"""
    )
    for node in model.graph.node:
        node.name = f"the_{node.op_type}"
    with pytest.raises(UnsupportedOperator, match=r"node 'the_.*other images of its batch"):
        prepare(model, preprocessing=CLASSIFIER)


@pytest.mark.parametrize("batch", ["N", "3"])
def test_the_check_sees_a_tiny_effect_that_no_shape_shows(batch, tmp_path):
    """The pixels of all images in one row, cut and sorted anew."""
    model = graph(
        f"""net (float[{batch},3,4,4] x) => (float[{batch},5] y)
        <int64[2] tall = {{48, -1}}, float tiny = {{1e-6}}> {{
            f = Flatten (x)
            cut = Reshape (x, tall)
            turned = Transpose (cut)
            t = Mul (turned, tiny)
            z = Add (f, t)
            y = MatMul (z, w)
        }}"""
    )
    weights = np.random.default_rng(0).standard_normal((48, 5)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    with pytest.raises(CheckError, match="other images of its batch"):
        export_attack(model, CONFIG, tmp_path / "a.onnx")


def test_a_file_of_one_image_may_do_as_it_likes():
    model = graph(
        """net (float[1,3,4,4] x) => (float[1,48] y) <int64[3] axes = {0, 2, 3}> {
            m = ReduceMean (x, axes)
            z = Sub (x, m)
            y = Flatten (z)
        }"""
    )
    assert prepare(model, preprocessing=CLASSIFIER).image_shape == (1, 3, 4, 4)


def test_raw_data_shorter_than_its_shape():
    model = graph("net (float[N,3,4,4] x) => (float[N,48] y) { y = Flatten (x) }")
    model.graph.initializer.add(name="w", data_type=1, dims=[4], raw_data=b"1234")
    model.graph.node[0].input[0] = "z"
    model.graph.node.insert(0, helper.make_node("Mul", ["x", "w"], ["z"]))
    with pytest.raises(ModelError, match=r"weight 'w'.*cannot be read"):
        prepare(model)
    tensor = onnx.TensorProto(name="c", data_type=1, dims=[4], raw_data=b"1234")
    del model.graph.initializer[:]
    model.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=tensor))
    with pytest.raises(ModelError, match=r"weight 'c'.*cannot be read"):
        prepare(model)


def test_a_file_that_onnxruntime_optimised_for_one_processor():
    model = graph("net (float[N,3,4,4] x) => (float[N,48] y) { y = Flatten (x) }")
    layout = helper.make_node("ReorderInput", ["x"], ["z"], domain="com.microsoft.nchwc", name="r")
    model.graph.node.insert(0, layout)
    model.graph.node[1].input[0] = "z"
    model.opset_import.append(helper.make_opsetid("com.microsoft.nchwc", 1))
    with pytest.raises(ModelError, match=r"optimised.*one processor.*original") as caught:
        prepare(model, preprocessing=CLASSIFIER)
    assert "'r'" in str(caught.value)


def test_an_operator_that_onnxruntime_fused():
    model = graph(
        "net (float[N,3,4,4] x) => (float[N,48] y) <float[3,3,1,1] w> { y = Flatten (x) }"
    )
    kernel = numpy_helper.from_array(np.ones((3, 3, 1, 1), np.float32), "w")
    model.graph.initializer.append(kernel)
    fused = helper.make_node("FusedConv", ["x", "w"], ["z"], domain="com.microsoft", name="f")
    model.graph.node.insert(0, fused)
    model.graph.node[1].input[0] = "z"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    with pytest.raises((ModelError, UnsupportedOperator), match=r"FusedConv.*optimis.*original"):
        prepare(model, preprocessing=CLASSIFIER)


def test_a_manifest_nested_without_end(tmp_path):
    model = graph("net (float[N,3,4,4] x) => (float[N,48] y) { y = Flatten (x) }")
    model.metadata_props.add(key=KEY, value="[" * 100_000 + "]" * 100_000)
    onnx.save(model, tmp_path / "deep.onnx")
    with pytest.raises(ArtifactError, match=r"deep.onnx.*manifest.*nested"):
        load_artifact(tmp_path / "deep.onnx")
    assert json.loads("[]") == []


def nested():
    """An If in an If, whose innermost branch alone reads `inner`; one branch gives `outer`."""
    return graph(
        """net (float[2] x, bool a, bool b) => (float[2] y, float[2] other) {
            inner = Neg (x)
            outer = Abs (x)
            unread = Exp (x)
            y = If (a) <then_branch = one () => (float[2] r) {
                    r = If (b) <then_branch = two () => (float[2] s) { s = Relu (inner) },
                                else_branch = three () => (float[2] t) { t = Identity (x) }>
                }, else_branch = four () => (float[2] u) {
                    u = If (b) <then_branch = five () => (float[2] v) { v = Identity (outer) },
                                else_branch = six () => (float[2] w) { w = Identity (outer) }>
                }>
            other = Sqrt (unread)
        }"""
    )


def test_a_node_that_only_a_nested_graph_reads_is_kept():
    model = nested()
    pruned = prune(model, ["y"])
    assert [node.op_type for node in pruned.graph.node] == ["Neg", "Abs", "If"]
    for a, b in ((True, True), (True, False), (False, True)):
        feeds = {"x": np.array([1, -2], np.float32), "a": np.array(a), "b": np.array(b)}
        np.testing.assert_array_equal(on_runtime(pruned, feeds)[0], on_runtime(model, feeds)[0])
