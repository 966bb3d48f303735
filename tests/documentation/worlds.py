"""The files that the pages' code names: small models, a few photographs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from documentation.pages import blocks
from material import DEMO
from PIL import Image

import jataug
from jataug.export import export_attack

__all__ = ["PYTHON_WORLDS", "SHELL_WORLDS", "World", "colour_model", "photos"]


@dataclass(frozen=True)
class World:
    """What the commands of a page find.

    Attributes:
        make: writes the files.
        not_run: beginnings of the commands that are only parsed, and why.
        quick: options that are added to a command, to make it short.
    """

    make: Callable[[Path], None]
    not_run: Mapping[str, str] = field(default_factory=dict)
    quick: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def colour_model(path: Path, classes: int = 10, dtype: str = "float") -> None:
    """A classifier of (N, 3, 224, 224): one convolution of stride 8, the mean, a linear layer."""
    rng = np.random.default_rng(0)
    weights = {
        "kernel": rng.normal(size=(6, 3, 8, 8)) / 14,
        "head": rng.normal(size=(6, classes)) * 3,
    }
    model = onnx.parser.parse_model(
        f"""
        <ir_version: 10, opset_import: ["" : 18]>
        small ({dtype}[N, 3, 224, 224] image) => ({dtype}[N, {classes}] logits) {{
            hidden = Conv <strides = [8, 8]> (image, kernel)
            active = Relu (hidden)
            pooled = GlobalAveragePool (active)
            flat = Flatten (pooled)
            logits = MatMul (flat, head)
        }}
        """
    )
    for name, value in weights.items():
        tensor = onnx.numpy_helper.from_array(value.astype(np.float32), name)
        model.graph.initializer.append(tensor)
    onnx.save(model, path)


def photos(folder: Path, count: int = 4, side: int = 260) -> None:
    """Smooth pictures of two shapes, as PNG and JPEG."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
        name = f"{number:02d}.{'png' if number % 2 else 'jpg'}"
        coarse.resize((side + 40, side), Image.Resampling.BICUBIC).save(folder / name)


def five_minutes(root: Path) -> None:
    colour_model(root / "model.onnx")
    for number in range(10):
        photos(root / "photos" / f"{number}", count=1)


def demo_model(root: Path) -> None:
    """model.onnx, attack.onnx and images.npz: the classifier in the package, 24 images."""
    (root / "model.onnx").write_bytes((DEMO / "classifier.onnx").read_bytes())
    export_attack(root / "model.onnx", jataug.AttackConfig(steps=1), root / "attack.onnx")
    with np.load(DEMO / "images.npz") as arrays:
        images, labels = arrays["images"][:24], arrays["labels"][:24]
    np.savez(root / "images.npz", images=images, labels=labels)
    (root / "photos").mkdir()
    for number, image in enumerate(images[:6]):
        Image.fromarray(image).save(root / "photos" / f"{number}.png")


def cli_page(root: Path) -> None:
    demo_model(root)
    (table,) = (block for block in blocks("docs/cli.md") if block.language == "toml")
    (root / "defaults.toml").write_text(table.text, encoding="utf-8")


def evaluated(root: Path) -> None:
    """A torch module, for `module` in the page's code."""
    demo_model(root)
    setup = (
        "import torch\n"
        "torch.manual_seed(0)\n"
        "module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10)).eval()\n"
    )
    (root / "setup.py").write_text(setup)


def loaded(root: Path) -> None:
    demo_model(root)
    jataug.generate(
        root / "attack.onnx", root / "images.npz", root / "adversarial", device="cpu", threads=1
    )


def bridged(root: Path) -> None:
    demo_model(root)
    (root / "model.onnx").rename(root / "classifier.onnx")


def whirl(root: Path) -> None:
    model = onnx.parser.parse_model(
        """
        <ir_version: 10, opset_import: ["" : 18, "com.example" : 1]>
        whirls (float[N, 3, 4, 4] image) => (float[N, 48] logits) <float[N, 3, 4, 4] turned> {
            turned = com.example.Whirl <beta = 2.0> (image)
            logits = Flatten (turned)
        }
        """
    )
    onnx.save(model, root / "model.onnx")


def idx_files(root: Path, count: int = 1130) -> None:
    """The MNIST family's training files, with images that are in the package."""
    import gzip

    with np.load(DEMO / "images.npz") as arrays:
        order = np.arange(count) % len(arrays["labels"])
        images, labels = arrays["images"][order], arrays["labels"][order].astype(np.uint8)
    for name, values in (("images-idx3", images), ("labels-idx1", labels)):
        head = bytes([0, 0, 8, values.ndim])
        sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
        data = gzip.compress(head + sizes + values.tobytes())
        (root / f"train-{name}-ubyte.gz").write_bytes(data)


PYTHON_WORLDS: Mapping[str, Callable[[Path], None]] = {
    "README.md": demo_model,
    "docs/bridge.md": bridged,
    "docs/errors.md": demo_model,
    "docs/evaluate.md": evaluated,
    "docs/loaders.md": loaded,
    "docs/recipes.md": demo_model,
    "docs/rules.md": whirl,
    "docs/train.md": idx_files,
}

SMALL = ("--batch-size", "4")
QUICK = {
    "generate": SMALL,
    "evaluate": ("--limit", "2", "--no-curves", "--no-sanity", "--attacks", "pgd:steps=2", *SMALL),
}

SHELL_WORLDS: Mapping[str, World] = {
    "README.md": World(five_minutes, quick=QUICK),
    "docs/index.md": World(five_minutes, quick=QUICK),
    "docs/cli.md": World(cli_page),
    "docs/train.md": World(
        idx_files,
        not_run={
            "jataug train photos/ -o run --mix": "a data set of photos/, which README makes",
            "jataug train photos/ -o run --resize": "a ResNet-18 for 200 epochs",
        },
        quick={"train": ("--epochs", "1", "--batch-size", "64")},
    ),
}
"""Pages whose commands are run, not only parsed."""
