"""What a session refuses, and the one line that it says."""

import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from jataug import (
    ArtifactError,
    BudgetError,
    DataError,
    FlowBudget,
    MissingExtra,
    PixelBudget,
    RuntimeUnavailable,
    Session,
)
from jataug.artifact import load_artifact, sign

from .sessions import CONFIG, images, levels


def changed(array, value):
    array = array.copy()
    array[1, 0, 2, 3] = value
    return array


WRONG_IMAGES = {
    "size": (images(2)[..., :8], r"expected float32 .* = \(n, 3, 16, 16\).*got \(2, 3, 16, 8\)"),
    "channels": (images(2)[:, :1], "the model's size"),
    "layout": (images(2).transpose(0, 2, 3, 1), r"got \(2, 16, 16, 3\)"),
    "8-bit layout": (levels(2).transpose(0, 3, 1, 2), r"expected uint8 .* = \(n, 16, 16, 3\)"),
    "rank": (images(2)[0], "batch, channel, height, width"),
    "int": (np.zeros((2, 3, 16, 16), np.int64), "expected float32 in .0, 1. or uint8, got int64"),
    "text": ("photo.png", "expected float32"),
    "ragged": ([[1], [1, 2]], "images: expected an array"),
    "NaN": (changed(images(3), np.nan), "finite values in .0, 1.; image 1 "),
    "infinity": (changed(images(3), -np.inf), "image 1 "),
    "above": (changed(images(3), 1.001), "image 1 "),
    "below": (changed(images(3), -0.001), "image 1 "),
    "levels as floats": (255 * images(2), "image 0 "),
}


@pytest.mark.parametrize(("wrong", "message"), WRONG_IMAGES.values(), ids=WRONG_IMAGES)
def test_wrong_images(session, wrong, message):
    for call in (session.attack, session.predict):
        with pytest.raises(DataError, match=message) as caught:
            call(wrong)
        assert "\n" not in str(caught.value)


WRONG_ARGUMENTS = {
    "label too large": (
        {"labels": [0, 10]},
        DataError,
        r"labels: .* \[0, 10\), got 10 for image 1",
    ),
    "label negative": ({"labels": [-1, 0]}, DataError, "got -1 for image 0"),
    "label count": ({"labels": [1]}, DataError, "labels: expected 2 integers"),
    "labels of one-hot rows": (
        {"labels": np.eye(10)[:2]},
        DataError,
        "labels: expected 2 integers",
    ),
    "labels of floats": ({"labels": [0.0, 1.0]}, DataError, "labels: expected 2 integers"),
    "target too large": ({"labels": [0, 1], "targets": [1, 10]}, DataError, "targets: .* got 10"),
    "target is label": ({"labels": [0, 1], "targets": [2, 1]}, DataError, "got 1 for image 1"),
    "index negative": ({"indices": [0, -1]}, DataError, "indices: expected 2 integers >= 0"),
    "index count": ({"indices": [0]}, DataError, "indices: expected 2"),
    "seed negative": ({"seed": -1}, BudgetError, "seed"),
    "epoch no integer": ({"epoch": 0.5}, BudgetError, "epoch"),
    "steps negative": ({"steps": -1}, BudgetError, "steps: expected an integer >= 0"),
    "steps no integer": ({"steps": 1.5}, BudgetError, "steps"),
    "steps a truth value": ({"steps": True}, BudgetError, "steps"),
    "flow above the maximum": ({"flow": 0.71}, BudgetError, "at most 0.7 pixels, got 0.71"),
    "one flow above": ({"flow": [0.1, 0.8]}, BudgetError, "at most 0.7 pixels, got 0.8"),
    "flow negative": ({"flow": -0.1}, BudgetError, "flow radius"),
    "flow not finite": ({"flow": np.array([0.1, np.nan])}, BudgetError, "flow radius"),
    "pixel negative": ({"pixel": [0.1, -0.1]}, BudgetError, "pixel radius"),
    "pixel a word": ({"pixel": "much"}, BudgetError, "pixel radius: .* 8/255, got 'much'"),
    "pixel infinite": ({"pixel": float("inf")}, BudgetError, "pixel radius"),
    "pixel count": ({"pixel": [0.1] * 3}, BudgetError, "pixel radius: expected a number or 2"),
    "pixel words": ({"pixel": ["8/255", "4/255"]}, BudgetError, "pixel radius"),
}


@pytest.mark.parametrize(
    ("arguments", "error", "message"), WRONG_ARGUMENTS.values(), ids=WRONG_ARGUMENTS
)
def test_wrong_arguments(session, arguments, error, message):
    with pytest.raises(error, match=message) as caught:
        session.attack(images(2), **arguments)
    assert "\n" not in str(caught.value)


def test_a_target_that_is_the_prediction(session):
    predicted = session.predict(images(3)).argmax(1)
    with pytest.raises(DataError, match="another class than the label"):
        session.attack(images(3), targets=predicted)


@pytest.mark.parametrize("branch", ["flow", "pixel"])
def test_a_branch_that_was_left_out(tiny_net, exported_attack, branch):
    none = {"flow": FlowBudget(0), "pixel": PixelBudget(0)}[branch]
    path = exported_attack(tiny_net.path, CONFIG.replace(**{branch: none}))
    with Session.open(path, device="cpu") as opened:
        opened.attack(images(2), **{branch: 0})
        with pytest.raises(BudgetError, match=f"{branch} radius"):
            opened.attack(images(2), **{branch: 0.01})


