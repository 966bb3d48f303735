"""Wrong input: one clear line on stderr, the right exit code, nothing written, no traceback."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from commands import refused
from onnx import TensorProto, helper
from PIL import Image

import jataug

DEMO = Path(jataug.__file__).parent / "demo"


def save_model(path, nodes, output, shape=("N", 3, 8, 8), initializers=(), domain=None):
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)
    result = helper.make_tensor_value_info(output[0], TensorProto.FLOAT, output[1])
    graph = helper.make_graph(nodes, "g", [image], [result], initializers)
    opsets = [helper.make_opsetid("", 18)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def no_classifier(path):
    return save_model(path, [helper.make_node("Relu", ["image"], ["y"])], ("y", ["N", 3, 8, 8]))


def unknown_op(path):
    nodes = [
        helper.make_node("Det", ["image"], ["d"], name="the_det"),
        helper.make_node("Flatten", ["d"], ["y"]),
    ]
    return save_model(path, nodes, ("y", ["N", 3]))


def unknown_domain(path):
    nodes = [
        helper.make_node("Whirl", ["image"], ["d"], domain="com.example", name="the_whirl"),
        helper.make_node("GlobalAveragePool", ["d"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    return save_model(path, nodes, ("y", ["N", 3]), domain="com.example")


def truncated(path):
    data = (DEMO / "classifier.onnx").read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


def empty(path):
    path.write_bytes(b"")
    return path


MODELS = {
    "missing": (lambda path: path, ["expected an .onnx file"]),
    "truncated": (truncated, ["truncated?"]),
    "empty": (empty, ["truncated?"]),
    "no classifier": (no_classifier, ["expected logits of shape (batch, classes)", "--logits"]),
    "op without a rule": (unknown_op, ["Det", "opset 18", "the_det"]),
    "unknown domain": (unknown_domain, ["com.example"]),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_models(run, tmp_path, make):
    build, words = make
    model = build(tmp_path / "model.onnx")
    refused(run("export", model, "-o", tmp_path / "attack.onnx"), *words)
    assert not (tmp_path / "attack.onnx").exists()


OPTIONS = {
    "negative": (["--flow", "-1"], ["flow radius", ">= 0", "-1"]),
    "not a number": (["--pixel", "lots"], ["pixel radius", "8/255", "lots"]),
    "nan": (["--flow", "nan"], ["flow radius", "nan"]),
    "infinite": (["--pixel", "inf"], ["pixel radius"]),
    "division by zero": (["--pixel", "8/0"], ["pixel radius", "8/0"]),
    "nothing to do": (["--flow", "0", "--pixel", "0"], ["both 0"]),
    "levels": (["--pixel", "8"], ["pixel radius", "at most 1", "got '8'", "such as 8/255"]),
    "steps": (["--steps", "-3"], ["steps", "-3"]),
    "mean of levels": (["--mean", "123.7"], ["mean: 123.7", "[0, 1]", "--scale 255"]),
    "max flow": (["--max-flow", "0.1"], ["max_flow", "0.3", "0.1"]),
    "mean": (["--mean", "1,2"], ["mean", "got 2"]),
    "std": (["--std", "0"], ["std"]),
    "words": (["--mean", "a"], ["--mean"]),
    "logits": (["--logits", "nothing"], ["nothing", "logits"]),
    "cuda": (["--device", "cuda"], ["CUDA"]),
    "device": (["--device", "tpu"], ["tpu"]),
    "preset": (["--preset", "best"], ["best"]),
}


@pytest.mark.parametrize("given", OPTIONS.values(), ids=OPTIONS)
def test_export_options(run, tmp_path, given):
    options, words = given
    if "cuda" in options and "CUDAExecutionProvider" in providers():
        pytest.skip("this machine has the CUDA build of onnxruntime")
    out = tmp_path / "attack.onnx"
    out.write_bytes(b"here before")
    refused(run("export", DEMO / "classifier.onnx", "-o", out, *options), *words)
    assert out.read_bytes() == b"here before"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("net.pt", ["PyTorch's? torch.onnx.export(module.eval()"]),
        ("net.PTH", ["PyTorch's?"]),
        ("net.keras", ["Keras's?", 'format="onnx"']),
        ("net.tflite", ["tf2onnx"]),
    ],
)
def test_files_of_other_libraries(run, tmp_path, name, words):
    (tmp_path / name).write_bytes(b"something")
    refused(run("export", tmp_path / name, "-o", tmp_path / "a.onnx"), name, "ONNX", *words)
    shutil.copy(DEMO / "classifier.onnx", tmp_path / name)  # a name says nothing for certain
    assert run("inspect", tmp_path / name).exit_code == 0


@pytest.mark.parametrize(("command", "part"), [("preview", "generator"), ("verify", "dataset")])
def test_a_stopped_command_is_no_failed_check(run, tmp_path, monkeypatch, command, part):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"jataug.{part}.{command}", stopped)
    monkeypatch.setattr("jataug.runtime.Session.open", stopped)
    words = {"preview": ("a.onnx", "photos", "-o", tmp_path / "a.png"), "verify": (tmp_path,)}
    result = run(command, *words[command])
    assert result.exit_code == 130
    assert result.output.strip().splitlines()[-1] == "stopped"


def providers():
    import onnxruntime

    return onnxruntime.get_available_providers()


def test_an_edited_manifest(run, artifact, images, tmp_path):
    model = onnx.load(artifact)
    (entry,) = model.metadata_props
    entry.value = entry.value.replace('"max_flow_radius": 1.0', '"max_flow_radius": 9.0')
    edited = tmp_path / "edited.onnx"
    onnx.save(model, edited)
    assert edited.read_bytes() != artifact.read_bytes()
    refused(run("generate", edited, images, tmp_path / "out"), "edited")
    refused(run("inspect", edited), "edited")


def test_a_newer_artifact(run, artifact, images, tmp_path):
    model = onnx.load(artifact)
    (entry,) = model.metadata_props
    entry.value = entry.value.replace('"format_version": 1', '"format_version": 99')
    onnx.save(model, tmp_path / "newer.onnx")
    refused(run("generate", tmp_path / "newer.onnx", images, tmp_path / "out"), "99", "newer")


def test_a_model_in_place_of_an_artifact(run, images, tmp_path):
    result = run("generate", DEMO / "classifier.onnx", images, tmp_path / "out")
    refused(result, "without a manifest", "jataug export")


def test_images_of_another_size(run, artifact, tmp_path):
    (tmp_path / "photos").mkdir()
    Image.new("L", (40, 30)).save(tmp_path / "photos" / "a.png")
    words = ("generate", artifact, tmp_path / "photos", tmp_path / "out", "--labels", "predicted")
    refused(run(*words), "a.png", "28x28", "--resize")


def test_labels_out_of_range(run, artifact, tmp_path):
    images = np.zeros((3, 28, 28), np.uint8)
    np.savez(tmp_path / "images.npz", images=images, labels=np.array([0, 10, 1]))
    refused(run("generate", artifact, tmp_path / "images.npz", tmp_path / "out"), "10")
    assert not (tmp_path / "out").exists()


def test_class_folders_that_are_not_the_models(run, artifact, tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("L", (28, 28)).save(tmp_path / "photos" / name / "a.png")
    refused(run("generate", artifact, tmp_path / "photos", tmp_path / "out"), "10", "--classes")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [(("--device", "gpu"), "got 'gpu'"), (("--backend", "openvino", "--device", "cuda"), "cuda")],
)
def test_a_device_that_is_none_leaves_nothing(run, artifact, images, tmp_path, options, said):
    refused(run("generate", artifact, images, tmp_path / "out", *options), said)
    assert not (tmp_path / "out").exists()


def corrupt(path):
    path.write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")


def zero_bytes(path):
    path.write_bytes(b"")


def sixteen_bit(path):
    Image.fromarray(np.full((28, 28), 40000, np.uint16)).save(path)


def cmyk(path):
    Image.new("CMYK", (28, 28)).save(path, format="JPEG")


def animated(path):
    frames = [Image.new("L", (28, 28), value) for value in (0, 200)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


@pytest.mark.parametrize("spoil", [corrupt, zero_bytes, sixteen_bit, cmyk, animated])
def test_an_image_that_cannot_be_used_among_good_ones(run, artifact, tmp_path, spoil):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for name in ("a.png", "c.png"):
        Image.fromarray(np.arange(784, dtype=np.uint8).reshape(28, 28)).save(photos / name)
    spoil(photos / "b.png")
    words = ("generate", artifact, photos, out, "--labels", "predicted", "--device", "cpu")
    refused(run(*words), "b.png")
    assert not (out / "index.json").exists()
    skipped = run(*words, "--on-error", "skip")
    assert skipped.exit_code == 0, skipped.output
    assert "skipped: " in skipped.output
    assert "b.png" in skipped.output
    assert sorted(path.name for path in (out / "images").iterdir()) == ["a.png", "c.png"]
    assert run("verify", out).exit_code == 0


def test_a_foreign_destination(run, artifact, images, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letter.txt").write_text("mine")
    refused(run("generate", artifact, images, tmp_path / "out"), "letter.txt")
    refused(run("demo", "-o", tmp_path / "out"), "letter.txt")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["letter.txt"]


def test_a_destination_that_cannot_be_made(run, artifact, images, tmp_path):
    (tmp_path / "file").write_text("")
    refused(run("generate", artifact, images, tmp_path / "file" / "out", "--limit", "4"), "file")


def test_a_missing_runtime(run, artifact, images, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    refused(run("generate", artifact, images, tmp_path / "out"), "pip install", "jataug[cpu]")


def test_debug_shows_the_traceback(run, tmp_path):
    result = run("inspect", tmp_path / "none.onnx", "--debug")
    assert isinstance(result.exception, jataug.ModelError), result.output


def test_a_defect_is_one_line_too(run, monkeypatch):
    def fail(path):
        raise ZeroDivisionError("planted")

    monkeypatch.setattr("jataug.cli.inspect.is_artifact", fail)
    refused(run("inspect", DEMO / "classifier.onnx"), "planted", "--debug")


def test_the_model_itself_is_never_replaced(run, tmp_path):
    model = tmp_path / "model.onnx"
    model.write_bytes((DEMO / "classifier.onnx").read_bytes())
    for command in ("export", "differentiate"):
        refused(run(command, model, "-o", model), "model.onnx", "choose another")
    assert model.read_bytes() == (DEMO / "classifier.onnx").read_bytes()


def test_a_destination_inside_the_source(run, artifact, tmp_path):
    Image.new("L", (28, 28)).save(tmp_path / "a.png")
    words = ("generate", artifact, tmp_path, tmp_path / "out", "--labels", "predicted")
    refused(run(*words), "outside the source")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("options", [["--flow", "99"], ["--preset", "claim-8", "--flow", "20"]])
def test_flows_beyond_reason(run, tmp_path, options):
    refused(run("export", DEMO / "classifier.onnx", "-o", tmp_path / "a.onnx", *options), "at most")


def test_help_keeps_the_examples_apart(run):
    lines = [line.strip() for line in run("export", "--help").output.splitlines()]
    assert any(line.startswith("jataug export resnet50.onnx") for line in lines)
    assert not any("\\b" in line for line in lines)


def test_a_broken_link_is_skipped_like_any_image(run, artifact, tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    Image.new("L", (28, 28)).save(photos / "a.png")
    (photos / "b.png").symlink_to(tmp_path / "nowhere.png")
    words = ("generate", artifact, photos, out, "--labels", "predicted", "--device", "cpu")
    refused(run(*words), "b.png")
    skipped = run(*words, "--on-error", "skip")
    assert skipped.exit_code == 0, skipped.output
    assert "b.png" in skipped.output
