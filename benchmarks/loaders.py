"""Samples per second of jataug.loaders beside each framework's own loader, on PNG files.

    python benchmarks/loaders.py                      # every framework that is installed
    python benchmarks/loaders.py --only tf grain --images 2048 --rounds 9
    python benchmarks/loaders.py --smoke

Three readers take turns, round by round: jataug on the adversarial set, the framework's own loader
on the same files (an ordinary image folder to it), and its own loader on the clean images as PNG
files, which compress better than adversarial ones. Then the cost of random augmentation.
"""

import argparse
import importlib.util
import os
import statistics
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from timing import interleaved, machine, ratios

import jataug
from jataug.loaders.joint import streamed

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

BATCH = 64
SIZES = (32, 224)
RANDOM = jataug.AttackConfig(steps=0)
Reader = Callable[[], Iterable[Any]]


class Noise:
    """A session without a model: random joint augmentation, every image of class 0."""

    config, classes, providers = RANDOM, 10, ("none",)

    def __init__(self, size: int) -> None:
        self.image_shape = (3, size, size)
        self.manifest = {"none": True}

    def predict(self, images: Any) -> Any:
        return np.zeros((len(images), self.classes), np.float32)

    def attack(self, images, labels=None, indices=None, *, seed=0, epoch=0):
        moved, count = streamed(images, [int(i) for i in indices], RANDOM, seed, epoch), len(images)
        planes = moved.transpose(0, 3, 1, 2).astype(np.float32) / 255
        flow = np.zeros((count, 2, *self.image_shape[1:]), np.float16)
        label = np.zeros(count, np.int64)
        return jataug.AttackResult(
            moved, planes, flow, planes, np.zeros(count, np.float32), self.predict(images),
            np.zeros(count, bool), label, label + 1, np.zeros(count, bool),
        )  # fmt: skip


def make(root: Path, size: int, count: int) -> None:
    """Write clean PNG files, ten folders of smooth images with some grain, and a set of them."""
    rng = np.random.default_rng(size)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
        smooth = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), np.int16)
        grain = rng.integers(-2, 3, smooth.shape, np.int16)
        path = root / "clean" / str(number % 10) / f"{number:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(path, compress_level=1)
    jataug.generate(None, root / "clean", root / "set", session=Noise(size), batch_size=BATCH)


def files_in(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*.png"))


def read_numpy(root: Path, workers: int) -> tuple[Reader, Callable[[Path], Reader]]:
    from jataug.loaders.numpy import dataset

    def own(folder: Path) -> Reader:
        files = files_in(folder)

        def batches() -> Iterable[Any]:
            for start in range(0, len(files), BATCH):
                yield np.stack([np.asarray(Image.open(f)) for f in files[start : start + BATCH]])

        return batches

    data = dataset(root / "set")
    return lambda: (batch["image"] for batch in data.batches(BATCH)), own


def read_torch(root: Path, workers: int) -> tuple[Reader, Callable[[Path], Reader]]:
    import torch
    from torch.utils.data import DataLoader

    from jataug.loaders.torch import dataset

    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):  # torchvision beside a CPU build of torch asks for them
        if not hasattr(torch.ops.torchvision, operator):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    globals()["_library"] = library  # dropped, it would take its operators along
    from torchvision.datasets import ImageFolder
    from torchvision.transforms.v2.functional import pil_to_tensor

    def loader(data: Any) -> Any:
        return DataLoader(data, BATCH, num_workers=workers, persistent_workers=workers > 0)

    def own(folder: Path) -> Reader:
        batches = loader(ImageFolder(str(folder), transform=pil_to_tensor))
        return lambda: (images for images, _ in batches)

    ours = loader(dataset(root / "set"))
    return lambda: (batch["image"] for batch in ours), own


def read_tf(root: Path, workers: int) -> tuple[Reader, Callable[[Path], Reader]]:
    import tensorflow as tf

    from jataug.loaders.tf import dataset

    def own(folder: Path) -> Reader:
        files = files_in(folder)
        data = tf.data.Dataset.from_tensor_slices((files, [0] * len(files))).map(
            lambda name, label: (tf.io.decode_png(tf.io.read_file(name), channels=3), label),
            tf.data.AUTOTUNE,
        )
        batches = data.batch(BATCH).prefetch(2)
        return lambda: (images for images, _ in batches)

    data = dataset(root / "set").batch(BATCH).prefetch(2)
    return lambda: (batch["image"] for batch in data), own


