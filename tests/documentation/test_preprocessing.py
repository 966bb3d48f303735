"""The table of docs/preprocessing.md against the libraries' own constants and functions."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys

import click
import material
import numpy as np
import pytest
from documentation.pages import text_of
from numpy.typing import NDArray

from jataug.cli import main

ROWS = re.findall(r"^\| (.+?) \| (.+?) \| `(--[^`]+)` \|$", text_of("docs/preprocessing.md"), re.M)
TIMM = "timm==1.0.31"
KERAS = (
    "keras==3.15.1", "absl-py==2.5.1", "namex==0.1.0", "optree==0.20.0", "h5py==3.14.0",
    "rich==15.0.0",
)  # fmt: skip
LEVELS = np.random.default_rng(0).integers(0, 256, (5, 6, 3)).astype(np.float64)


def row(models: str, library: str = "") -> str:
    """The flags of the one row whose columns begin like this."""
    (flags,) = [f for m, own, f in ROWS if m.startswith(models) and own.startswith(library)]
    return flags


def seen(flags: str, levels: NDArray = LEVELS) -> NDArray:
    """What the model sees of 8-bit levels (height, width, RGB), by the flags' own definition."""
    command = main.get_command(click.Context(main), "export")
    words = ["model.onnx", "-o", "attack.onnx", *shlex.split(flags)]
    given = command.make_context("export", words).params
    mean, std = given["mean"] or 0.0, given["std"] or 1.0
    value = (levels / 255 * (given["scale"] or 1.0) - mean) / std
    return value[..., ::-1] if given["channels"] == "bgr" else value


def same(flags: str, expected: NDArray) -> None:
    np.testing.assert_allclose(seen(flags), expected, rtol=0, atol=2e-4)


def normalised(mean, std) -> NDArray:
    return (LEVELS / 255 - np.array(mean)) / np.array(std)


def test_every_row_has_a_test() -> None:
    assert len(ROWS) == 17
    kinds = {models.partition(":")[0].partition(",")[0].partition(" ")[0] for models, _, _ in ROWS}
    libraries = {"torchvision", "timm", "transformers", "Keras"}
    assert kinds == libraries | {"Caffe", "TensorFlow", "EfficientNet-Lite"}


def test_torchvision() -> None:
    from families import declare_operators

    declare_operators()
    from torchvision import models

    checked = 0
    for name in models.list_models(module=models):
        other = row("torchvision: EfficientNetV2-L")
        flags = other if name == "efficientnet_v2_l" else row("torchvision: all")
        for weights in models.get_model_weights(name):
            if weights.meta["categories"]:
                preset = weights.transforms()
                same(flags, normalised(preset.mean, preset.std))
                checked += 1
    assert checked > 80


CONSTANTS = [
    ("timm, the default", "IMAGENET_DEFAULT"),
    ("timm, where", "IMAGENET_INCEPTION"),
    ("timm: DPN", "IMAGENET_DPN"),
    ("timm, open_clip", "OPENAI_CLIP"),
]


@pytest.mark.parametrize(("models", "name"), CONSTANTS)
def test_timm(models: str, name: str, have) -> None:
    site = have(material.installed, TIMM)
    path = site / "timm" / "data" / "constants.py"
    spec = importlib.util.spec_from_file_location("timm_constants", path)
    constants = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(constants)
    mean, std = (getattr(constants, f"{name}_{part}") for part in ("MEAN", "STD"))
    same(row(models, f"`{name}"), normalised(mean, std))


@pytest.mark.parametrize(
    ("models", "name"),
    [
        ("transformers, where `image_mean` is 0.485", "IMAGENET_DEFAULT"),
        ("transformers, where `image_mean` is 0.5", "IMAGENET_STANDARD"),
        ("transformers: CLIP", "OPENAI_CLIP"),
    ],
)
def test_transformers(models: str, name: str) -> None:
    from families import declare_operators

    declare_operators()
    from transformers import image_utils

    mean, std = (getattr(image_utils, f"{name}_{part}") for part in ("MEAN", "STD"))
    same(row(models, f"`{name}"), normalised(mean, std))


KERAS_CODE = """
import inspect, sys
import numpy as np
import keras.applications as applications
levels = np.load(sys.argv[1])
found = {
    name: np.asarray(module.preprocess_input(levels[None].astype("float32")))[0]
    for name, module in inspect.getmembers(applications, inspect.ismodule)
    if hasattr(module, "preprocess_input") and name != "imagenet_utils"
}
np.savez(sys.argv[2], **found)
"""
MODES = {
    "tf": "mobilenet mobilenet_v2 resnet_v2 inception_v3 inception_resnet_v2 xception nasnet",
    "torch": "densenet",
    "caffe": "resnet resnet50 vgg16 vgg19",
    "": "efficientnet efficientnet_v2 mobilenet_v3 convnext",
}


def test_keras(have, tmp_path) -> None:
    site = have(material.installed, *KERAS)
    np.save(tmp_path / "levels.npy", LEVELS)
    done = subprocess.run(
        [sys.executable, "-c", KERAS_CODE, tmp_path / "levels.npy", tmp_path / "seen.npz"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(site), "KERAS_BACKEND": "torch"},
    )
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "seen.npz") as found:
        assert set(found) == set(" ".join(MODES.values()).split())
        for mode, names in MODES.items():
            library = f'`mode="{mode}"`' if mode else "`preprocess_input` does nothing"
            for name in names.split():
                same(row("Keras", library), found[name])


def test_conventions() -> None:
    same(row("Caffe"), LEVELS[..., ::-1] - [103.939, 116.779, 123.68])
    same(row("TensorFlow: images in [-1, 1]"), LEVELS / 127.5 - 1)
    same(row("TensorFlow: images in [0, 1]"), LEVELS / 255)
    same(row("EfficientNet-Lite"), (LEVELS - 127) / 128)


def test_layout_is_told_where_it_is_nhwc() -> None:
    for models, _, flags in ROWS:
        assert ("--layout nhwc" in flags) == models.startswith(("Keras", "TensorFlow"))
