"""Every pass computes what it found: outputs before and after, on ONNX Runtime."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from jataug.errors import UnsupportedOperator
from jataug.export.model.folding.fold import (
    drop_identities,
    fold,
    fold_batch_norm,
    fold_constants,
    lift_constants,
)

from .checking import on_runtime

IMAGE = np.random.default_rng(0).standard_normal((2, 3, 6, 6)).astype(np.float32)


def array(*shape, seed=1, positive=False):
    drawn = np.random.default_rng(seed).standard_normal(shape)
    return (np.abs(drawn) + 0.2 if positive else drawn).astype(np.float32)


WEIGHTS = {
    "w": array(4, 3, 3, 3),
    "b": array(4, seed=2),
    "scale": array(4, seed=3),
    "shift": array(4, seed=4),
    "mean": array(4, seed=5),
    "var": array(4, seed=6, positive=True),
    "ratio": np.float32(0.4),
    "training": np.array(True),
    "testing": np.array(False),
    "axes": np.array([2, 3]),
    "behind": np.array([1, 2]),
    "first": np.array([0]),
}
NORM = ["scale", "shift", "mean", "var"]


def model(*nodes, outputs=("y",), opset=18):
    used = {name for node in nodes for name in node.input}
    weights = [numpy_helper.from_array(a, name) for name, a in WEIGHTS.items() if name in used]
    image = helper.make_tensor_value_info("x", 1, ["batch", 3, 6, 6])
    results = [helper.make_tensor_value_info(name, 1, None) for name in outputs]
    graph = helper.make_graph(list(nodes), "net", [image], results, weights)
    opsets = [helper.make_opsetid("", opset)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return onnx.shape_inference.infer_shapes(proto)


def conv(output, *bias, **attributes):
    return helper.make_node("Conv", ["x", "w", *bias], [output], **attributes)


def norm(source, output="y", **attributes):
    return helper.make_node("BatchNormalization", [source, *NORM], [output], **attributes)


def after(proto, change):
    """Return the op types that are left, having checked that the outputs are the same."""
    folded = ir.from_proto(proto)
    change(folded)
    changed = ir.to_proto(folded)
    onnx.checker.check_model(changed, full_check=True)
    expected, found = (on_runtime(m, {"x": IMAGE}) for m in (proto, changed))
    names = [value.name for value in proto.graph.output]
    assert [value.name for value in changed.graph.output] == names
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    return [node.op_type for node in changed.graph.node]


RELU = helper.make_node("Relu", ["c"], ["y"])
FOLDED = {
    "with bias": [conv("c", "b"), norm("c")],
    "without bias": [conv("c"), norm("c")],
    "with a bias left open": [conv("c", ""), norm("c")],
    "with attributes": [conv("c", "b", strides=[2, 2], pads=[1] * 4), norm("c", epsilon=0.1)],
    "in the middle": [conv("b0"), norm("b0", "c"), RELU],
}


@pytest.mark.parametrize("nodes", FOLDED.values(), ids=FOLDED)
def test_batch_norm_goes_into_the_conv(nodes):
    assert "BatchNormalization" not in after(model(*nodes), fold_batch_norm)


KEPT = {
    "two uses of the conv": (
        [conv("c", "b"), norm("c", "n"), helper.make_node("Add", ["n", "c"], ["y"])],
        ["y"],
    ),
    "the conv is an output": ([conv("c", "b"), norm("c")], ["y", "c"]),
    "no conv": ([helper.make_node("Concat", ["x", "x"], ["c"], axis=2), RELU], ["y"]),
    "computed statistics": (
        [
            conv("c", "b"),
            helper.make_node("ReduceMax", ["c", "axes"], ["most"], keepdims=0),
            helper.make_node("ReduceMax", ["most", "first"], ["each"], keepdims=0),
            helper.make_node("BatchNormalization", ["c", "each", *NORM[1:]], ["y"]),
        ],
        ["y"],
    ),
}


@pytest.mark.parametrize(("nodes", "outputs"), KEPT.values(), ids=KEPT)
def test_batch_norm_stays(nodes, outputs):
    proto = model(*nodes, outputs=outputs)
    assert after(proto, fold_batch_norm) == [node.op_type for node in proto.graph.node]


def test_batch_norm_in_training_form_stays():
    proto = model(conv("c", "b"), norm("c", training_mode=1), opset=15)
    proto.graph.node[1].output.extend(["running_mean", "running_var"])
    changed = ir.from_proto(proto)
    fold_batch_norm(changed)
    assert [node.op_type for node in changed.graph] == ["Conv", "BatchNormalization"]


def test_a_kernel_that_two_convs_share_is_folded_into_one_alone():
    total = helper.make_node("Add", ["n", "c2"], ["y"])
    nodes = [conv("c", "b"), norm("c", "n"), conv("c2", "b"), total]
    assert after(model(*nodes), fold_batch_norm) == ["Conv", "Conv", "Add"]


CONSTANTS = {
    "value": {"value": numpy_helper.from_array(array(4, 1, 1))},
    "value_float": {"value_float": 0.5},
    "value_floats": {"value_floats": [1.0, 2.0, 3.0, 4.0]},
}


@pytest.mark.parametrize("attributes", CONSTANTS.values(), ids=CONSTANTS)
def test_constant_nodes_become_initializers(attributes):
    constant = helper.make_node("Constant", [], ["k"], **attributes)
    total = helper.make_node("Mul", ["c", "k"], ["y"])
    assert after(model(conv("c"), constant, total), lift_constants) == ["Conv", "Mul"]


def test_constants_are_computed():
    nodes = [
        helper.make_node("Add", ["b", "shift"], ["sum"]),
        helper.make_node("Abs", ["sum"], ["size"]),
        helper.make_node("Unsqueeze", ["size", "behind"], ["column"]),
        conv("c"),
        helper.make_node("Mul", ["c", "column"], ["y"]),
    ]
    assert after(model(*nodes), fold_constants) == ["Conv", "Mul"]


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("RandomUniformLike", ["b"], ["noise"]),
        helper.make_node("Bernoulli", ["b"], ["noise"]),
        helper.make_node("Shape", ["x"], ["size"]),
    ],
    ids=lambda node: node.op_type,
)
def test_what_differs_from_call_to_call_is_not_computed(node):
    changed = ir.from_proto(model(conv("y"), node))
    fold_constants(changed)
    assert [node.op_type for node in changed.graph] == ["Conv", node.op_type]


def test_identities_are_bypassed():
    nodes = [
        helper.make_node("Identity", ["x"], ["i"]),
        helper.make_node("Dropout", ["i", "ratio"], ["d"]),
        helper.make_node("Dropout", ["d", "ratio", "testing"], ["e"]),
        helper.make_node("Identity", ["e"], ["f"]),
        helper.make_node("Relu", ["f"], ["y"]),
    ]
    assert after(model(*nodes), drop_identities) == ["Relu"]


def test_an_identity_that_is_an_output_stays():
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Identity", ["r"], ["y"])]
    assert after(model(*nodes), drop_identities) == ["Relu", "Identity"]


def test_dropout_in_training_form_is_refused():
    node = helper.make_node("Dropout", ["x", "ratio", "training"], ["y"], name="drop")
    with pytest.raises(UnsupportedOperator, match=r"Dropout \(node 'drop'\).*eval"):
        drop_identities(ir.from_proto(model(node)))


def test_nodes_in_any_order_and_unused_ones():
    nodes = [norm("c"), conv("c", "b"), helper.make_node("Relu", ["c2"], ["r"]), conv("c2")]
    folded = fold(ir.from_proto(model(*nodes)))
    assert [node.op_type for node in folded.graph] == ["Conv"]


def test_functions_of_the_model_are_inlined():
    body = helper.make_function(
        "local", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 18)],
    )  # fmt: skip
    proto = model(helper.make_node("Add", ["x", "x"], ["y"]))
    proto.graph.node[0].CopyFrom(helper.make_node("Twice", ["x"], ["y"], domain="local"))
    proto.functions.append(body)
    proto.opset_import.append(helper.make_opsetid("local", 1))
    assert after(proto, fold) == ["Add"]
