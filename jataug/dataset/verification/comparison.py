"""The two things that a stored image is compared with: what it was made from, and what a model
says.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data import ClassOrder, Geometry, Source, class_map, prepare
from ...errors import DataError
from ...result import predictions

__all__ = ["Original", "Prediction"]


class Original:
    """The source of a data set, as its plan used it.

    Args:
        source: of the images.
        plan: of the data set.
        order: of class folders; by default that of the plan.

    Raises:
        DataError: the source has another number of samples, or class folders that are not the
            model's.
    """

    def __init__(
        self, source: Source, plan: Mapping[str, Any], order: ClassOrder | None = None
    ) -> None:
        if len(source) != plan["source"]["count"]:
            raise DataError(
                f"source: expected {plan['source']['count']} samples, got {len(source)}; "
                "budgets and labels are not checked"
            )
        crop = plan["crop"]
        self._source, self._count = source, plan["classes"]
        self._shape: tuple[int, int, int] = tuple(plan["image_shape"])
        self._geometry = Geometry(plan["resize"], tuple(crop) if isinstance(crop, list) else crop)
        self._meaning = None
        if plan["labels"] == "source":
            given = plan["class_labels"] if order is None else None
            if given is None and source.class_folders:
                order = order or "natural"
            self._meaning = class_map(source, self._count, given, order)

    @property
    def random_access(self) -> bool:
        """Whether its images can be read from several threads."""
        return self._source.random_access

    def image(self, record: Mapping[str, Any]) -> NDArray[np.uint8]:
        """Return the clean image of a record: (height, width, channel), uint8.

        Raises:
            DataError: the source has another image there, another label, or none that can be read.
        """
        index = record["index"]
        if (key := self._source.key(index)) != record["key"]:
            raise DataError(f"expected the key of the source, {key!r}, got {record['key']!r}")
        if self._meaning is not None:
            label = self._meaning.of(self._source.label(index))
            if label != record["label"]:
                raise DataError(f"expected the label of the source, {label}, got {record['label']}")
        where = self._source.where(index)
        return prepare(self._source.read(index), self._geometry, self._shape, where)


class Prediction:
    """What a model says about stored images.

    Args:
        predict: images (batch, height, width, channel), uint8, to logits (batch, classes).
        strict: whether it has to say what is recorded.

    Attributes:
        images: that were predicted.
        correct: those predicted as their label.
        changed: those not predicted as recorded.
    """

    def __init__(self, predict: Callable[[Any], Any], *, strict: bool) -> None:
        self._predict, self._strict = predict, strict
        self.images, self.correct, self.changed = 0, 0, 0

    @property
    def accuracy(self) -> float | None:
        """Part of the images that are predicted as their label."""
        return self.correct / self.images if self.images else None

    def check(
        self, images: NDArray[np.uint8], records: list[dict[str, Any]]
    ) -> list[tuple[int, str]]:
        """Return (position in the batch, what is wrong) for every prediction that is not the
        recorded one.
        """
        found = predictions(np.asarray(self._predict(images)))
        problems = []
        for row, record in enumerate(records):
            said = int(found[row]) if found[row] >= 0 else None
            self.images += 1
            self.correct += said == record["label"]
            if said != (recorded := record["adversarial_prediction"]):
                self.changed += 1
                problems.append((row, f"expected the recorded prediction {recorded}, got {said}"))
        return problems if self._strict else []
