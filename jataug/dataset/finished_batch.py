"""A batch after the attack, before it is written."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .card_samples import CardSample

__all__ = ["Finished"]


@dataclass(frozen=True, eq=False)
class Finished:
    """A batch after the attack, without its skipped samples.

    Attributes:
        records: one per image, without its file and sha256.
        images: (batch, height, width, channel), uint8.
        flow: (batch, 2, height, width), float16.
        exact: (batch, channel, height, width), float32.
        skipped: index, key and reason of the samples left out, as JSON types.
        card_samples: the images of the batch that the picture of the data card shows.
    """

    records: list[dict[str, Any]]
    images: NDArray[np.uint8]
    flow: NDArray[np.float16]
    exact: NDArray[np.float32]
    skipped: list[dict[str, Any]]
    card_samples: tuple[CardSample, ...] = ()
