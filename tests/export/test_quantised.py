"""The classifier in the package, quantised with onnxruntime's own tools, from file to attack."""

import json

import material
import numpy as np
import onnx
import pytest
import quantising
import torch
from commands import call
from onnx import TensorProto, helper, numpy_helper

import jataug
from jataug.artifact import load_artifact
from jataug.config import AttackConfig
from jataug.errors import CheckError
from jataug.export import differentiate, export_attack
from jataug.export.check.agreement import logits_difference, span_difference
from jataug.export.check.gradient import check_gradient
from jataug.export.graph.quantised_values import STRAIGHT
from jataug.export.model.load import load_model, prepare
from jataug.export.preflight import survey
from jataug.export.rules import table
from jataug.preprocessing import Preprocessing

from .checking import on_runtime

PLAIN = Preprocessing()
CONFIG = AttackConfig.preset("evaluation", steps=5)
KINDS = {
    "QDQ int8": {"activations": "int8"},
    "QDQ uint8": {"activations": "uint8"},
    "QDQ uint8, per channel": {"per_channel": True},
    "QOperator int8": {"form": "QOperator", "activations": "int8"},
    "QOperator uint8, per channel": {"form": "QOperator", "per_channel": True},
    "dynamic": None,
}
ESTIMATES = {"QDQ": "QuantizeLinear", "QOperator": "QLinearConv", "dynamic": "ConvInteger"}


@pytest.fixture(scope="module")
def levels():
    return material.demo_images()[0][:64]


@pytest.fixture(scope="module")
def files(tmp_path_factory, levels):
    folder = tmp_path_factory.mktemp("quantised")
    source = material.DEMO / "classifier.onnx"
    images = levels[:, None].astype(np.float32) / 255
    made = {}
    for name, options in KINDS.items():
        path = folder / f"{name.replace(' ', '-').replace(',', '')}.onnx"
        if options is None:
            made[name] = quantising.dynamic(source, path)
        else:
            made[name] = quantising.static(source, path, images, **options)
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_the_check_passes_and_the_logits_are_the_models(files, kind):
    proto = load_model(files[kind])
    network = prepare(proto, preprocessing=PLAIN)
    assert "onnxruntime" in check_gradient(network, PLAIN)
    assert logits_difference(proto, network, PLAIN) < 0.02


WRONG = [
    ("QDQ int8", "DequantizeLinear", 1.05),
    ("QDQ int8", "QuantizeLinear", -1.0),
    ("QOperator int8", "QLinearConv", 1.05),
    ("QOperator int8", "QGemm", -1.0),
    ("dynamic", "DynamicQuantizeLinear", 1.05),
    ("dynamic", "ConvInteger", 1.05),
]


@pytest.mark.parametrize(("kind", "op_type", "factor"), WRONG)
def test_the_check_sees_a_wrong_rule(files, kind, op_type, factor, monkeypatch):
    network = prepare(load_model(files[kind]), preprocessing=PLAIN)
    domain = "com.microsoft" if op_type == "QGemm" else ""
    key = 0 if 0 in table._RULES[domain, op_type] else "*"
    right = table._RULES[domain, op_type][key]

    def wrong(*args, **attributes):
        return right.pullback(*args, **attributes) * factor

    entry = table.Rule(wrong, right.attributes, right.indexed, right.every_output)
    monkeypatch.setitem(table._RULES[domain, op_type], key, entry)
    with pytest.raises(CheckError, match="differs from finite differences"):
        check_gradient(network, PLAIN)


@pytest.mark.parametrize("kind", ["QDQ uint8, per channel", "QOperator uint8, per channel"])
def test_the_gradient_is_torchs(files, kind, levels):
    """The whole network in torch, with fake_quantize wherever the file quantises."""
    images = levels[:8, None].astype(np.float32) / 255
    seed = np.random.default_rng(0).standard_normal((8, 10)).astype(np.float32)
    vjp = differentiate(files[kind])
    logits, gradient = on_runtime(vjp, {"image": images, "grad_logits": seed})
    expected, slope = _in_torch(load_model(files["QDQ uint8, per channel"]), images, seed)
    # A sum in another order rounds to the neighbour here and there: such an image is left out.
    same = np.abs(logits - expected).max(1) < 1e-4
    assert same.sum() >= 4
    scale = np.abs(slope[same]).max()
    error = np.abs(gradient - slope)[same].reshape(same.sum(), -1).max(1) / scale
    assert np.median(error) < 1e-5


