"""A prepared network has the logits of the model as it came, or nothing is written."""

import sys

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from jataug import AttackConfig, FlowBudget, PixelBudget
from jataug.bridge import OnnxModule
from jataug.errors import CheckError
from jataug.export import differentiate, export_attack
from jataug.export.check import agreement as deployed
from jataug.export.check.agreement import check_logits
from jataug.export.graph import evaluate_constants as evaluate
from jataug.export.model.folding import fold
from jataug.export.model.load import prepare
from jataug.preprocessing import Preprocessing

from .checking import on_runtime

CONFIG = AttackConfig(flow=FlowBudget(0.3), pixel=PixelBudget("8/255"), steps=2)
PLAIN = Preprocessing()
SMALL, CLASSES = 4, 2  # fewer kernels than channels, where onnx's LRN is wrong


def constant_weights(op_type, **attributes):
    """A classifier whose weights are computed by one op from constants."""
    draw = np.random.default_rng(3).standard_normal
    weights = draw((CLASSES, 3, SMALL, SMALL)).astype(np.float32)
    nodes = [
        helper.make_node(op_type, ["w"], ["kernel"], name="normalise", **attributes),
        helper.make_node("Conv", ["image", "kernel"], ["c"], name="conv"),
        helper.make_node("Flatten", ["c"], ["logits"], name="flatten"),
    ]
    made = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", 1, ["N", 3, SMALL, SMALL])],
        [helper.make_tensor_value_info("logits", 1, ["N", CLASSES])],
        [numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


WEIGHTS = {
    "L1": ("LpNormalization", {"axis": 1, "p": 1}),
    "L2": ("LpNormalization", {"axis": 1, "p": 2}),
    "LRN": ("LRN", {"size": 3, "alpha": 0.5}),
}


@pytest.mark.parametrize("runtime", [True, False], ids=["onnxruntime", "no runtime"])
@pytest.mark.parametrize(("op_type", "attributes"), WEIGHTS.values(), ids=WEIGHTS)
def test_constants_are_folded_to_what_the_model_computes(op_type, attributes, runtime, monkeypatch):
    model = constant_weights(op_type, **attributes)
    x = np.random.default_rng(0).random((3, 3, SMALL, SMALL)).astype(np.float32)
    (expected,) = on_runtime(model, {"image": x})
    with monkeypatch.context() as patch:
        if not runtime:
            patch.setitem(sys.modules, "onnxruntime", None)
        gradient = differentiate(model)
    seed = np.zeros((3, CLASSES), np.float32)
    found = on_runtime(gradient, {"image": x, "grad_logits": seed})[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.fixture
def wrong_folding(monkeypatch):
    """Constants are folded by an evaluator that is wrong."""
    right = evaluate.evaluate

    def wrong(node, feeds, opsets):
        found = right(node, feeds, opsets)
        return [a * 1.5 for a in found] if node.op_type == "LpNormalization" else found

    monkeypatch.setattr(fold, "evaluate", wrong)
    return constant_weights("LpNormalization", axis=1, p=1)


NAMES_IT = r"differs from the model's by .*%.*LpNormalization \(node 'normalise'\)"


def test_export_refuses_another_model(wrong_folding, tmp_path):
    with pytest.raises(CheckError, match=NAMES_IT):
        export_attack(wrong_folding, CONFIG, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())
    export_attack(wrong_folding, CONFIG, tmp_path / "a.onnx", check=False)


def test_differentiate_refuses_another_model(wrong_folding):
    with pytest.raises(CheckError, match=NAMES_IT):
        differentiate(wrong_folding)
    differentiate(wrong_folding, check=False)


def ending_in(model, *nodes):
    """The model with more nodes behind its logits; the last one makes the output "y"."""
    model.graph.node.extend(nodes)
    model.graph.output[0].CopyFrom(onnx.ValueInfoProto(name="y"))
    model.graph.output[0].type.tensor_type.elem_type = 1
    return model


def test_probabilities_without_a_head_are_compared_by_their_logarithms(wrong_folding, tmp_path):
    """Sure of itself: the probabilities themselves hardly differ."""
    model = ending_in(
        wrong_folding,
        helper.make_node("Add", ["logits", "sure"], ["l"]),
        helper.make_node("Softmax", ["l"], ["p"]),
        helper.make_node("Softmax", ["l"], ["q"]),
        helper.make_node("Mean", ["p", "q"], ["y"]),
    )
    sure = np.array([15, 0], np.float32)
    model.graph.initializer.append(numpy_helper.from_array(sure, "sure"))
    with pytest.raises(CheckError, match=NAMES_IT):
        export_attack(
            model, CONFIG, tmp_path / "a.onnx", preprocessing=Preprocessing(outputs="probabilities")
        )


@pytest.mark.parametrize("batch", ["N", 1, 3])
def test_differentiate_compares_an_output_without_a_row_per_image(wrong_folding, batch):
    model = ending_in(wrong_folding, helper.make_node("ReduceL2", ["logits"], ["y"], keepdims=0))
    model.graph.input[0].CopyFrom(
        helper.make_tensor_value_info("image", 1, [batch, 3, SMALL, SMALL])
    )
    with pytest.raises(CheckError, match=NAMES_IT):
        differentiate(model)


def test_a_module_refuses_another_model(wrong_folding):
    with pytest.raises(CheckError, match=NAMES_IT):
        OnnxModule(wrong_folding, device="cpu")


def test_a_model_that_the_runtime_lacks_is_said_to_be_unchecked(tiny_net, tmp_path, monkeypatch):
    reference = deployed._reference

    def unknown(*args):
        made = reference(*args)
        made.graph.node[0].op_type = "Unheard"
        return made

    monkeypatch.setattr(deployed, "_reference", unknown)
    manifest = export_attack(tiny_net.path, CONFIG, tmp_path / "a.onnx")
    assert "not compared" in (manifest.checked or "")
    assert "Unheard" in (manifest.checked or "")


@pytest.mark.parametrize("outputs", ["logits", "probabilities"])
@pytest.mark.parametrize("batch", ["N", 1, 3])
def test_heads_and_batches(outputs, batch):
    model = constant_weights("LpNormalization", axis=1, p=1)
    model.graph.input[0].CopyFrom(
        helper.make_tensor_value_info("image", 1, [batch, 3, SMALL, SMALL])
    )
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("p", 1, [batch, CLASSES]))
    model.graph.node.append(helper.make_node("Softmax", ["logits"], ["p"]))
    named = {"logits": "logits"} if outputs == "logits" else {"outputs": outputs}
    preprocessing = Preprocessing(mean=0.5, std=0.25, **named)
    network = prepare(model, of=preprocessing.logits, preprocessing=preprocessing)
    assert check_logits(model, network, preprocessing) is None
