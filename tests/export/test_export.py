"""The file that an export writes, and every wrong input that must leave nothing behind."""

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from jataug import AttackConfig, FlowBudget, PixelBudget, Session
from jataug.artifact import load_artifact
from jataug.errors import ArtifactError, BudgetError, ModelError, UnsupportedOperator
from jataug.export import build, export_attack, save
from jataug.export.model.load import prepare
from jataug.preprocessing import Preprocessing

CONFIG = AttackConfig(flow=FlowBudget(0.3), pixel=PixelBudget("8/255"), steps=2)
WEIGHT = np.random.default_rng(0).standard_normal((48, 5)).astype(np.float32)


def model(nodes=None, image=("x", 1, ["batch", 3, 4, 4]), logits=("y", 1, ["batch", 5]), **extra):
    nodes = nodes or [
        helper.make_node("Flatten", ["x"], ["flat"], name="flatten"),
        helper.make_node("MatMul", ["flat", "w"], ["y"], name="head"),
    ]
    weights = {"w": WEIGHT, **extra.get("weights", {})}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(*given) for given in (image, *extra.get("inputs", ()))],
        [helper.make_tensor_value_info(*given) for given in (logits, *extra.get("outputs", ()))],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", extra.get("opset", 18))]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def node(op_type, *inputs, **attributes):
    return helper.make_node(op_type, inputs, ["y"], name="the node", **attributes)


def flat(*sizes):
    return {"weights": {"sizes": np.array(sizes)}}


IMAGE = ["batch", 3, 4, 4]
FLAT = [
    helper.make_node("Flatten", ["x"], ["flat"]),
    helper.make_node("Ceil", ["flat"], ["levels"], name="whole"),
    node("MatMul", "levels", "w"),
]
WRONG_MODELS = {
    "rank 3": (
        lambda: model([node("Reshape", "x", "sizes")], logits=("y", 1, None), **flat(0, 3, 16)),
        ModelError,
        r"shape \('N', 3, 16\): expected logits of shape \(batch, classes\).*--logits",
    ),
    "one class": (
        lambda: model([node("Reshape", "x", "sizes")], logits=("y", 1, None), **flat(-1, 1)),
        ModelError,
        r"'y' has shape",
    ),
    "no batch in the logits": (
        lambda: model([node("ReduceMean", "x", "sizes", keepdims=0)], **flat(0, 2)),
        ModelError,
        "expected logits of shape",
    ),
    "integer image": (
        lambda: model([node("Flatten", "x")], ("x", 7, IMAGE), ("y", 7, None)),
        ModelError,
        r"of a floating-point type; its inputs are: x",
    ),
    "two images": (
        lambda: model([node("Add", "x", "z")], inputs=[("z", 1, IMAGE)], logits=("y", 1, None)),
        ModelError,
        r"inputs are: x .*, z ",
    ),
    "more than an image": (
        lambda: model([node("Flatten", "x")], inputs=[("n", 7, [1])], logits=("y", 1, None)),
        ModelError,
        "more than an image: inputs n",
    ),
    "two outputs": (
        lambda: model(outputs=[("flat", 1, None)]),
        ModelError,
        r"2 outputs: y .*flat.*name the logits with --logits",
    ),
    "rank 2 image": (
        lambda: model([node("MatMul", "x", "w")], ("x", 1, ["batch", 48])),
        ModelError,
        "not a batch of images",
    ),
    "five channels": (
        lambda: model(image=("x", 1, ["batch", 16, 3, 1])),
        ModelError,
        "16 channels in the layout nchw.*--layout",
    ),
    "open size": (
        lambda: model(image=("x", 1, ["batch", 3, "height", "width"])),
        ModelError,
        "height and width must be known; give height and width with --size",
    ),
    "an op without a rule": (
        lambda: model([node("Unheard", "x", domain="")]),
        (ModelError, UnsupportedOperator),
        "Unheard",
    ),
    "opset 99": (lambda: model(opset=99), ModelError, "opset is 99, .*at most"),
    "flat logits": (
        lambda: model(FLAT),
        ModelError,
        r"is 0 everywhere: Ceil \(node 'whole'\)",
    ),
    "sizes that do not fit": (
        lambda: model(image=("x", 1, ["batch", 3, 5, 4])),
        ModelError,
        "MatMul",
    ),
    "no model": (lambda: {"weights": 3}, ModelError, "got dict"),
    "a torch module without an example": (
        lambda: torch.nn.Flatten(),
        ModelError,
        "needs example=",
    ),
}


@pytest.fixture
def existing(tmp_path):
    path = tmp_path / "attack.onnx"
    path.write_bytes(b"what was there")
    return path


def check_refused(existing, error, message, *arguments, **options):
    """One line of the right error; the file that was there is untouched, and none beside it."""
    with pytest.raises(error, match=message) as caught:
        export_attack(*arguments, existing, **options)
    assert "\n" not in str(caught.value)
    assert existing.read_bytes() == b"what was there"
    assert {path.name for path in existing.parent.iterdir()} <= {"attack.onnx", "model.onnx"}


@pytest.mark.parametrize(("make", "error", "message"), WRONG_MODELS.values(), ids=WRONG_MODELS)
def test_wrong_models(existing, make, error, message):
    check_refused(existing, error, message, make(), CONFIG)


