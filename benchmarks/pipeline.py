"""What decoding, encoding and writing cost beside the attack: generate end to end over the session
alone, in turns.

    python benchmarks/pipeline.py [--rounds 5]    # 4 and 8 batches of 64

The session alone is what generate calls: the prediction of the clean images, and the attack. The
source is a class folder of PNG files: tiles of photographs for ResNet-18, clothes for the
classifier of the package. `waited` is the part of the run in which the attack had nothing to do, as
generate counts it.
"""

import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from timing import Row, print_rows, spread

import jataug
from jataug.export import export_attack

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "examples")]

import material  # noqa: E402  (from tests/)

BATCH = 64
FORMATS = ("folder", "npz")
BOUND = 1 / 0.95


class Case(NamedTuple):
    """A classifier, its images (batch, height, width, channel) and labels, and the bound."""

    model: Path
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    steps: int
    most: float | None


def clothes(count: int, steps: int) -> Case:
    """The classifier and the images that ship in the package."""
    demo = Path(jataug.__file__).parent / "demo"
    with np.load(demo / "images.npz") as arrays:
        images, labels = arrays["images"][:count, ..., None], arrays["labels"][:count]
    return Case(demo / "classifier.onnx", images, labels, steps, None)


def tiles(count: int, steps: int) -> Case:
    """ResNet-18 for 32 x 32, on tiles of photographs."""
    with tempfile.TemporaryDirectory() as folder:
        photos = [np.asarray(Image.open(p).convert("RGB")) for p in material.photos(Path(folder))]
    generator = np.random.default_rng(0)
    images = []
    for number in range(count):
        photo = photos[number % len(photos)]
        y, x = (generator.integers(0, size - 32) for size in photo.shape[:2])
        images.append(photo[y : y + 32, x : x + 32])
    labels = np.arange(count) % 10
    return Case(material.resnet18_cifar().path, np.stack(images), labels, steps, BOUND)


def written(case: Case, folder: Path) -> Path:
    """Write the images as a class folder of PNG files; return it."""
    for number, (image, label) in enumerate(zip(case.images, case.labels, strict=True)):
        place = folder / f"class_{label}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.squeeze()).save(place / f"{number:05}.png")
    return folder


def alone(session: jataug.Session, case: Case) -> float:
    """Return the seconds of predict and attack over all images."""
    rows = np.arange(len(case.images))
    began = time.perf_counter()
    for start in range(0, len(rows), BATCH):
        part = slice(start, start + BATCH)
        session.predict(case.images[part])
        session.attack(case.images[part], case.labels[part], rows[part])
    return time.perf_counter() - began


def measure(case: Case, rounds: int) -> dict[str, tuple[list[float], list[float]]]:
    """Return by format the ratios of generate to the session alone, and what it waited."""
    config = jataug.AttackConfig.preset(
        "evaluation",
        flow=jataug.FlowBudget(0.3),
        pixel=jataug.PixelBudget("8/255"),
        steps=case.steps,
    )
    found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in FORMATS}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        attack, source = place / "attack.onnx", written(case, place / "source")
        export_attack(case.model, config, attack, check=False)
        with jataug.Session.open(attack, device="cpu", batch_size=BATCH) as session:
            session.attack(case.images[:BATCH], case.labels[:BATCH])
            for number in range(rounds):
                unit = alone(session, case)
                for name, (ratios, waits) in found.items():
                    began = time.perf_counter()
                    report = jataug.generate(
                        attack, source, place / f"{name} {number}",
                        session=session, format=name, batch_size=BATCH, shard_size=256,
                    )  # fmt: skip
                    took = time.perf_counter() - began
                    ratios.append(took / unit)
                    waits.append(report.waited / took)
    return found


def rows(rounds: int, smoke: bool = False) -> Iterator[Row]:
    """Yield the rows of benchmarks/README.md."""
    warnings.simplefilter("ignore")
    if smoke:
        cases = {"demo classifier, 1 step": clothes(BATCH, 1)}
    else:
        cases = {
            "ResNet-18, 10 steps": tiles(4 * BATCH, 10),
            "demo classifier, 10 steps": clothes(8 * BATCH, 10),
            "demo classifier, 1 step": clothes(8 * BATCH, 1),
        }
    for title, case in cases.items():
        for name, (ratios, waits) in measure(case, rounds).items():
            row = f"generate, {title}, {name}"
            yield Row(row, "the session alone", *spread(ratios), most=case.most)
            yield Row(f"{row}: waited", "of its time", *spread(waits))


if __name__ == "__main__":
    print_rows(__doc__, rows, 5)
