"""Live augmentation of batches: random joint augmentation, or the attack of an artifact."""

import hashlib
import multiprocessing
import os
import threading
from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..artifact import load_artifact
from ..budget import FlowBudget, PixelBudget
from ..config import AttackConfig
from ..errors import BudgetError, DataError
from ..finalize import channel_axis
from .joint import as_config, check_floats, streamed
from .labels import hard

if TYPE_CHECKING:
    from ..runtime import Session

__all__ = ["Attack", "Augmenter", "Layout"]

Array = NDArray[Any]
Layout = Literal["nchw", "nhwc"]
Attack = str | PathLike[str] | AttackConfig
"""The path of an artifact; or, for steps=0, a configuration."""


class Augmenter:
    """Replaces the images of batches; every draw depends on (seed, epoch, sample index) alone.

    Images without indices are counted: the first call begins at 0, the next one goes on. A worker
    process of a loader counts from a number of its own, which follows from its name, so that no two
    of them draw the same. Give indices where the draws have to be the same whatever the order of
    the calls and the number of workers.

    It pickles, and may be used by several threads. The session of steps >= 1 opens in the process
    that uses it, with the first batch.

    Args:
        attack: the path of an artifact; with steps=0 a configuration is enough.
        steps: iterations; 0 is random joint augmentation, for which no model runs. Default the
            attack's own.
        seed: of the draws.
        flow: flow radius in pixels; default the attack's own.
        pixel: pixel radius in image units, likewise ("8/255" is accepted).
        device: of the model, as of Session.open: "auto" (CUDA where it loads), "cpu", "cuda" or
            "cuda:<i>".
        batch_size: images per call of the model; default the size of the first batch, at most 64.
        threads: of the model; default the runtime's own choice.
        layout: of the images, "nchw" or "nhwc"; default the framework's own, and images that are
            clearly of the other one are refused.

    Raises:
        BudgetError: an option that the attack cannot serve.
        ArtifactError: the file is no artifact.
    """

    layout: Layout = "nhwc"

    def __init__(
        self,
        attack: Attack,
        *,
        steps: int | None = None,
        seed: int = 0,
        flow: float | str | None = None,
        pixel: float | str | None = None,
        device: str = "auto",
        batch_size: int | None = None,
        threads: int | None = None,
        layout: Layout | None = None,
    ) -> None:
        self._told = layout is not None
        if layout is not None:
            if layout not in get_args(Layout):
                raise DataError(f"layout: expected nchw or nhwc, got {layout!r}")
            self.layout = layout
        self.seed = seed
        self._path, self._shape, config = _read(attack)
        self.steps = config.steps if steps is None else steps
        self.config = _adjusted(config, self.steps, flow, pixel)
        if self._path is None and self.steps:
            raise BudgetError(
                f"steps: expected 0, got {self.steps}: a configuration has no model; give the path "
                "of an artifact, or steps=0"
            )
        if not self.steps:
            as_config(self.config)
        self._radii = {"flow": flow, "pixel": pixel}
        self._options: dict[str, Any] = {
            "device": device,
            "batch_size": batch_size,
            "threads": threads,
        }
        self._renew()

    def _renew(self) -> None:
        self._lock, self._process = threading.Lock(), os.getpid()
        self._session: Session | None = None
        # Not known before the first call: a process that spawns reads pickles before it has a name.
        self._next: int | None = None

    def _check_process(self) -> None:
        if self._process != os.getpid():  # a session, its lock and the count do not survive a fork
            self._renew()

    def __getstate__(self) -> dict[str, Any]:
        private = ("_lock", "_process", "_session", "_next")
        return {name: value for name, value in self.__dict__.items() if name not in private}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._renew()

    def batch(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """Return a batch {"image": ..., "label": ..., "index": ..., ...} with its images replaced.

        Where it says "epoch", that epoch counts.
        """
        labels, indices, epoch = sample.get("label"), sample.get("index"), sample.get("epoch", 0)
        return {**sample, "image": self.images(sample["image"], labels, indices, epoch)}

    def images(self, images: Any, labels: Any = None, indices: Any = None, epoch: Any = 0) -> Any:
        """Return images of the type, dtype and layout of `images`."""
        raise NotImplementedError

    def run(self, images: Array, labels: Any, indices: Any, epoch: Any) -> Array:
        """Return images in numpy.

        Args:
            images: (batch, ...) in the augmenter's layout, uint8, or floating in [0, 1].
            labels: (batch,), integers, or (batch, classes); None is the model's prediction.
            indices: (batch,), integers; None counts on from the call before.
            epoch: one, or (batch,).

        Raises:
            DataError: another shape than the model's, floats outside [0, 1], or labels or indices
                that do not fit.
        """
        rows, epochs = self.slots(images.shape, indices, epoch)
        self._check_type(images)
        labels = None if labels is None else hard(np.asarray(labels))
        eight_bit = images.dtype == np.uint8
        # The attack reads uint8 channels last and floats channels first.
        turned = (self.layout == "nchw") == eight_bit
        arranged = _turn(images, eight_bit) if turned else images
        if not eight_bit:
            arranged = np.ascontiguousarray(arranged, np.float32)
        out = np.empty_like(arranged, order="C")
        for one in np.unique(epochs):
            part = epochs == one
            kept = None if labels is None else labels[part]
            out[part] = self._attacked(arranged[part], kept, rows[part], int(one))
        out = _turn(out, not eight_bit) if turned else out
        return out.astype(images.dtype, copy=False)

    def slots(self, shape: tuple[int, ...], indices: Any, epoch: Any) -> tuple[Array, Array]:
        """Return the index and the epoch of each image of a batch of this shape: (batch,) each.

        Raises:
            DataError: another shape than the model's, or numbers that do not fit.
        """
        if len(shape) != 4:
            raise DataError(f"images: expected {self._expected()}, got {shape}")
        axis = {"nchw": 1, "nhwc": 3}[self.layout]
        if self._shape is None and not self._told and channel_axis(shape) == 4 - axis:
            other = "nhwc" if self.layout == "nchw" else "nchw"
            raise DataError(
                f"images: {shape[1:]} has its channels {'first' if axis == 3 else 'last'}; give "
                f"layout={other!r} for images like these, or layout={self.layout!r} if they are "
                f"{self._expected()}"
            )
        height, width = shape[2:] if self.layout == "nchw" else shape[1:3]
        size = (shape[axis], height, width)
        if self._shape is not None and size != self._shape:
            raise DataError(
                f"images: expected {self._expected()}, the size that {self._path} was made for, "
                f"got {shape}"
            )
        epochs = np.asarray(epoch)
        if epochs.ndim == 0:
            epochs = np.full(shape[0], epochs)
        epochs = _whole(epochs, shape[0], "epoch")
        if indices is None:
            return self._counted(shape[0]), epochs
        return _whole(indices, shape[0], "indices"), epochs

    def _counted(self, count: int) -> Array:
        self._check_process()
        with self._lock:
            first = _first_index() if self._next is None else self._next
            self._next = first + count
        return np.arange(first, first + count)

    def _attacked(self, images: Array, labels: Any, rows: Array, epoch: int) -> Array:
        if not self.steps:
            indices = [int(row) for row in rows]
            return streamed(images, indices, self.config, self.seed, epoch)
        self._check_process()
        with self._lock:
            options: dict[str, Any] = {"seed": self.seed, "epoch": epoch, **self._radii}
            steps = None if self.steps == self.config.steps else self.steps
            result = self._opened().attack(images, labels, rows, steps=steps, **options)
        return np.asarray(result.adversarial)

    def _opened(self) -> "Session":
        if self._session is None:
            from ..runtime import Session

            self._session = Session.open(str(self._path), **self._options)
        return self._session

    def _check_type(self, images: Array) -> None:
        if images.dtype != np.uint8 and images.dtype.kind != "f":
            raise DataError(f"images: expected uint8 or floating, got {images.dtype}")
        if images.dtype != np.uint8:
            check_floats(images)

    def _expected(self) -> str:
        names = ("channel", "height", "width")
        channel, height, width = self._shape or names
        order = (channel, height, width) if self.layout == "nchw" else (height, width, channel)
        return f"(batch, {', '.join(map(str, order))})"


def _first_index() -> int:
    """Return the index that this process counts from: 0, or in a worker process one that follows
    from its name ("Process-3"), which is its own.
    """
    if multiprocessing.parent_process() is None:
        return 0
    name = multiprocessing.current_process().name
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) >> 2  # and room to count


