"""Data sets and live augmentation for torch: map-style data sets, tensors on any device.

Images are channels first: (channel, height, width), uint8.
"""

from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any

import numpy as np

from ..config import AttackConfig
from ..errors import DataError, MissingExtra
from ..finalize import channel_axis
from .augmenter import Attack, Augmenter, Layout
from .check import Verify
from .joint import as_config
from .labels import Convention
from .samples import Clean, Samples, open_mixed, opened

try:
    import torch
except ImportError as error:
    raise MissingExtra(
        "jataug.loaders.torch needs torch, which is not installed: pip install 'jataug[torch]'"
    ) from error

from . import tensors

__all__ = ["RandomJoint", "TensorAugmenter", "TensorDataset", "augment", "dataset", "mixed"]

Transform = Callable[[torch.Tensor], Any]


class TensorDataset(torch.utils.data.Dataset[dict[str, Any]]):
    """Samples by position: {"image", "label", "index", "epoch"} and, in a mixed one, "adversarial".

    Samplers, workers and hosts divide it as they divide any map-style data set.
    """

    def __init__(self, samples: Samples, transform: Transform | None) -> None:
        self._samples, self._transform = samples, transform
        # In shared memory: workers that persist see what set_epoch says in the parent.
        self._epoch = torch.zeros((), dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the samples, in every worker; before a loader is iterated."""
        if epoch < 0:
            raise DataError(f"epoch: expected an integer >= 0, got {epoch}")
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, position: int) -> dict[str, Any]:
        if not -len(self) <= position < len(self):
            raise IndexError(f"expected a position in [0, {len(self)}), got {position}")
        sample = self._samples.sample(int(position) % len(self), int(self._epoch))
        # A copy: arrays over a file's bytes cannot be written, tensors can.
        image: Any = torch.from_numpy(np.array(sample["image"].transpose(2, 0, 1), order="C"))
        label = sample["label"]
        return {
            **{name: value.item() for name, value in sample.items() if value.ndim == 0},
            "image": image if self._transform is None else self._transform(image),
            "label": torch.from_numpy(label) if label.ndim else int(label),
        }


class TensorAugmenter(Augmenter):
    """The augmenter of tensors, channels first.

    CPU tensors are read where they lie. On a CUDA device the random form runs on that device; the
    images of a model's attack go through the host, whatever device its session has.
    """

    layout: Layout = "nchw"

    def __call__(
        self, images: Any, labels: Any = None, indices: Any = None, *, epoch: Any = 0
    ) -> Any:
        """Return the images, or the batch {"image": ..., ...}, augmented; see Augmenter.run."""
        if isinstance(images, Mapping):
            return self.batch(images)
        return self.images(images, labels, indices, epoch)

    def images(self, images: Any, labels: Any = None, indices: Any = None, epoch: Any = 0) -> Any:
        """Return augmented images, on the device of `images`."""
        if not isinstance(images, torch.Tensor):
            raise DataError(f"images: expected a torch tensor, got {type(images).__name__}")
        held = images.detach()
        rows, epochs = _host(indices), _host(epoch)
        if held.is_cuda and not self.steps:
            return self._on_device(held, rows, epochs)
        # numpy has no bfloat16.
        array = held.cpu() if held.dtype != torch.bfloat16 else held.cpu().float()
        moved = torch.from_numpy(self.run(array.numpy(), _host(labels), rows, epochs))
        return moved.to(held.device, held.dtype)

    def _on_device(self, images: torch.Tensor, indices: Any, epoch: Any) -> torch.Tensor:
        planes = images if self.layout == "nchw" else images.permute(0, 3, 1, 2)
        rows, epochs = self.slots(tuple(images.shape), indices, epoch)
        if images.is_floating_point() and not bool(((images >= 0) & (images <= 1)).all()):
            raise DataError("images: expected finite values in [0, 1], some have others")
        out = torch.empty_like(planes)
        for one in np.unique(epochs):
            part = torch.from_numpy(np.flatnonzero(epochs == one)).to(images.device)
            kept = [int(row) for row in rows[epochs == one]]
            out[part] = tensors.streamed(planes[part], kept, self.config, self.seed, int(one))
        return out if self.layout == "nchw" else out.permute(0, 2, 3, 1).contiguous()


class RandomJoint(torch.nn.Module):
    """A random flow and perturbation inside the budgets of `config`, as a module.

    For pipelines of torchvision v2 and kornia: it takes an image, or a structure of which it
    changes the images alone: tv_tensors.Image and Video, or else the first plain tensor of three
    axes or more. Images are ([batch,] channel, height, width), uint8 or floating in [0, 1]; every
    image has its own draws, from torch's random source, or from `generator`.
    """

    def __init__(
        self, config: AttackConfig | Mapping[str, Any], generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.config, self.generator = as_config(config), generator

    def forward(self, *inputs: Any) -> Any:
        """Return the inputs, their images replaced.

        Raises:
            DataError: no image, another type or shape, or floats outside [0, 1].
        """
        value = inputs if len(inputs) > 1 else inputs[0]
        found = list(_images(value))
        marked = [image for image in found if type(image) is not torch.Tensor]
        chosen = {id(image) for image in marked or found[:1]}
        if not chosen:
            raise DataError("image: expected a tensor, got none; put v2.ToImage() before")
        return _replaced(value, chosen, self._moved)

    def _moved(self, image: torch.Tensor) -> torch.Tensor:
        plain = image.detach().as_subclass(torch.Tensor)
        floating = plain.is_floating_point()
        if plain.ndim < 3 or not (floating or plain.dtype == torch.uint8):
            raise DataError(
                "image: expected uint8 or floating (channel, height, width), got "
                f"{plain.dtype} {tuple(plain.shape)}"
            )
        shape = tuple(plain.shape[-3:])
        if type(image) is torch.Tensor and channel_axis((1, *shape)) == 3:
            raise DataError(
                f"image: expected (channel, height, width), got {shape}, which has its channels "
                "last; put v2.ToImage() before"
            )
        if floating and not bool(((plain >= 0) & (plain <= 1)).all()):
            raise DataError("image: expected finite values in [0, 1], got others")
        batch = plain.reshape(-1, *plain.shape[-3:])
        moved = tensors.drawn(batch, self.config, self.generator)
        return moved.reshape(plain.shape).as_subclass(type(image))

    def extra_repr(self) -> str:
        """Return the budgets."""
        return f"flow={self.config.flow}, pixel={self.config.pixel}"


def dataset(
    path: str | PathLike[str],
    *,
    smoothing: float | None = None,
    convention: Convention = "authors",
    verify: Verify = "quick",
    transform: Transform | None = None,
) -> TensorDataset:
    """Return a generated data set as a map-style torch data set.

    Args:
        path: of the data set, of any format.
        smoothing: of the labels, which are then (classes,), float32; None keeps them integers.
        convention: of the smoothing: "authors" or "torch", see jataug.loaders.labels.Smoothing.
        verify: "quick", "read" or "full", see docs/loaders.md.
        transform: of each image, (channel, height, width), uint8.

    Raises:
        DataError: there is no finished data set, or an option is outside its domain.
        CheckError: the data set does not verify.
    """
    return TensorDataset(opened(path, smoothing, convention, verify), transform)


def mixed(
    clean: Clean,
    adversarial: str | PathLike[str],
    ratio: float = 0.5,
    seed: int = 0,
    *,
    smoothing: float | None = None,
    convention: Convention = "authors",
    verify: Verify = "quick",
    transform: Transform | None = None,
) -> TensorDataset:
    """Return clean and adversarial samples joined by index: each one is adversarial in an epoch
    with probability `ratio`, drawn from (seed, epoch, index).

    Args:
        clean: the source of the data set: its path, or a sequence of its 8-bit samples.
        adversarial: the path of the data set.
        ratio: in [0, 1].
        seed: of the draws.
        smoothing: see dataset.
        convention: likewise.
        verify: likewise.
        transform: likewise.

    Raises:
        DataError: as for dataset; the ratio is outside [0, 1]; another source.
        CheckError: the data set does not verify.
    """
    samples = opened(adversarial, smoothing, convention, verify)
    return TensorDataset(open_mixed(clean, samples, ratio, seed), transform)


def augment(attack: Attack, **options: Any) -> TensorAugmenter:
    """Return a function of batches: augmenter(images, labels, indices, epoch=0), or of
    {"image": ..., "label": ..., "index": ..., "epoch": ...}. Options are those of Augmenter.
    """
    return TensorAugmenter(attack, **options)


def _host(value: Any) -> Any:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value


def _images(value: Any) -> Any:
    """Yield the tensors of a structure that may be images, in order."""
    if isinstance(value, torch.Tensor):
        plain = type(value) is torch.Tensor and value.ndim > 2
        if plain or type(value).__name__ in ("Image", "Video"):
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _images(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _images(item)


def _replaced(value: Any, chosen: set[int], change: Callable[[torch.Tensor], Any]) -> Any:
    if isinstance(value, torch.Tensor):
        return change(value) if id(value) in chosen else value
    if isinstance(value, Mapping):
        return {name: _replaced(item, chosen, change) for name, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)([_replaced(item, chosen, change) for item in value])
    return value
