"""Masks of activations as HardSigmoid: the same function as the rules' own nodes, to the bit, of
all numbers; what is no number stays none, where Equal would call it outside.
"""

import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from jataug import AttackConfig, FlowBudget, PixelBudget
from jataug.artifact import Form
from jataug.errors import BudgetError
from jataug.export import export_attack
from jataug.export.gradient.differentiate import vjp
from jataug.export.gradient.split_vjp import split_vjp
from jataug.export.model.load import prepare

TINY = 2.0**-100
NUMBERS = [0.0, -0.0, TINY, -TINY, 1e-20, 0.5, -0.5, 1.0, 2.0, -2.0, 3.0, 6.0, -6.0, 1e8]
BOUNDS = [(0.0, 6.0), (-6.0, 6.0), (0.0, None), (None, 6.0), (-2.0, 3.0), (1e-3, 1e3), (0.5, 0.5)]
LEVELS = np.array(
    [
        *NUMBERS,
        *(np.nextafter(np.float32(x), np.float32(s)) for x in (6, -6, 3, -2) for s in (-9, 9)),
        np.inf,
    ],
    np.float32,
)


def network(activation, dtype=np.float32, layer="BatchNormalization"):
    """An activation behind a layer that gives what it is given."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    ones = {"one": np.ones(1, dtype), "zero": np.zeros(1, dtype)}
    names = ["x", "one", "zero", "zero", "one"] if layer == "BatchNormalization" else ["x"]
    options = {"epsilon": 0.0} if layer == "BatchNormalization" else {}
    op, bounds = activation
    limits = {
        name: np.array(bound, dtype)
        for name, bound in zip(("min", "max"), bounds, strict=True)
        if bound is not None
    }
    given = [name if name in limits else "" for name in ("min", "max")] if op == "Clip" else []
    nodes = [
        helper.make_node(layer, names, ["z"], **options),
        helper.make_node(op, ["z", *given], ["a"]),
        helper.make_node("Flatten", ["a"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "activation",
        [helper.make_tensor_value_info("x", kind, ["N", 1, 1, len(LEVELS)])],
        [helper.make_tensor_value_info("y", kind, ["N", len(LEVELS)])],
        [
            numpy_helper.from_array(a, n)
            for n, a in {**ones, **limits}.items()
            if n in (*names, *given)
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def gradients(monkeypatch, proto):
    """Return the gradient with the masks lowered and as the rules write it, and the first's ops."""
    lowered = vjp(prepare(proto))
    engine = sys.modules["jataug.export.gradient.differentiate"]  # the name is a function, too
    monkeypatch.setattr(engine, "lower_masks", lambda *given: None)
    plain = vjp(prepare(proto))
    assert "HardSigmoid" not in ops(plain)
    return run(lowered), run(plain), ops(lowered)


def run(model):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    x = LEVELS.reshape(1, 1, 1, -1)
    return session.run(["grad_x"], {"x": x, "grad_y": np.full((1, len(LEVELS)), 0.7, np.float32)})


def ops(model):
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("activation", [("Relu", (None, None)), *(("Clip", b) for b in BOUNDS)])
def test_the_gradient_is_the_same(monkeypatch, activation):
    lowered, plain, nodes = gradients(monkeypatch, network(activation))
    np.testing.assert_array_equal(lowered, plain)
    assert nodes.count("HardSigmoid") == (1 if None in activation[1] else 2)
    assert not {"Sign", "Equal", "Cast"} & set(nodes)
    assert nodes.count("Clip") == (activation[0] == "Clip")


def test_what_nothing_reads_any_more_is_gone():
    graph = vjp(prepare(network(("Clip", (0.0, 6.0))))).graph
    read = {name for node in graph.node for name in node.input}
    assert {tensor.name for tensor in graph.initializer} <= read


@pytest.mark.parametrize(
    ("proto", "kept"),
    [
        (network(("Relu", (None, None)), np.float16), "Sign"),
        (network(("Relu", (None, None)), np.float64), "Sign"),
        (network(("Clip", (0.0, 6.0)), np.float64), "Equal"),
        (network(("Abs", (None, None)), layer="Identity"), "Sign"),
        # Its bounds belong to the inside: the number before 0 is out of any slope's reach.
        (network(("Clip", (0.0, 1.0)), layer="Identity"), "Equal"),
    ],
    ids=["float16", "float64", "relu6 in float64", "abs", "clip of an image"],
)
def test_what_it_would_change_is_left_alone(proto, kept):
    assert kept in ops(vjp(prepare(proto)))
    assert "HardSigmoid" not in ops(vjp(prepare(proto)))


def test_the_backward_half_knows_what_a_relu_gave():
    backward = split_vjp(prepare(network(("Relu", (None, None)))), None).backward
    assert "HardSigmoid" in ops(backward)
    assert "Sign" not in ops(backward)


def classifier():
    random = np.random.default_rng(0)
    kernel = random.normal(size=(4, 1, 3, 3)).astype(np.float32)
    weight = random.normal(size=(256, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("x", 1, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("y", 1, ["N", 3])],
        [numpy_helper.from_array(kernel, "k"), numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def every_op(graph):
    found = []
    for node in graph.node:
        found.append(node.op_type)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                found += every_op(attribute.g)
    return found


@pytest.mark.parametrize("form", Form.__args__)
def test_an_artifact_for_the_cpu_is_lowered_and_no_other(tmp_path, form):
    config = AttackConfig(flow=FlowBudget(0.3), pixel=PixelBudget("8/255"), steps=2)
    counts = {}
    for target in ("cpu", "cuda", "portable")[: 2 if form == "loop" else 3]:
        path = tmp_path / f"{target}.onnx"
        export_attack(classifier(), config, path, form=form, target=target)
        counts[target] = every_op(onnx.load(path).graph).count("HardSigmoid")
    assert counts.pop("cpu") > 0
    assert set(counts.values()) == {0}


def test_another_target_is_refused(tmp_path):
    with pytest.raises(BudgetError, match="one of cpu, cuda, portable, got 'tpu'"):
        export_attack(classifier(), AttackConfig(), tmp_path / "a.onnx", target="tpu")
