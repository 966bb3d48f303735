"""Values that are computed again for the gradient: the same numbers to the bit, and less kept."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from jataug import AttackConfig, FlowBudget, PixelBudget
from jataug.export.build import build_attack
from jataug.export.gradient.differentiate import vjp
from jataug.export.model.load import prepare
from jataug.preprocessing import Preprocessing

SIZES = (3, 28, 28)
DEPTH = 20


def network(activation, shape=()):
    """Convolutions with an activation of several nodes after each.

    Args:
        activation: writes the nodes from one name to another.
        shape: of its scalar constants.
    """
    rng = np.random.default_rng(0)
    nodes, weights = [], {name: np.full(shape, number, np.float32) for name, number in NUMBERS}
    for i in range(DEPTH):
        weights[f"w{i}"] = rng.normal(0, 0.5, (SIZES[0], SIZES[0], 1, 1)).astype(np.float32)
        nodes.append(helper.make_node("Conv", [f"x{i}" if i else "x", f"w{i}"], [f"h{i}"]))
        nodes += activation(f"h{i}", f"x{i + 1}" if i < DEPTH - 1 else "y")
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "deep",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", *SIZES])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", *SIZES])],
        [numpy_helper.from_array(a, n) for n, a in weights.items() if n in used],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


NUMBERS = (("root", math.sqrt(2)), ("one", 1.0), ("half", 0.5), ("cube", 0.044715), ("pi", 0.7978))


def gelu(x, y):
    return [
        helper.make_node("Div", [x, "root"], [f"{x}_t"]),
        helper.make_node("Erf", [f"{x}_t"], [f"{x}_e"]),
        helper.make_node("Add", [f"{x}_e", "one"], [f"{x}_a"]),
        helper.make_node("Mul", ["half", f"{x}_a"], [f"{x}_m"]),
        helper.make_node("Mul", [x, f"{x}_m"], [y]),
    ]


def gelu_by_tanh(x, y):
    return [
        helper.make_node("Mul", [x, x], [f"{x}_2"]),
        helper.make_node("Mul", [f"{x}_2", x], [f"{x}_3"]),
        helper.make_node("Mul", ["cube", f"{x}_3"], [f"{x}_c"]),
        helper.make_node("Add", [x, f"{x}_c"], [f"{x}_s"]),
        helper.make_node("Mul", ["pi", f"{x}_s"], [f"{x}_p"]),
        helper.make_node("Tanh", [f"{x}_p"], [f"{x}_t"]),
        helper.make_node("Add", [f"{x}_t", "one"], [f"{x}_a"]),
        helper.make_node("Mul", ["half", f"{x}_a"], [f"{x}_m"]),
        helper.make_node("Mul", [x, f"{x}_m"], [y]),
    ]


def silu(x, y):
    return [
        helper.make_node("Sigmoid", [x], [f"{x}_s"]),
        helper.make_node("Mul", [x, f"{x}_s"], [y]),
    ]


def guarded_exponential(x, y):
    """Numbers that are none become 0."""
    return [
        helper.make_node("Tanh", [x], [f"{x}_t"]),
        helper.make_node("IsNaN", [f"{x}_t"], [f"{x}_n"]),
        helper.make_node("Where", [f"{x}_n", "half", f"{x}_t"], [y]),
    ]


def plain(monkeypatch, proto):
    """Return the gradient as the rules write it."""
    engine = sys.modules["jataug.export.gradient.differentiate"]  # the name is a function, too
    with monkeypatch.context() as patch:
        patch.setattr(engine, "rematerialize", lambda graph: None)
        patch.setattr(engine, "order_by_depth", lambda graph: None)
        return vjp(prepare(proto))


def session(model, **settings):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    for name, value in settings.items():
        setattr(options, name, value)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def gradient(engine):
    rng = np.random.default_rng(1)
    feeds = {
        v.name: rng.normal(size=[3, *v.shape[1:]]).astype(np.float32) for v in engine.get_inputs()
    }
    (found,) = engine.run(["grad_x"], feeds)
    assert np.abs(found).max() > 0
    return found


def made_again(model):
    return [o for node in model.graph.node for o in node.output if o.endswith("_again")]


def kept(model):
    """Return the values before y that are read by what waits for the cotangent, but for copies."""
    makers = {name: node for node in model.graph.node for name in node.output}
    forward, waiting = set(), ["y"]
    while waiting:
        name = waiting.pop()
        if name not in forward and name in makers:
            forward.add(name)
            waiting += makers[name].input
    late, found = {"grad_y"}, set()
    for node in model.graph.node:
        if late & set(node.input):
            late |= set(node.output)
    sources = {name for node in model.graph.node if late & set(node.output) for name in node.input}
    while sources:
        name = sources.pop()
        if name in forward:
            found.add(name)
        elif name in makers and name not in late:
            sources |= set(makers[name].input)
    return found


@pytest.mark.parametrize("shape", [(), (1,)], ids=["scalar", "of one"])
@pytest.mark.parametrize("activation", [gelu, gelu_by_tanh, silu, guarded_exponential])
def test_the_gradient_is_the_same_to_the_bit(monkeypatch, activation, shape):
    proto = network(activation, shape)
    found, expected = vjp(prepare(proto)), plain(monkeypatch, proto)
    onnx.checker.check_model(found, full_check=True)
    np.testing.assert_array_equal(gradient(session(found)), gradient(session(expected)))


@pytest.mark.parametrize("shape", [(), (1,)], ids=["scalar", "of one"])
def test_a_gelu_keeps_its_input_alone(monkeypatch, shape):
    proto = network(gelu, shape)
    inner = {f"h{i}" for i in range(DEPTH)}
    assert {name for name in kept(plain(monkeypatch, proto)) if name.endswith("_m")}
    found = kept(vjp(prepare(proto)))
    # The last ones are read again soon after.
    assert found <= inner | {f"h{i}_{name}" for i in range(DEPTH - 8, DEPTH) for name in "team"}
    assert {f"h{i}" for i in range(DEPTH - 8)} <= found


def test_onnxruntime_merges_no_copy_and_runs_it_late(tmp_path):
    model = vjp(prepare(network(gelu)))
    copies = made_again(model)
    assert len(copies) >= 4 * (DEPTH - 8)
    for node in model.graph.node:
        node.name = node.output[0]
    engine = session(
        model,
        enable_profiling=True,
        profile_file_prefix=str(tmp_path / "profile"),
        enable_mem_pattern=False,
    )
    gradient(engine)
    profile = json.loads(Path(engine.end_profiling()).read_text())
    events = [e["name"] for e in profile if e.get("cat") == "Node"]
    order = [name.removesuffix("_kernel_time") for name in events if "kernel_time" in name]
    assert set(copies) <= set(order)
    first = min(order.index(name) for name in copies)
    assert first > order.index(f"h{DEPTH - 2}_e")  # the forward pass is over
    # Each layer's are there when that layer is differentiated, the last layer's first.
    seen = [int(name[1:].split("_")[0]) for name in order if name in copies]
    assert seen == sorted(seen, reverse=True)


def test_what_one_node_makes_of_one_value_is_left():
    """Its copy would be merged with it."""
    assert not made_again(vjp(prepare(network(silu))))


def test_small_values_are_left(monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "SIZES", (3, 12, 12))
    model = vjp(prepare(network(gelu)))
    assert not made_again(model)


def test_bodies_of_loops_too():
    """The form loop holds the gradient in a body, whose constants are those of the graph around."""
    classifier = network(gelu)
    classifier.graph.node.append(helper.make_node("GlobalMaxPool", ["y"], ["pooled"]))
    classifier.graph.node.append(helper.make_node("Flatten", ["pooled"], ["logits"]))
    shape = ["N", SIZES[0]]
    logits = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, shape)
    classifier.graph.output[0].CopyFrom(logits)
    config = AttackConfig(flow=FlowBudget(0.3), pixel=PixelBudget(0.1), steps=2)
    model, _ = build_attack(prepare(classifier), config, Preprocessing(), "loop")
    (loop,) = [node for node in model.graph.node if node.op_type == "Loop"]
    body = next(a.g for a in loop.attribute if a.name == "body")
    copies = [o for node in body.node for o in node.output if o.endswith("_again")]
    assert len(copies) >= 4 * (DEPTH - 8)
    read = {name for node in body.node for name in node.input}
    assert {t.name for t in model.graph.initializer if t.name.endswith("_again")} & read
    assert session(model).get_outputs()
