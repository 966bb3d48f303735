"""Adversarial images that `jataug generate` made, as batches."""

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..budget import FlowBudget, PixelBudget
from ..config import AttackConfig
from ..dataset import Dataset, StoredSample, open_dataset
from ..errors import DataError
from .data import IN_MEMORY, TrainData, permutation
from .train_config import TrainConfig

__all__ = ["Pregenerated", "warn_of_budgets"]

_ROWS = 3


class Pregenerated:
    """The images of a data set, in an order of their own in every epoch.

    Where it was made of this run's source, images of the validation part are left out.

    Args:
        path: of the data set.
        config: the run's.
        data: its source.

    Raises:
        DataError: it is no finished data set, its images or classes are not the source's, or it
            holds nothing to train on.
    """

    def __init__(self, path: str, config: TrainConfig, data: TrainData) -> None:
        self._set: Dataset = open_dataset(path)
        plan = self._set.index["plan"]
        if plan["classes"] != data.classes:
            raise DataError(
                f"{path}: expected {data.classes} classes, as {config.source} has, got a set of "
                f"{plan['classes']}"
            )
        if tuple(plan["image_shape"]) != data.shape:
            raise DataError(
                f"{path}: expected images {data.shape}, as {config.source} has, got "
                f"{tuple(plan['image_shape'])}"
            )
        warn_of_budgets(path, AttackConfig.from_dict(plan["attack"]), config.training_attack)
        self._seed = config.seed
        self._indices = _source_indices(self._set)
        self._rows = np.arange(len(self._set))
        if plan["source"]["fingerprint"] == data.description["fingerprint"]:
            self._rows = np.flatnonzero(np.isin(self._indices, data.train))
        elif config.validation:
            warnings.warn(
                f"{path} was made of another source than {config.source}, or of one that has "
                "changed: whether it holds images of the validation part cannot be told",
                stacklevel=4,
            )
        if not len(self._rows):
            raise DataError(f"{path}: expected images of the training part, got none")
        # One shard after the other: a set is not made for single images in any order.
        small = len(self._set) * int(np.prod(data.shape)) <= IN_MEMORY
        self._held: Dataset | list[StoredSample] = list(self._set) if small else self._set

    def take(self, slots: Sequence[int], epoch: int) -> tuple[Tensor, Tensor, list[int]]:
        """Return images (batch, channel, height, width), uint8, labels, and indices in the source.

        Args:
            slots: which images of this epoch's order, from 0; beyond the end it starts again.
            epoch: names the order.
        """
        order = permutation(self._seed, _ROWS, epoch, len(self._rows))
        samples = [self._held[int(self._rows[order[slot % len(order)]])] for slot in slots]
        images = np.stack([sample.image.transpose(2, 0, 1) for sample in samples])
        labels = torch.tensor([sample.label for sample in samples])
        return torch.from_numpy(images), labels, [sample.index for sample in samples]


def _source_indices(dataset: Dataset) -> NDArray[np.int64]:
    skipped = {entry["index"] for entry in dataset.index["skipped"]}
    spans = (range(shard["start"], shard["stop"]) for shard in dataset.index["shards"])
    return np.array([k for span in spans for k in span if k not in skipped], np.int64)


def warn_of_budgets(path: str, theirs: AttackConfig, ours: AttackConfig) -> None:
    """Warn where images were made with other budgets than the run's attack has."""
    pairs: list[tuple[str, FlowBudget | PixelBudget, FlowBudget | PixelBudget]] = [
        ("flow", theirs.flow, ours.flow),
        ("pixel", theirs.pixel, ours.pixel),
    ]
    for name, there, here in pairs:
        if there != here and (there.radius or here.radius):
            warnings.warn(
                f"{path}: its {name} budget is {there.radius:g} {there.norm}, the run's "
                f"{here.radius:g} {here.norm}; both are trained on",
                stacklevel=4,
            )
