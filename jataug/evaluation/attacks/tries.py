"""The rows of a batch: one for every try (restart, target, radius) on every image."""

import dataclasses
from dataclasses import dataclass
from typing import Self

import numpy as np

from ..models.model import Array

__all__ = ["Rows"]


@dataclass(frozen=True, eq=False)
class Rows:
    """A batch of rows. Every field has one entry per row.

    Attributes:
        image: (rows, channel, height, width), float32 in [0, 1].
        label: (rows,), int64.
        index: (rows,), int64; the sample's position in the source. It selects the random streams.
        restart: (rows,), int64; the number of the restart. It selects the random streams too.
        target: (rows,), int64; the target class of a targeted objective.
        flow: (rows,), float32; the flow radius, pixels.
        pixel: (rows,), float32; the pixel radius, image units.
    """

    image: Array
    label: Array
    index: Array
    restart: Array
    target: Array
    flow: Array
    pixel: Array

    @classmethod
    def first_tries(
        cls, image: Array, label: Array, index: Array, flow: float, pixel: float
    ) -> Self:
        """Return one row per image: the first restart, with the label as its target (no target)."""
        count = len(image)
        return cls(
            image,
            label,
            index,
            np.zeros(count, np.int64),
            label.copy(),
            np.full(count, flow, np.float32),
            np.full(count, pixel, np.float32),
        )

    def __len__(self) -> int:
        return len(self.image)

    def take(self, where: Array) -> Self:
        """Return the rows at these positions (or where the mask holds)."""
        return type(self)(*(value[where] for value in vars(self).values()))

    def replace(self, **fields: Array) -> Self:
        """Return the rows with some fields changed."""
        return dataclasses.replace(self, **fields)