def _read(attack: Attack) -> tuple[str | None, tuple[int, int, int] | None, AttackConfig]:
    if isinstance(attack, AttackConfig):
        return None, None, attack
    if not isinstance(attack, (str, PathLike)):
        raise BudgetError(
            "attack: expected the path of an artifact or an AttackConfig, got "
            f"{type(attack).__name__}"
        )
    path = os.fspath(attack)
    _, manifest = load_artifact(path)
    return path, manifest.image_shape, manifest.config


def _adjusted(
    config: AttackConfig, steps: int, flow: float | str | None, pixel: float | str | None
) -> AttackConfig:
    """Return the configuration with these radii; the number of steps is checked."""
    config.replace(steps=steps)
    if flow is not None:
        config = config.replace(flow=FlowBudget(flow, config.flow.norm))
    if pixel is not None:
        config = config.replace(pixel=PixelBudget(pixel, config.pixel.norm))
    return config


def _whole(values: Any, count: int, name: str) -> Array:
    array = np.asarray(values)
    if not array.size:  # an empty list has no type
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu" or array.shape != (count,) or (array < 0).any():
        raise DataError(
            f"{name}: expected {count} integers >= 0, one per image, got {array.dtype} "
            f"{array.shape}"
        )
    return array


def _turn(images: Array, channels_last: bool) -> Array:
    """Return images with their channels moved to the end, or to the front."""
    axes = (0, 2, 3, 1) if channels_last else (0, 3, 1, 2)
    return np.ascontiguousarray(images.transpose(axes))
