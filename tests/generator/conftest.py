"""A session without a network, and small sources, for the tests of the generator."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import jataug
from jataug import streams
from jataug.budget import FlowBudget, PixelBudget
from jataug.finalize import finalize, from_levels, quantize

DEMO = Path(jataug.__file__).parent / "demo"
CLASSES = ("cat", "dog", "eel")


@dataclass
class FakeSession:
    """A linear classifier, attacked in one step from a random start; everything else is real."""

    config: jataug.AttackConfig = field(
        default_factory=lambda: jataug.AttackConfig(
            flow=FlowBudget(0.4), pixel=PixelBudget("8/255"), steps=1
        )
    )
    image_shape: tuple[int, int, int] = (3, 10, 12)
    classes: int = 3
    providers: tuple[str, ...] = ("FakeProvider",)
    calls: list[int] = field(default_factory=list)

    @property
    def manifest(self) -> dict[str, Any]:
        return {"sha256": "0" * 64, "config": self.config.to_dict()}

    @property
    def _weights(self) -> Any:
        size = int(np.prod(self.image_shape))
        return np.random.default_rng(5).normal(size=(size, self.classes)).astype(np.float32)

    def _logits(self, planes: Any) -> Any:
        return planes.reshape(len(planes), -1) @ self._weights

    def predict(self, images: Any) -> Any:
        return self._logits(from_levels(images))

    def attack(self, images, labels=None, indices=None, *, seed=0, epoch=0):
        self.calls.append(len(images))
        image = from_levels(images)
        labels = self.predict(images).argmax(-1) if labels is None else np.asarray(labels)
        targets = streams.target_labels(seed, indices, labels, self.classes, epoch=epoch)
        size = self.image_shape[1:]
        flow = delta = None
        if self.config.flow.radius:
            starts = (streams.flow_start(seed, int(i), size, self.config.flow) for i in indices)
            flow = np.stack(list(starts))
        if self.config.pixel.radius:
            slope = (self._weights.T[targets] - self._weights.T[labels]).reshape(image.shape)
            delta = self.config.pixel.radius * np.sign(slope).astype(np.float32)
        radius = np.full(len(images), self.config.pixel.radius, np.float32)
        far = np.full(len(images), self.config.flow.radius, np.float32)
        exact, warped, half, moved = finalize(image, flow, delta, far, radius, self.config)
        stored = quantize(exact, warped, radius)
        logits = self.predict(stored)
        return jataug.AttackResult(
            adversarial=stored,
            exact=exact,
            flow=half,
            delta=moved,
            loss=-logits[np.arange(len(labels)), labels],
            logits=logits,
            success=logits.argmax(-1) != labels,
            label=labels,
            target=targets,
            failed=np.zeros(len(images), bool),
            reached=logits.argmax(-1) == targets,
        )


@pytest.fixture(scope="session")
def attacks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weak.onnx and strong.onnx, attacks on the shipped classifier."""
    from jataug.export import export_attack

    root = tmp_path_factory.mktemp("attacks")
    for name, steps in (("weak", 1), ("strong", 3)):
        config = jataug.AttackConfig(flow=FlowBudget(0.3), pixel=PixelBudget("8/255"), steps=steps)
        export_attack(DEMO / "classifier.onnx", config, root / f"{name}.onnx", check=False)
    return root


@pytest.fixture(scope="session")
def images() -> Path:
    """The 512 images of 28 x 28 that ship in the package, with labels."""
    return DEMO / "images.npz"


@pytest.fixture
def session() -> FakeSession:
    return FakeSession()


@pytest.fixture
def new_session() -> type[FakeSession]:
    return FakeSession


def smooth(seed: int, height: int = 10, width: int = 12) -> Any:
    """An image that a warp changes, but not beyond recognition."""
    noise = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Class folders cat, dog and eel with 11 images of the session's size, in three formats."""
    root = tmp_path / "source"
    for number in range(11):
        place = root / CLASSES[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        suffix, options = [("png", {}), ("jpg", {"quality": 95}), ("webp", {"lossless": True})][
            number % 3
        ]
        smooth(number).save(place / f"img {number}.{suffix}", **options)
    return root


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    """The same kind of images as arrays, labelled."""
    images = np.stack([np.array(smooth(number)) for number in range(11)])
    path = tmp_path / "source.npz"
    np.savez(path, images=images, labels=np.arange(11) % 3)
    return path


def files_of(root: Path) -> dict[str, bytes]:
    """Every file under a folder, by name."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(name="files_of")
def _files_of() -> Any:
    return files_of
