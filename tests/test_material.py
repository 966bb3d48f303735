"""The material is what it claims to be: real weights, sane labels, module and file equal."""

import json
import sys
from pathlib import Path

import material
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

IMAGENET = {"chelsea.png": {281, 282, 285}, "coffee.png": {967}, "rocket.jpg": {657}}


def logits(path: Path, images: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": images})[0]


def assert_same_classifier(model: material.Model, images: np.ndarray) -> None:
    with torch.no_grad():
        expected = model.module(torch.from_numpy(images)).numpy()
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(logits(model.path, images), expected, rtol=1e-4, atol=1e-4)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape, np.float32)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("tiny_net", (3, 3, 16, 16)),
        ("demo_classifier", (3, 1, 28, 28)),
        ("resnet18_cifar", (3, 3, 32, 32)),
        ("efficientnet_lite0", (3, 3, 224, 224)),
    ],
)
def test_file_and_module_agree(
    name: str, shape: tuple[int, ...], request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(name)
    proto = onnx.load_model(model.path)
    assert [(item.domain, item.version) for item in proto.opset_import] == [("", 18)]
    assert proto.ir_version <= 10
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    assert_same_classifier(model, noise(*shape))


@pytest.mark.parametrize("photo", sorted(IMAGENET))
def test_efficientnet_knows_the_photo(
    photo: str, efficientnet_lite0: material.Model, photos: Path
) -> None:
    image = material.efficientnet_photo(photos / photo)
    normalised = (image - material.EFFICIENTNET_MEAN) / material.EFFICIENTNET_STD
    scores = logits(efficientnet_lite0.path, normalised.astype(np.float32))
    assert scores.argmax() in IMAGENET[photo]


def test_efficientnet_stays_off_the_import_path(efficientnet_lite0: material.Model) -> None:
    assert not [entry for entry in sys.path if "efficientnet" in entry]


def test_photos_are_distinct_and_of_original_size(photos: Path) -> None:
    files = sorted(photos.iterdir())
    assert len({file.read_bytes() for file in files}) == len(files) >= 12
    modes = {}
    for file in files:
        with Image.open(file) as image:
            modes[file.name] = image.mode
            assert min(image.size) >= 300
    assert modes == material.SKIMAGE_PHOTOS | material.SKLEARN_PHOTOS
    with Image.open(photos / "chelsea.png") as chelsea:
        assert chelsea.size == (451, 300)


def test_traffic_lights_are_three_classes(traffic_lights: Path) -> None:
    counts = {folder.name: len(list(folder.iterdir())) for folder in traffic_lights.iterdir()}
    assert counts == {"green": 107, "red": 181, "yellow": 9}


def test_demo_material_is_the_start_of_the_test_set(
    fashion_mnist: Path, demo_images: tuple[np.ndarray, np.ndarray]
) -> None:
    from train_demo_classifier import read

    images, labels = read(fashion_mnist, "t10k")
    np.testing.assert_array_equal(demo_images[0], images[:512, 0].numpy())
    np.testing.assert_array_equal(demo_images[1], labels[:512].numpy())


def test_demo_accuracy_is_the_one_on_record(
    demo_classifier: material.Model, demo_images: tuple[np.ndarray, np.ndarray]
) -> None:
    images, labels = demo_images
    assert images.shape == (512, 28, 28)
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64
    record = json.loads((material.DEMO / "demo.json").read_text(encoding="utf-8"))
    scores = logits(demo_classifier.path, images[:, None].astype(np.float32) / np.float32(255))
    accuracy = (scores.argmax(1) == labels).mean()
    assert accuracy == pytest.approx(record["accuracy"]["shipped_512"], abs=0.004)
    assert accuracy > 0.88
    assert len(record["classes"]) == 10


def test_demo_file_names_no_machine(demo_classifier: material.Model) -> None:
    proto = onnx.load_model(demo_classifier.path)
    graph = proto.graph
    parts = [proto, graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input]
    assert not [part for part in parts if part.metadata_props or part.doc_string]
    assert demo_classifier.path.stat().st_size < 400_000


def test_pip_failure_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JATAUG_CACHE", str(tmp_path))
    with pytest.raises(material.UnavailableError, match="pip install jataug-no-such=name"):
        material.installed("jataug-no-such=name")  # not a requirement: pip fails with no look-up
    assert list(tmp_path.iterdir()) == []
