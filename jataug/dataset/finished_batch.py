"""A batch on its way from the attack to the disk."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .card_samples import Sketch

__all__ = ["Finished"]


@dataclass(frozen=True, eq=False)
class Finished:
    """A batch after the attack, without its skipped samples.

    Attributes:
        records: one a image, still without its place on the disk.
        images: (batch, height, width, channel), uint8.
        flow: (batch, 2, height, width), float16.
        exact: (batch, channel, height, width), float32.
        skipped: index, key and reason of the samples left out, as JSON types.
        sketches: what the data card's picture needs of those images that are in it.
    """

    records: list[dict[str, Any]]
    images: NDArray[np.uint8]
    flow: NDArray[np.float16]
    exact: NDArray[np.float32]
    skipped: list[dict[str, Any]]
    sketches: tuple[Sketch, ...] = ()
