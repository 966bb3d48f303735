"""What a step trains on: each image of a batch from one part of the mixture."""

import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..attack.finalize import from_levels
from ..errors import DataError
from ..runtime import Session
from .augment import augment
from .data import TrainData, epoch_order
from .pregenerated import Pregenerated, warn_of_budgets
from .processes import Processes
from .runtime_attack import LiveAttack
from .torch_attack import perturb
from .train_config import Part, TrainConfig

__all__ = ["Batch", "Batches", "autocast", "is_renumbered"]

_LOOKED_AT = 256
"""Training images that are shown to the model of an artifact."""

Attack = Callable[[Tensor, Tensor, list[int], int], Tensor]
"""Images, labels, sample indices and epoch to adversarial images."""


class Batch(NamedTuple):
    """Images (batch, channel, height, width), float32 in [0, 1], and labels (batch,), int64."""

    images: Tensor
    labels: Tensor


class Batches:
    """The batches of a run, each a function of (epoch, step), the weights and the parts.

    A batch of the whole run is a range of the epoch's order. Its first images go to the first part
    of the mixture, and so on; of each part this process takes every size-th image.

    Args:
        config: the run's.
        data: its source.
        model: the network that is trained, not wrapped for several processes.
        processes: which of them this is.

    Raises:
        DataError: an artifact or a data set does not fit the source.
    """

    def __init__(
        self, config: TrainConfig, data: TrainData, model: nn.Module, processes: Processes
    ) -> None:
        self._config, self._data, self._processes = config, data, processes
        self._order: tuple[int, NDArray[np.int64]] | None = None
        ends = np.cumsum((0, *config.counts)).tolist()
        self._spans = [
            _Span(part, begin, end, self._source(part, model))
            for part, begin, end in zip(config.mixture, ends[:-1], ends[1:], strict=True)
        ]

    def __call__(self, epoch: int, step: int) -> Batch:
        """Return this process's share of a batch."""
        size = self._config.batch_size
        batch = self._indices(epoch)[step * size : (step + 1) * size]
        # A part smaller than the number of processes leaves some of them without an image of it.
        spans = [span for span in self._spans if self._places(span)]
        parts = [self._part(span, batch, epoch, step) for span in spans]
        images, labels = (torch.cat(column) for column in zip(*parts, strict=True))
        self._data.images.expect(self._needed(epoch, step + 1))
        if self._config.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return Batch(images, labels)

    def _part(self, span: "_Span", batch: NDArray[np.int64], epoch: int, step: int) -> Batch:
        places = self._places(span)
        if isinstance(span.source, Pregenerated):
            slots = [step * (span.end - span.begin) + place - span.begin for place in places]
            levels, labels, indices = span.source.take(slots, epoch)
        else:
            indices = batch[places].tolist()
            levels = self._data.images.take(indices)
            labels = self._data.labels[indices]
        images, labels = self._augmented(levels, indices, epoch), labels.to(self._processes.device)
        if span.source is None or isinstance(span.source, Pregenerated):
            return Batch(images, labels)
        return Batch(span.source(images, labels, indices, epoch), labels)

    def _augmented(self, levels: Tensor, indices: list[int], epoch: int) -> Tensor:
        config = self._config
        moved = augment(
            levels.to(self._processes.device), indices,
            seed=config.seed, epoch=epoch, pad=config.pad, flip=config.flip,
        )  # fmt: skip
        return from_levels(moved.permute(0, 2, 3, 1))

    def _places(self, span: "_Span") -> list[int]:
        """The positions in a batch that this process fills from this part."""
        rank, size = self._processes.rank, self._processes.size
        return [place for place in range(span.begin, span.end) if place % size == rank]

    def _needed(self, epoch: int, step: int) -> list[int]:
        size = self._config.batch_size
        batch = self._indices(epoch)[step * size : (step + 1) * size]
        if len(batch) < size or len(self._spans) > 1:
            return []
        return [int(batch[place]) for place in self._places(self._spans[0])]

    def _indices(self, epoch: int) -> NDArray[np.int64]:
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, epoch_order(self._data, self._config.seed, epoch)
        return self._order[1]

    def _source(self, part: Part, model: nn.Module) -> "Attack | Pregenerated | None":
        if part.kind == "clean":
            return None
        if part.kind == "dataset":
            return Pregenerated(str(part.path), self._config, self._data)
        if part.kind == "artifact":
            return self._surrogate(str(part.path))
        if part.kind == "runtime":
            return self._live(model)
        config = self._config

        def attack(images: Tensor, labels: Tensor, indices: list[int], epoch: int) -> Tensor:
            with autocast(config, images.device):
                return perturb(
                    model, config.training_attack, images, labels, indices,
                    seed=config.seed, epoch=epoch,
                )  # fmt: skip

        return attack

    def _live(self, model: nn.Module) -> Attack:
        config, device = self._config, self._processes.device
        live = LiveAttack(model, config.training_attack, self._data.shape, device)

        def attack(images: Tensor, labels: Tensor, indices: list[int], epoch: int) -> Tensor:
            return live(images, labels, indices, seed=config.seed, epoch=epoch)

        return attack

    def _surrogate(self, path: str) -> Attack:
        device = self._processes.device
        session = Session.open(Path(path), device=str(device))
        if session.classes != self._data.classes:
            raise DataError(
                f"{path}: expected {self._data.classes} classes, as {self._config.source} has, "
                f"got an attack on {session.classes}"
            )
        if tuple(session.image_shape) != self._data.shape:
            raise DataError(
                f"{path}: expected images {self._data.shape}, as {self._config.source} has, got "
                f"{tuple(session.image_shape)}"
            )
        warn_of_budgets(path, session.config, self._config.training_attack)
        self._warn_of_classes(path, session)
        seed = self._config.seed

        def attack(images: Tensor, labels: Tensor, indices: list[int], epoch: int) -> Tensor:
            result = session.attack(
                images.cpu().numpy(), labels.cpu().numpy(), indices, seed=seed, epoch=epoch
            )
            return torch.from_numpy(result.exact).to(device)

        return attack

    def _warn_of_classes(self, path: str, session: Session) -> None:
        """Warn where the artifact's model seems to number its classes otherwise than this run."""
        train = self._data.train
        some = train[np.linspace(0, len(train) - 1, min(_LOOKED_AT, len(train))).astype(int)]
        levels = self._data.images.take(some.tolist()).permute(0, 2, 3, 1).contiguous()
        labels = self._data.labels[torch.from_numpy(some)].numpy()
        said = session.predict(levels.numpy()).argmax(1)
        right = int((said == labels).sum())
        if right * self._data.classes <= len(some) or is_renumbered(labels, said):
            warnings.warn(
                f"{path}: its model gives {right} of {len(some)} training images the run's label, "
                "as one that numbers its classes otherwise would; give --classes FILE, a name a "
                "line in the order of its classes",
                stacklevel=5,
            )


def is_renumbered(labels: NDArray[np.int64], said: NDArray[np.int64]) -> bool:
    """Whether predictions fit another numbering of the classes better than their own.

    One half of the images says which class is meant by which, the other one which of the two
    numberings is right more often, by three standard deviations.
    """
    meant: dict[int, int] = {}
    pairs = Counter(zip(labels[::2].tolist(), said[::2].tolist(), strict=True))
    for (label, other), _ in pairs.most_common():
        if label not in meant and other not in meant.values():
            meant[label] = other
    own = labels[1::2] == said[1::2]
    fits = np.array([meant.get(label) for label in labels[1::2].tolist()]) == said[1::2]
    better, worse = int((fits & ~own).sum()), int((own & ~fits).sum())
    return bool(better - worse > 3 * np.sqrt(better + worse))


class _Span(NamedTuple):
    """Positions [begin, end) of every batch, and where their images come from; None is clean."""

    part: Part
    begin: int
    end: int
    source: "Attack | Pregenerated | None"


def autocast(config: TrainConfig, device: torch.device) -> Any:
    """Return the context in which the network runs."""
    return torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16")