whole = model().SerializeToString()
WRONG_FILES = {
    "missing": (None, "expected an .onnx file, found none"),
    "empty": (b"", "expected an ONNX model, found an empty graph"),
    "truncated": (whole[: len(whole) // 2], "truncated"),
    "text": (b"These are words, and no model at all.\n" * 30, "not a readable ONNX file"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "model.onnx: "),
}


@pytest.mark.parametrize(("content", "message"), WRONG_FILES.values(), ids=WRONG_FILES)
def test_wrong_files(existing, content, message):
    path = existing.with_name("model.onnx")
    if content is not None:
        path.write_bytes(content)
    check_refused(existing, ModelError, message, path, CONFIG)


def test_a_folder_for_a_model(existing):
    message = "expected an .onnx file, found a folder; a run of `jataug train` becomes a file by"
    check_refused(existing, ModelError, message, existing.parent, CONFIG)


NOTHING = CONFIG.replace(flow=FlowBudget(0), pixel=PixelBudget(0))
WRONG_OPTIONS = {
    "maximum below the radius": (CONFIG, {"max_flow": 0.2}, BudgetError, "max_flow .* 0.3"),
    "maximum no number": (CONFIG, {"max_flow": "far"}, BudgetError, "max_flow"),
    "maximum negative": (CONFIG, {"max_flow": -1}, BudgetError, "max_flow"),
    "loop of no steps": (CONFIG.replace(steps=0), {"form": "loop"}, BudgetError, "one step"),
    "no steps unrolled": (CONFIG.replace(steps=0), {"form": "unrolled"}, BudgetError, "use the fo"),
    "loop that redraws": (
        CONFIG.replace(redraw_targets=True), {"form": "loop"}, BudgetError, "cannot redraw"
    ),
    "form": (CONFIG, {"form": "spiral"}, BudgetError, "form: expected one of step, loop, unrolled"),
    "both radii 0": (NOTHING, {}, BudgetError, "radius are both 0"),
    "means of another model": (
        CONFIG, {"preprocessing": Preprocessing(mean=(1, 2))}, ModelError, "1 or 3 numbers .*got 2"
    ),
    "logits of no name": (
        CONFIG, {"preprocessing": Preprocessing(logits="scores")}, ModelError, "'scores'"
    ),
    "another size": (CONFIG, {"size": (8, 8)}, ModelError, r"--size 8,8.*\(N, 3, 4, 4\)"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "options", "error", "message"), WRONG_OPTIONS.values(), ids=WRONG_OPTIONS
)
def test_wrong_options(existing, config, options, error, message):
    check_refused(existing, error, message, model(), config, **options)


@pytest.mark.parametrize("place", [".", "absent/attack.onnx", "attack.onnx/inner.onnx"])
def test_wrong_destinations(existing, place):
    with pytest.raises(ArtifactError, match=r"is a folder|folder .* does not exist"):
        export_attack(model(), CONFIG, existing.parent / place)
    assert existing.read_bytes() == b"what was there"


def test_a_destination_that_cannot_be_written(existing, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(save.onnx, "save", full)
    message = r"attack\.onnx: cannot be written: No space left on device"
    check_refused(existing, ArtifactError, message, model(), CONFIG, check=False)


def test_an_existing_artifact_is_replaced_whole(existing):
    manifest = export_attack(model(), CONFIG, existing)
    assert [path.name for path in existing.parent.iterdir()] == ["attack.onnx"]
    assert load_artifact(existing)[1] == manifest
    again = export_attack(model(), CONFIG.replace(steps=7), str(existing))
    assert load_artifact(existing)[1] == again
    assert [path.name for path in existing.parent.iterdir()] == ["attack.onnx"]


def test_the_same_export_is_the_same_file(tmp_path):
    for name in ("one.onnx", "two.onnx"):
        export_attack(model(), CONFIG, tmp_path / name, check=False)
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


@pytest.mark.parametrize("form", ["step", "loop"])
def test_large_weights_go_to_a_file_beside_the_artifact(tmp_path, monkeypatch, form):
    monkeypatch.setattr(save, "_EXTERNAL", 500)
    path = tmp_path / "attack.onnx"
    images = np.random.default_rng(0).random((2, 3, 4, 4)).astype(np.float32)
    for scale in (1, 2):  # the second export replaces both files
        weights = {"w": np.float32(scale) * np.resize(WEIGHT, (48, 50))}
        proto = model(weights=weights, logits=("y", 1, ["batch", 50]))
        export_attack(proto, CONFIG, path, form=form, check=False)
        with Session.open(path, device="cpu") as session:
            expected = images.reshape(2, -1) @ weights["w"]
            np.testing.assert_allclose(session.predict(images), expected, rtol=1e-4, atol=1e-5)
    assert {file.name for file in tmp_path.iterdir()} == {"attack.onnx", "attack.onnx.data"}
    (tmp_path / "attack.onnx.data").unlink()
    with pytest.raises(ArtifactError, match=r"attack\.onnx: not a readable"):
        Session.open(path)


def test_a_torch_module(tiny_net, tmp_path):
    example = torch.zeros(1, 3, 16, 16)
    tiny_net.module.train()
    try:
        export_attack(tiny_net.module, CONFIG, tmp_path / "a.onnx", example=example)
        assert tiny_net.module.training
    finally:
        tiny_net.module.eval()
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with Session.open(tmp_path / "a.onnx", device="cpu") as session:
        expected = tiny_net.module(images).detach().numpy()
        np.testing.assert_allclose(session.predict(images), expected, rtol=1e-4, atol=1e-5)


def test_the_model_is_not_changed():
    proto = model()
    before = proto.SerializeToString()
    build.build_attack(prepare(proto, preprocessing=Preprocessing()), CONFIG, Preprocessing())
    assert proto.SerializeToString() == before
    assert onnx.load_from_string(before) == proto