def test_a_tensor_on_no_cpu(session):
    with pytest.raises(DataError, match="expected an array on the CPU, got Tensor"):
        session.attack(torch.empty(2, 3, 16, 16, device="meta"))


# Files.


def edited(path, tmp_path, edit):
    """Return a copy of the artifact with its manifest edited, the rest untouched."""
    model = onnx.load(path)
    (entry,) = model.metadata_props
    data = json.loads(entry.value)
    edit(data)
    entry.value = json.dumps(data)
    onnx.save(model, tmp_path / "edited.onnx")
    return tmp_path / "edited.onnx"


EDITS = {
    "steps": lambda data: data["config"].update(steps=50),
    "maximum": lambda data: data.update(max_flow_radius=5.0),
    "mean": lambda data: data["preprocessing"].update(mean=[0.5]),
    "a digest": lambda data: data.update(manifest_sha256="0"),
    "a key too many": lambda data: data.update(colour="red"),
    "a key missing": lambda data: data.pop("classes"),
    "no configuration": lambda data: data.update(config=[]),
    "a number for a name": lambda data: data.update(preprocessing=3),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edited_manifest(path, tmp_path, edit):
    with pytest.raises(ArtifactError, match=r"edited\.onnx: .*manifest") as caught:
        Session.open(edited(path, tmp_path, edit))
    assert "\n" not in str(caught.value)


def test_a_newer_format(path, tmp_path):
    newer = edited(path, tmp_path, lambda data: data.update(format_version=2))
    with pytest.raises(ArtifactError, match=r"format_version 2 is newer than 1.*update jataug"):
        Session.open(newer)


def test_an_edited_graph(path, tmp_path):
    model = onnx.load(path)
    model.graph.node[3].name = "other"
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(ArtifactError, match="manifest and graph disagree"):
        Session.open(tmp_path / "other.onnx")


def test_a_manifest_of_another_graph(path, tmp_path):
    """Signed again by hand: the digests fit, the inputs do not."""
    model, manifest = load_artifact(path)
    sign(model, type(manifest)(**{**vars(manifest), "config": CONFIG.replace(flow=FlowBudget(0))}))
    onnx.save(model, tmp_path / "forged.onnx")
    with pytest.raises(ArtifactError, match="manifest and graph disagree"):
        Session.open(tmp_path / "forged.onnx")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("batch", 0),
        ("batch", True),
        ("classes", None),
        ("classes", 10**30),
        ("image_shape", [3, 16, 0]),
        ("image_shape", [3, 16, 8]),
        ("iterations", "10"),
        ("max_flow_radius", float("nan")),
        ("reach", [2]),
        ("form", "spiral"),
        ("versions", []),
        ("weights", [1]),
        ("checked", 3),
    ],
)
def test_a_manifest_that_cannot_be(path, tmp_path, key, value):
    """Signed again by hand: the digests fit, a value does not."""
    model, manifest = load_artifact(path)
    sign(model, type(manifest)(**{**vars(manifest), key: value}))
    onnx.save(model, tmp_path / "forged.onnx")
    with pytest.raises(ArtifactError, match=r"forged.onnx: .*(manifest: \w+ cannot be|disagree)"):
        Session.open(tmp_path / "forged.onnx")


def test_a_foreign_onnx_file(tiny_net):
    with pytest.raises(ArtifactError, match="without a manifest; make one with jataug export"):
        Session.open(tiny_net.path)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_artifact(path, tmp_path, share):
    whole = path.read_bytes()
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ArtifactError, match=r"cut\.onnx") as caught:
        Session.open(cut)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["absent.onnx", "."])
def test_no_file(tmp_path, name):
    with pytest.raises(ArtifactError, match="found no file"):
        Session.open(tmp_path / name)


def test_text_for_a_file(tmp_path):
    (tmp_path / "notes.onnx").write_text("This is no model.\n" * 50)
    with pytest.raises(ArtifactError, match=r"notes\.onnx"):
        Session.open(tmp_path / "notes.onnx")


# Runtimes.


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this one has CUDA"
)
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_cuda_where_there_is_none(path, device):
    with pytest.raises(RuntimeUnavailable, match=f"device '{device}': .*no CUDA provider"):
        Session.open(path, device=device)


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "", "cpu:1x"])
def test_a_device_that_is_none(path, device):
    with pytest.raises(RuntimeUnavailable, match="expected auto, cpu, cuda or cuda:<i>"):
        Session.open(path, device=device)


def test_an_unknown_backend(path):
    with pytest.raises(RuntimeUnavailable, match="expected onnxruntime or openvino, got 'tens"):
        Session.open(path, backend="tensorrt")


def test_onnxruntime_is_not_installed(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with (
        Session.open(path) as opened,
        pytest.raises(MissingExtra, match=r"pip install 'jataug\[cpu\]'"),
    ):
        opened.predict(images(1))


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_size_below_one(path, size):
    with pytest.raises(BudgetError, match="batch_size"):
        Session.open(path, batch_size=size)


@pytest.mark.parametrize("options", [{"batch_size": "3"}, {"batch_size": 0}, {"threads": 2.5}])
def test_numbers_that_open_takes_are_integers(path, options):
    with pytest.raises(BudgetError, match=f"{next(iter(options))}: expected an integer"):
        Session.open(path, device="cpu", **options)


def test_a_radius_that_overflows_float32(session):
    with pytest.raises(BudgetError, match="finite"):
        session.attack(images(2), pixel=np.array([1e39, 0.01]))