def _in_torch(proto, images, seed):
    """Run a QDQ file in torch; return its logits and the gradient of sum(seed * logits)."""
    constants = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    given = torch.tensor(images, requires_grad=True)
    values = {proto.graph.input[0].name: given}
    for node in proto.graph.node:
        values[node.output[0]] = _node(node, values, constants)
    logits = values[proto.graph.output[0].name]
    logits.backward(torch.tensor(seed))
    return logits.detach().numpy(), given.grad.numpy()


def _node(node, values, constants):
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "QuantizeLinear":  # fake: what is dequantised next is this
        scale, zero = (constants[name] for name in node.input[1:])
        ends = np.iinfo(zero.dtype)
        x = values[node.input[0]]
        fake = torch.fake_quantize_per_tensor_affine
        return fake(x, float(scale), int(zero), int(ends.min), int(ends.max))
    if node.op_type == "DequantizeLinear":
        if node.input[0] in values:
            return values[node.input[0]]
        q, scale, zero = (constants[name] for name in node.input)
        shape = (-1, *[1] * (q.ndim - 1)) if scale.ndim else ()
        real = (q.astype(np.float32) - zero.reshape(shape)) * scale.reshape(shape)
        return torch.tensor(real.astype(np.float32))
    x = [values.get(name) for name in node.input]
    if node.op_type == "Conv":
        pads = attributes.get("pads", [0] * 4)
        strides = attributes.get("strides", [1, 1])
        return torch.nn.functional.conv2d(x[0], x[1], x[2], strides, pads[:2])
    if node.op_type == "MaxPool":
        return torch.nn.functional.max_pool2d(x[0], attributes["kernel_shape"])
    if node.op_type == "ReduceMean":
        axes = tuple(constants[node.input[1]].tolist())
        return x[0].mean(axes, keepdim=bool(attributes.get("keepdims", 1)))
    assert node.op_type == "Gemm"
    assert attributes.get("transB", 0) == 1
    return torch.nn.functional.linear(*x)


@pytest.mark.parametrize("kind", ["QDQ int8", "QOperator uint8, per channel", "dynamic"])
@pytest.mark.parametrize("form", ["step", "loop"])
def test_the_manifest_says_so(files, kind, form, tmp_path):
    manifest = export_attack(files[kind], CONFIG, tmp_path / "a.onnx", form=form)
    model, read = load_artifact(tmp_path / "a.onnx")
    assert read == manifest
    quantised = [n for n in onnx.load(files[kind]).graph.node if (n.domain, n.op_type) in STRAIGHT]
    assert len(manifest.straight_through) >= len(quantised) - 1  # the logits' own may end it
    assert ESTIMATES[kind.split()[0]] in {e.split()[0] for e in manifest.straight_through}
    assert manifest.logits_difference is not None
    assert manifest.logits_difference < 0.02
    kept = {n.op_type for n in _every_node(model.graph)}
    assert {n.op_type for n in quantised} <= kept  # the forward pass is the model's own


def _every_node(graph):
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _every_node(attribute.g)


def test_a_float_model_is_no_estimate(tmp_path):
    manifest = export_attack(material.DEMO / "classifier.onnx", CONFIG, tmp_path / "a.onnx")
    assert manifest.straight_through == ()
    assert manifest.logits_difference is None


@pytest.mark.parametrize("kind", ["QDQ int8", "QOperator uint8, per channel", "dynamic"])
def test_the_attack_works_on_the_model_as_deployed(files, kind, levels, tmp_path):
    export_attack(files[kind], CONFIG, tmp_path / "a.onnx", check=False)
    with jataug.Session.open(tmp_path / "a.onnx", device="cpu") as session:
        batch = levels[..., None]
        result = session.attack(batch, seed=0)
        clean = session.predict(batch).argmax(1)
        found = session.predict(result.adversarial)
        assert (found.argmax(1) != clean).mean() > 0.9
    name = onnx.load(files[kind]).graph.input[0].name
    images = result.adversarial.transpose(0, 3, 1, 2).astype(np.float32) / 255
    (alone,) = on_runtime(onnx.load(files[kind]), {name: images})
    assert span_difference(found, alone) < 1e-5


@pytest.mark.parametrize(
    "kind",
    [
        "QDQ int8",
        *(pytest.param(k, marks=pytest.mark.heavy) for k in ("QOperator int8", "dynamic")),
    ],
)
def test_the_commands(files, kind, tmp_path):
    model, images = files[kind], material.DEMO / "images.npz"
    told = run("inspect", model)
    assert "can be attacked  yes" in told
    assert "straight-through estimate in " in told
    assert ("whole batch" in told) == (kind == "dynamic")
    told = run("differentiate", model, "-o", tmp_path / "g.onnx")
    assert "straight-through in" in told
    assert "float twin" in told
    told = run("export", model, "-o", tmp_path / "a.onnx", "--preset", "evaluation", "--steps", 3)
    assert "of their span" in told
    assert "straight-through" in run("inspect", tmp_path / "a.onnx")
    run("generate", tmp_path / "a.onnx", images, tmp_path / "d", "--format", "npz", "--limit", 16)
    assert "0 problems" in run("verify", tmp_path / "d", "--model", model)


