"""What is said of a model: before (survey), and of its gradient (report, check)."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from jataug.errors import CheckError
from jataug.export.check.differentiation import check_vjp, report
from jataug.export.gradient.differentiate import vjp
from jataug.export.model.load import prepare
from jataug.export.preflight import survey
from jataug.preprocessing import Preprocessing

from .checking import normal


def model(nodes, weights=None, shape=("batch", 3, 6, 6), domain=False):
    base = {"w": normal(4, 3, 3, 3), "v": normal(4, 5)}
    arrays = {n: np.asarray(a, np.float32) for n, a in {**base, **(weights or {})}.items()}
    results = [helper.make_tensor_value_info("y", 1, ["batch", 5])]
    graph = helper.make_graph(
        [helper.make_node(op, i.split(), o.split(), f"{op}_{o}", **kw) for op, i, o, kw in nodes],
        "net",
        [helper.make_tensor_value_info("x", 1, shape)],
        results,
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.example", 1)]
    return helper.make_model(graph, opset_imports=opsets[: 1 + domain], ir_version=8)


NET = [
    ("Conv", "x w", "c", {}),
    ("Floor", "c", "d", {}),
    ("Mul", "c d", "e", {}),
    ("Tanh", "e", "t", {}),
    ("GlobalAveragePool", "t", "p", {}),
    ("Flatten", "p", "f", {}),
    ("MatMul", "f v", "y", {}),
]


def test_a_report_counts_rules_and_flat_ops():
    found = report(prepare(model(NET)))
    assert found.nodes == 7
    ops = ("Conv", "Mul", "Tanh", "GlobalAveragePool", "Flatten", "MatMul")
    assert found.rules == dict.fromkeys(ops, 1)
    assert found.flat == {"Floor": 1}


def test_the_check_accepts_a_right_gradient_and_refuses_a_wrong_one():
    network = prepare(model([NET[0], ("Tanh", "c", "t", {}), *NET[4:]]))
    gradient = vjp(network)
    runtime, error = check_vjp(gradient, network)
    assert "onnxruntime" in runtime
    assert error < 0.01
    for tensor in gradient.graph.initializer:
        if "flipped" in tensor.name:
            array = numpy_helper.to_array(tensor).copy()
            array[:, :, :1] *= 1.5
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    with pytest.raises(CheckError, match="differs from finite differences"):
        check_vjp(gradient, network)


SURE = [
    ("Conv", "x w", "c", {}),
    ("Tanh", "c", "t", {}),
    ("GlobalAveragePool", "t", "p", {}),
    ("Flatten", "p", "f", {}),
    ("MatMul", "f v", "z", {}),
    ("Add", "z b", "l", {}),
]


def test_a_softmax_that_is_sure_of_itself_is_checked_in_logarithms():
    """Its probabilities hardly move; a gradient that is off must be seen all the same."""
    network = prepare(model([*SURE, ("Softmax", "l", "y", {})], {"b": [-14, 0, -13, -15, -12]}))
    good = vjp(network)
    _, error = check_vjp(good, network)
    assert error < 0.01
    bad = onnx.ModelProto.FromString(good.SerializeToString())
    node = next(n for n in bad.graph.node if n.output[0] == "grad_x")
    node.output[0] = "right"
    factor = numpy_helper.from_array(np.float32([1.1, 1, 1]).reshape(3, 1, 1), "factor")
    bad.graph.initializer.append(factor)
    bad.graph.node.append(helper.make_node("Mul", ["right", "factor"], ["grad_x"]))
    with pytest.raises(CheckError, match="differs from finite differences"):
        check_vjp(bad, network)


def test_asymmetric_pads_taken_for_symmetric_ones_are_refused():
    """What onnx-ad does: half of the padding in front, half behind."""
    steps = [
        ("Conv", "x w", "c", {"pads": [0, 0, 1, 1], "strides": [2, 2]}),
        ("Tanh", "c", "t", {}),
        *NET[4:],
    ]
    network = prepare(model(steps))
    gradient = vjp(network)
    assert check_vjp(gradient, network)[1] < 0.01
    moved = 0
    for node in gradient.graph.node:
        for attribute in node.attribute:
            if node.op_type == "ConvTranspose" and attribute.name == "pads":
                attribute.ints[:] = [1, 1, 0, 0]
                moved += 1
    assert moved == 1
    with pytest.raises(CheckError, match="differs from finite differences"):
        check_vjp(gradient, network)


def test_a_survey_names_every_missing_op_once():
    steps = [
        ("Conv", "x w", "c", {}),
        ("Odd", "c", "a", {"domain": "com.example"}),
        ("Odd", "a", "b", {"domain": "com.example"}),
        ("Even", "b", "t", {"domain": "com.example"}),
        *NET[4:],
    ]
    proto = model(steps, domain=True)
    for name in ("a", "b", "t"):
        info = helper.make_tensor_value_info(name, 1, ["batch", 4, 4, 4])
        proto.graph.value_info.append(info)
    found = survey(proto)
    assert len(found.problems) == 2
    assert "Odd (domain com.example, opset 18, input 0): 2 times, first" in found.problems[0]
    assert "Even" in found.problems[1]


def test_a_survey_checks_the_preprocessing():
    smooth = [NET[0], ("Tanh", "c", "t", {}), *NET[4:]]
    assert survey(model(smooth)).problems == ()
    found = survey(model(smooth), Preprocessing(mean=(0.1, 0.2)))
    assert "mean: expected 1 or 3 numbers" in found.problems[0]
    two = model([("Concat", "x x", "xx", {"axis": 1}), *smooth], shape=("batch", 2, 6, 6))
    two.graph.node[1].input[0] = "x"
    assert survey(two).problems
    headed = model([*smooth[:-1], ("MatMul", "f v", "z", {}), ("Softmax", "z", "y", {})])
    assert "--outputs probabilities" in survey(headed).problems[0]
    found = survey(headed, Preprocessing(outputs="probabilities"))
    assert "before Softmax" in found.notes[0]
    assert "hides the gradient" in survey(headed, Preprocessing(outputs="logits")).notes[0]


def test_onnx_can_read_what_is_checked():
    onnx.checker.check_model(vjp(prepare(model(NET))), full_check=True)
