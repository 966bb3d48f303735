"""Attack an int8 model as deployed, and see which adversarial images transfer.

    python examples/attack_int8.py [model.onnx] [--data SOURCE] [--output int8] [--format QDQ]

The script quantises the model with ONNX Runtime's tools, calibrated on the first images of the
source. It attacks the float and the int8 model with the same budgets, and runs both models on every
adversarial image, as 8-bit levels. Only images count that both models classify alike when clean. An
attack succeeds on a model if it changes that model's prediction.
"""

import argparse
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)

import jataug
import jataug.demo
from jataug.data import Geometry, open_source, prepare
from jataug.export import export_attack
from jataug.preprocessing import Preprocessing

SHIPPED = Path(jataug.demo.__file__).parent


def main() -> None:
    options = parse()
    options.output.mkdir(parents=True, exist_ok=True)
    models = {"float": options.model, "int8": options.output / "int8.onnx"}
    images = read(options)
    quantise(options, images[: options.calibrate])
    images = images[options.calibrate :] if len(images) > 2 * options.calibrate else images
    with attack(models["float"], options) as one, attack(models["int8"], options) as other:
        table({"float": one, "int8": other}, images, options.radius)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?", default=SHIPPED / "classifier.onnx")
    parser.add_argument("--data", type=Path, default=SHIPPED / "images.npz")
    parser.add_argument("--output", type=Path, default=Path("int8"))
    parser.add_argument("--format", choices=("QDQ", "QOperator"), default="QDQ")
    parser.add_argument("--calibrate", type=int, default=64, help="how many images; attacked are"
                        " the others, or all where there are too few")  # fmt: skip
    parser.add_argument("--limit", type=int, help="of the source's images")
    parser.add_argument("--mean", type=float, nargs="+", default=[0.0])
    parser.add_argument("--std", type=float, nargs="+", default=[1.0])
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--resize", type=int)
    parser.add_argument("--crop", type=int)
    parser.add_argument("--flow", type=float, default=0.3, help="pixels")
    parser.add_argument("--radius", type=float, nargs="+", default=[1, 2, 4, 8], help="of 255")
    parser.add_argument("--steps", type=int, default=10)
    return parser.parse_args()


def read(options: argparse.Namespace) -> np.ndarray:
    """Return the images, uint8 (n, height, width, channel), as the model takes them."""
    shape = onnx.load(options.model).graph.input[0].type.tensor_type.shape
    _, channel, height, width = (size.dim_value for size in shape.dim)
    source, geometry = open_source(options.data), Geometry(options.resize, options.crop)
    count = min(len(source), options.limit or len(source))
    wanted = (channel, height, width)
    return np.stack([prepare(source.read(i), geometry, wanted, "") for i in range(count)])


class Calibration(CalibrationDataReader):
    """Feeds images, one at a time, as the network itself takes them."""

    def __init__(self, name: str, images: np.ndarray, options: argparse.Namespace) -> None:
        mean, std = (np.reshape(v, (-1, 1, 1)) for v in (options.mean, options.std))
        scaled = images.transpose(0, 3, 1, 2) / 255 * options.scale
        inside = ((scaled - mean) / std).astype(np.float32)
        self._feeds: Iterator[dict[str, np.ndarray]] = iter([{name: x[None]} for x in inside])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def quantise(options: argparse.Namespace, images: np.ndarray) -> None:
    logging.disable(logging.WARNING)  # it advises a step that a folded model does not need
    name = onnx.load(options.model).graph.input[0].name
    quantize_static(
        options.model,
        options.output / "int8.onnx",
        Calibration(name, images, options),
        quant_format=QuantFormat[options.format],
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    logging.disable(logging.NOTSET)


def attack(model: Path, options: argparse.Namespace) -> jataug.Session:
    """Export the attack, and open it."""
    config = jataug.AttackConfig.preset(
        "evaluation",
        flow=jataug.FlowBudget(options.flow),
        pixel=jataug.PixelBudget(max(options.radius) / 255),
        steps=options.steps,
    )
    artifact = options.output / f"attack-{model.stem}.onnx"
    preprocessing = Preprocessing(
        mean=tuple(options.mean), std=tuple(options.std), scale=options.scale
    )
    manifest = export_attack(model, config, artifact, preprocessing=preprocessing)
    if manifest.logits_difference is not None:
        print(
            f"{model}: straight-through in {len(manifest.straight_through)} nodes; its logits "
            f"beside the gradient are off by {manifest.logits_difference:.2%} of their span"
        )
    return jataug.Session.open(artifact, device="cpu")


def table(sessions: dict[str, jataug.Session], images: np.ndarray, radii: list[float]) -> None:
    """Print how many of the images change their label, made on one model and shown to another."""
    clean = {name: session.predict(images).argmax(1) for name, session in sessions.items()}
    alike = clean["float"] == clean["int8"]
    print(f"{alike.sum()} of {len(alike)} clean images have the same label in both")
    print("\n| pixel radius | made on | float | int8 | seconds |\n|---|---|---|---|---|")
    for radius in radii:
        for name, session in sessions.items():
            start = time.perf_counter()
            made = session.attack(images, seed=0, pixel=radius / 255).adversarial
            seconds = time.perf_counter() - start
            found = {target: s.predict(made).argmax(1) for target, s in sessions.items()}
            shares = [f"{(found[t] != clean[t])[alike].mean():.1%}" for t in sessions]
            print(f"| {radius:g}/255 | {name} | {' | '.join(shares)} | {seconds:.0f} |")


if __name__ == "__main__":
    main()
