"""Values of a network may have any name, those of the artifact's own inputs and outputs too."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import jataug
from jataug.bridge import OnnxModule
from jataug.export import differentiate, export_attack
from jataug.export.gradient.predict import predictor

NAMES = [
    "image", "label", "target", "flow", "delta", "flow_radius", "pixel_radius", "flow_step",
    "pixel_step", "adversarial", "next_flow", "next_delta", "loss", "logits", "gradient",
    "cotangent", "grad_input", "grad_output", "iteration", "going", "go_on", "flow_in", "flow_out",
    "delta_out", "best_flow_out", "const", "relu",
]  # fmt: skip


def chain():
    """A classifier whose inner values carry every name that the artifact uses itself."""
    weight = np.random.default_rng(0).normal(size=(48, 3)).astype(np.float32)
    nodes, last = [helper.make_node("Flatten", ["input"], ["flat"])], "flat"
    for name in NAMES:
        nodes.append(helper.make_node("LeakyRelu", [last], [name], alpha=0.9))
        last = name
    nodes.append(helper.make_node("MatMul", [last, "weight"], ["output"]))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 4, 4])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(weight, "weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.mark.parametrize("form", ["step", "loop", "unrolled"])
def test_any_name_in_an_attack(tmp_path, form):
    config = jataug.AttackConfig.preset("evaluation", steps=2)
    manifest = export_attack(chain(), config, tmp_path / "attack.onnx", form=form)
    model = onnx.load(tmp_path / "attack.onnx")
    assert [value.name for value in model.graph.input] == manifest.inputs
    names = ["adversarial", "next_flow", "next_delta", "loss", "logits"]
    assert [value.name for value in model.graph.output] == names
    images = np.random.default_rng(1).random((2, 3, 4, 4), np.float32)
    with jataug.Session.open(tmp_path / "attack.onnx", device="cpu") as session:
        expected = predictor(chain(), device="cpu")(images)
        np.testing.assert_allclose(session.predict(images), expected, rtol=1e-5)
        assert session.attack(images).adversarial.shape == images.shape


def test_logits_of_no_images_have_a_column_for_each_class():
    predict, images = predictor(chain(), device="cpu"), np.zeros((2, 3, 4, 4), np.float32)
    assert predict(images[:0]).shape == (0, predict(images).shape[1])


def test_any_name_in_a_gradient():
    vjp = differentiate(chain())
    onnx.checker.check_model(vjp, full_check=True)
    assert [value.name for value in vjp.graph.input] == ["input", "grad_output"]
    assert [value.name for value in vjp.graph.output] == ["output", "grad_input"]


def test_any_name_in_the_bridge():
    torch = pytest.importorskip("torch")
    image = torch.rand(2, 3, 4, 4, requires_grad=True)
    OnnxModule(chain(), device="cpu")(image).sum().backward()
    assert torch.isfinite(image.grad).all()
    assert image.grad.abs().sum() > 0


def test_modes_of_parts_survive_an_export(tmp_path):
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3),
        torch.nn.BatchNorm2d(4),
        torch.nn.Flatten(),
        torch.nn.Linear(16, 2),
    )
    module.train()
    module[1].eval()
    config = jataug.AttackConfig(steps=1)
    example = torch.rand(2, 3, 4, 4)
    export_attack(module, config, tmp_path / "attack.onnx", example=example, check=False)
    assert [part.training for part in module] == [True, False, True, True]
