"""Gradients and robust accuracy of networks in 16 bits, beside float32, on the CPU.

    python benchmarks/precision.py [--images 512]

float16 runs on ONNX Runtime's own casts, optimisations off; bfloat16, which its CPU provider lacks,
with a cast around every node. The seed is the mean over the other classes minus the label's.
"""

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / place) for place in ("tests", "examples", "benchmarks")]

import material  # noqa: E402  (from tests/)
from rounding import rounded, unoptimised  # noqa: E402
from timing import machine  # noqa: E402

import jataug  # noqa: E402
from jataug.export import differentiate, export_attack  # noqa: E402
from jataug.export.model.element_types.precision import float32_ends  # noqa: E402

MODELS: dict[str, tuple[Callable[[], material.Model], int]] = {
    "demo classifier": (material.demo_classifier, 32),
    "ResNet-18": (material.resnet18_cifar, 16),
    "EfficientNet-Lite0": (material.efficientnet_lite0, 4),
}
DEMO = ROOT / "jataug" / "demo" / "images.npz"
CONFIG = jataug.AttackConfig.preset(
    "evaluation", flow=jataug.FlowBudget(0.1), pixel=jataug.PixelBudget("2/255"), steps=5
)
RADII = ("1/255", "2/255")


def gradients(name: str, precision: str) -> str:
    """Return how a gradient in 16 bits compares with that in float32."""
    load, batch = MODELS[name]
    model = load()
    proto = onnx.load(model.path)
    single = differentiate(proto, precision="float32")
    sizes = [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim[1:]]
    images = np.random.default_rng(0).random((batch, *sizes), np.float32)
    if name == "demo classifier":
        with np.load(DEMO) as file:
            images = (file["images"][:batch].reshape(batch, *sizes) / np.float32(255)).astype("f")
    names = [value.name for value in single.graph.input]
    classes = single.graph.input[1].type.tensor_type.shape.dim[1].dim_value
    feeds = {names[0]: images, names[1]: seed_of(batch, classes)}
    half = differentiate(proto, precision=precision)
    half = rounded(half) if precision == "bfloat16" else float32_ends(half)
    a, b = (unoptimised(graph, feeds)[-1].ravel().astype(np.float64) for graph in (single, half))
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    signs, gone = (np.sign(a) != np.sign(b)).mean(), ((b == 0) & (a != 0)).sum()
    return f"cosine {cosine:.4f}, signs that differ {signs:.1%}, entries that vanish {gone}"


def seed_of(batch: int, classes: int) -> np.ndarray:
    labels = np.arange(batch) % classes
    seed = np.full((batch, classes), 1 / classes) - np.eye(classes)[labels]
    return seed.astype(np.float32)


def accuracies(count: int) -> None:
    """Print robust accuracy, pixels that differ, and time, of the demo model in both."""
    with np.load(DEMO) as file:
        images, labels = file["images"][:count, ..., None], file["labels"][:count].astype(np.int64)
    with tempfile.TemporaryDirectory() as folder:
        sessions = {}
        for precision in ("float32", "float16"):
            path = Path(folder) / f"{precision}.onnx"
            model = material.demo_classifier().path
            export_attack(model, CONFIG, path, precision=precision, check=False)
            sessions[precision] = jataug.Session.open(path, device="cpu", batch_size=64)
            sessions[precision].attack(images[:64], labels[:64])
        for radius in RADII:
            found, seconds = {}, {}
            for precision, session in sessions.items():
                began = time.perf_counter()
                found[precision] = session.attack(images, labels, pixel=radius)
                seconds[precision] = time.perf_counter() - began
            held = {p: 1 - r.success.mean() for p, r in found.items()}
            differ = (found["float32"].adversarial != found["float16"].adversarial).mean()
            print(
                f"demo classifier, 0.1 px and {radius}, {count} images: robust accuracy "
                f"{held['float32']:.1%} in float32, {held['float16']:.1%} in float16; 8-bit values "
                f"that differ {differ:.0%}; time {seconds['float16'] / seconds['float32']:.2f}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=512)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print(machine())
    for precision in ("float16", "bfloat16"):
        for name in MODELS:
            print(f"{name}, {precision}: {gradients(name, precision)}", flush=True)
    accuracies(options.images)


if __name__ == "__main__":
    main()