def test_an_evaluation_knows_that_the_gradient_is_an_estimate(files, tmp_path):
    options = ("--limit", 16, "--attacks", "clean,pgd", "--no-curves")
    run("evaluate", files["QDQ int8"], material.DEMO / "images.npz", "-o", tmp_path / "e", *options)
    report = json.loads((tmp_path / "e" / "report.json").read_text())
    checks = report["models"][0]["sanity"]["checks"]
    (gradient,) = [check for check in checks if check["name"] == "gradient"]
    assert gradient["verdict"] == "pass"
    assert "not compared" in gradient["detail"]


def run(*words):
    code, said = call(*words)
    assert code == 0, said
    return said


def refused(*words, code):
    found, said = call(*words)
    assert found == code, said
    assert "Traceback" not in said
    assert len(said.strip().splitlines()) == 1
    return said


def _pair(scale, zero=0, dtype=np.uint8, source="image"):
    """A classifier whose image is quantised with this scale first."""
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "s", "z"], ["q"], name="first"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["x"]),
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["logits"]),
    ]
    random = np.random.default_rng(0)
    arrays = {
        "s": np.float32(scale),
        "z": np.array(zero, dtype),
        "w": random.standard_normal((48, 5)).astype(np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "pair",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ("N", 3, 4, 4))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("N", 5))],
        [numpy_helper.from_array(a, name) for name, a in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_a_gradient_that_is_zero_everywhere(tmp_path):
    onnx.save(_pair(1e-6), tmp_path / "m.onnx")
    said = refused("export", tmp_path / "m.onnx", "-o", tmp_path / "a.onnx", code=1)
    assert "zero everywhere" in said
    assert not (tmp_path / "a.onnx").exists()
    said = refused("differentiate", tmp_path / "m.onnx", "-o", tmp_path / "g.onnx", code=1)
    assert "zero everywhere" in said
    onnx.save(_pair(1 / 255), tmp_path / "m.onnx")
    run("export", tmp_path / "m.onnx", "-o", tmp_path / "a.onnx")


def test_a_scale_that_depends_on_the_image(tmp_path):
    proto = _pair(1.0)
    proto.graph.node.insert(0, helper.make_node("ReduceMax", ["image"], ["s"], keepdims=0))
    del proto.graph.initializer[0]
    onnx.save(proto, tmp_path / "m.onnx")
    said = refused("export", tmp_path / "m.onnx", "-o", tmp_path / "a.onnx", code=2)
    assert "ReduceMax" in said  # the largest of all images
    assert "mixes images" in said
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(proto, tmp_path / "m.onnx")
    said = refused("export", tmp_path / "m.onnx", "-o", tmp_path / "a.onnx", code=2)
    assert "scale or zero point depends on the image" in said
    found = survey(tmp_path / "m.onnx")
    assert any("scale or zero point" in problem for problem in found.problems)


@pytest.mark.heavy
def test_an_int8_efficientnet(efficientnet_lite0, photos, tmp_path):
    pixels = np.concatenate([material.efficientnet_photo(p) for p in sorted(photos.iterdir())])
    inside = (pixels - material.EFFICIENTNET_MEAN) / material.EFFICIENTNET_STD
    model = tmp_path / "int8.onnx"
    quantising.static(efficientnet_lite0.path, model, inside.astype(np.float32), per_channel=True)
    seen = ("--scale", 255, "--mean", 127, "--std", 128)
    sizes = ("--resize", 256, "--crop", 224)
    assert "straight-through estimate in QuantizeLinear" in run("inspect", model, *seen)
    attack = ("--preset", "evaluation", "--steps", 2, "--pixel", "1/255")
    run("export", model, "-o", tmp_path / "a.onnx", *seen, *attack)
    predicted = ("--labels", "predicted", "--format", "npz", "--limit", 6)
    run("generate", tmp_path / "a.onnx", photos, tmp_path / "d", *sizes, *predicted)
    told = run("verify", tmp_path / "d", "--model", tmp_path / "a.onnx")
    assert "0 problems" in told
    assert float(told.split("stored files: ")[1].split(",")[0]) < 0.2
