"""What the examples attack_onnx_with_<library>.py share: command line, file, images, result."""

import argparse
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import jataug.demo
from jataug.bridge import OnnxModule
from jataug.preprocessing import Preprocessing

__all__ = ["report", "setup"]

SHIPPED = Path(jataug.demo.__file__).parent
DATA = "an .npz file: images, uint8 (n, height, width) or (n, height, width, 3), and labels"


def setup(description: str) -> tuple[OnnxModule, Tensor, Tensor, argparse.Namespace]:
    """Return the module, images (batch, channel, height, width) in [0, 1], labels, options."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?", default=SHIPPED / "classifier.onnx")
    parser.add_argument("--data", type=Path, default=SHIPPED / "images.npz", help=DATA)
    parser.add_argument("--mean", type=float, nargs="+", default=[0.0])
    parser.add_argument("--std", type=float, nargs="+", default=[1.0])
    parser.add_argument("--count", type=int, default=64, help="how many of the images")
    parser.add_argument("--radius", type=Fraction, default=Fraction(8, 255))
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    options.radius = float(options.radius)

    preprocessing = Preprocessing(mean=tuple(options.mean), std=tuple(options.std))
    with np.load(options.data) as data:
        levels, labels = data["images"][: options.count], data["labels"][: options.count]
    levels = levels[:, None] if levels.ndim == 3 else levels.transpose(0, 3, 1, 2)
    images = torch.from_numpy(levels.astype(np.float32) / 255)
    return OnnxModule(options.model, preprocessing), images, torch.from_numpy(labels), options


@torch.no_grad()
def report(model: OnnxModule, images: Tensor, adversarial: Tensor, labels: Tensor) -> None:
    """Print the accuracy before and after, and the largest change of a pixel."""
    before, after = ((model(x).argmax(1) == labels).double().mean() for x in (images, adversarial))
    largest = 255 * (adversarial - images).abs().max()
    print(
        f"{len(images)} images: accuracy {before:.3f}, attacked {after:.3f}; "
        f"largest change {largest:.2f}/255"
    )