def read_grain(root: Path, workers: int) -> tuple[Reader, Callable[[Path], Reader]]:
    import grain

    from jataug.loaders.grain import dataset

    def own(folder: Path) -> Reader:
        data = grain.MapDataset.source(files_in(folder))
        images = data.map(lambda name: np.asarray(Image.open(name))).batch(BATCH)
        return images.to_iter_dataset

    data = dataset(root / "set").batch(BATCH)
    return lambda: (batch["image"] for batch in data.to_iter_dataset()), own


def read_datasets(root: Path, workers: int) -> tuple[Reader, Callable[[Path], Reader]]:
    import datasets

    from jataug.loaders.datasets import dataset

    def own(folder: Path) -> Reader:
        table = datasets.Dataset.from_dict({"image": files_in(folder)})
        images = table.cast_column("image", datasets.Image())
        return lambda: (
            [np.asarray(image) for image in batch["image"]] for batch in images.iter(BATCH)
        )

    data = dataset(root / "set")
    return lambda: (batch["image"] for batch in data.iter(BATCH)), own


READERS = {
    "numpy": ("numpy", read_numpy),
    "torch": ("torchvision", read_torch),
    "tf": ("tensorflow", read_tf),
    "grain": ("grain", read_grain),
    "datasets": ("datasets", read_datasets),
}


def count(reader: Reader) -> int:
    return sum(len(batch) for batch in reader())


def compare(name: str, root: Path, rounds: int, workers: int) -> None:
    ours, own = READERS[name][1](root, workers)
    readers = {"jataug": ours, "own": own(root / "set" / "images"), "clean": own(root / "clean")}
    images = {label: count(reader) for label, reader in readers.items()}
    assert len(set(images.values())) == 1, images
    work = {label: partial(count, reader) for label, reader in readers.items()}
    seconds = interleaved(work, rounds)
    # Their seconds over ours: how fast jataug is beside them.
    found = ratios(seconds, "jataug")
    speed = images["jataug"] / statistics.median(seconds["jataug"])
    print(
        f"{name:9} {root.name:>4} px: {speed:7.0f} images/s; beside the framework's own loader "
        f"{spread(found['own'])} on the same files, {spread(found['clean'])} on the clean ones"
    )


def spread(values: tuple[float, float, float]) -> str:
    return "{:.2f} [{:.2f}, {:.2f}]".format(*values)


def augmentation(size: int, rounds: int) -> None:
    from jataug.loaders.numpy import RandomJoint, augment

    images = np.random.default_rng(0).integers(0, 256, (BATCH, size, size, 3), np.uint8)
    one, rng = RandomJoint(RANDOM), np.random.default_rng(0)
    ways = {
        "augment(steps=0)": lambda: augment(RANDOM)(images),
        "RandomJoint": lambda: [one(image, rng) for image in images],
    }
    for name, times in interleaved(ways, rounds).items():
        each = np.quantile(times, [0.5, 0.25, 0.75]) / BATCH * 1e3
        print(f"{name:17} {size:>4} px: {spread(tuple(each))} ms an image, numpy, one thread")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=READERS, default=list(READERS))
    parser.add_argument("--images", type=int, default=2048, help="of 32 px; an eighth of 224 px")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--workers", type=int, default=2, help="of torch's DataLoader")
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    if options.smoke:
        options.images, options.rounds = 128, 2
    have = [n for n in options.only if importlib.util.find_spec(READERS[n][0]) is not None]
    print(machine())
    print(f"{options.rounds} rounds, batches of {BATCH}: median [quartiles] of the rounds' ratios")
    with tempfile.TemporaryDirectory() as scratch:
        for size in SIZES:
            root = Path(scratch) / str(size)
            make(root, size, options.images if size < 100 else max(BATCH, options.images // 8))
            for name in have:
                compare(name, root, options.rounds, options.workers)
            augmentation(size, options.rounds)


if __name__ == "__main__":
    main()
