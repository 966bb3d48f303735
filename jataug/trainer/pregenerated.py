"""Adversarial images that `jataug generate` made, as batches, with the labels of the source."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..budget import FlowBudget, PixelBudget
from ..config import AttackConfig
from ..dataset import Dataset, StoredSample, open_dataset
from ..dataset.open import StoredShard
from ..errors import DataError
from .data import IN_MEMORY, TrainData, permutation
from .train_config import TrainConfig

__all__ = ["Pregenerated", "warn_of_budgets"]

_ROWS = 3


class Pregenerated:
    """The images of a data set, in an order of their own in every epoch.

    Where it was made of this run's source, images of the validation part are left out, and labels
    are the source's. Else they are the set's own, and its classes are matched by their names.

    Args:
        path: of the data set.
        config: the run's.
        data: its source.

    Raises:
        DataError: it is no finished data set, its images are not of the source's size, its true
            labels are not known, or it holds nothing to train on.
    """

    def __init__(self, path: str, config: TrainConfig, data: TrainData) -> None:
        self._set: Dataset = open_dataset(path)
        index, plan = self._set.index, self._set.index["plan"]
        if tuple(plan["image_shape"]) != data.shape:
            raise DataError(
                f"{path}: expected images {data.shape}, as {config.source} has, got "
                f"{tuple(plan['image_shape'])}"
            )
        warn_of_budgets(path, AttackConfig.from_dict(plan["attack"]), config.training_attack)
        self._seed = config.seed
        shards = (StoredShard(self._set.root, s, plan["format"]) for s in index["shards"])
        records = [record for shard in shards for record in shard.records]
        if _is_source(data, plan["source"]["fingerprint"]):
            _check_keys(path, records, data)
            indices = np.array([record["index"] for record in records])
            self._rows = np.flatnonzero(np.isin(indices, data.train))
            self._labels = data.labels[torch.from_numpy(indices[self._rows])]
        else:
            self._rows = np.arange(len(records))
            self._labels = _labels(path, index, records, config, data)
            if config.validation:
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
        places = order[np.asarray(slots) % len(order)]
        samples = [self._held[int(row)] for row in self._rows[places]]
        images = np.stack([sample.image.transpose(2, 0, 1) for sample in samples])
        labels = self._labels[torch.from_numpy(places)]
        return torch.from_numpy(images), labels, [sample.index for sample in samples]


def _is_source(data: TrainData, fingerprint: str) -> bool:
    """Whether a data set of this fingerprint was made of the run's source."""
    if fingerprint.startswith("sha256:"):
        return bool(data.source.describe(content=True)["fingerprint"] == fingerprint)
    return bool(data.description["fingerprint"] == fingerprint)


def _check_keys(path: str, records: Sequence[Mapping[str, Any]], data: TrainData) -> None:
    for record in records:
        if (key := data.source.key(record["index"])) != record["key"]:
            raise DataError(
                f"{path}: expected the sample {key!r} of the source at index {record['index']}, "
                f"got {record['key']!r}: made in another order; generate it again"
            )


def _labels(
    path: str,
    index: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    config: TrainConfig,
    data: TrainData,
) -> Tensor:
    """Return the run's label of every record of a data set that was made of another source."""
    plan, labels = index["plan"], np.array([record["label"] for record in records])
    if plan["labels"] == "predicted":
        raise DataError(
            f"{path}: its labels are a model's predictions, and it was made of another source than "
            f"{config.source}, or of one that has changed: the true labels are not known; generate "
            f"it from {config.source}"
        )
    names = plan["class_labels"] or {n: int(k) for k, n in (index["class_names"] or {}).items()}
    if not names or data.names is None:
        if plan["classes"] != data.classes:
            raise DataError(
                f"{path}: expected {data.classes} classes, as {config.source} has, got a set of "
                f"{plan['classes']}"
            )
        warnings.warn(
            f"{path}: whether its classes are numbered as those of {config.source} cannot be told "
            "without their names; its labels are taken as they are",
            stacklevel=5,
        )
        return torch.from_numpy(labels)
    numbers = np.zeros(plan["classes"], np.int64)
    for number in np.unique(labels):
        own = [name for name, other in names.items() if other == number]
        found = {data.names.get(name) for name in own}
        if len(found) != 1 or None in found:
            raise DataError(
                f"{path}: expected the names of its class {number} ({', '.join(map(repr, own))}) "
                f"to be one class of {config.source}, which has {_some(data.names)}; use --classes "
                "FILE to say which is which"
            )
        (numbers[number],) = found
    return torch.from_numpy(numbers[labels])


def _some(names: Mapping[str, int]) -> str:
    shown = ", ".join(map(repr, list(names)[:5]))
    return f"{shown}, ..." if len(names) > 5 else shown


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
