"""The few samples that the picture of a data card shows. They are stored with their shard."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data import npz_rows
from .encode import write_npz
from .plan import Plan, Shard

__all__ = [
    "CardSample",
    "card_sample_name",
    "read_card_samples",
    "select_card_samples",
    "shown",
    "write_card_samples",
]

_ROWS = 4


@dataclass(frozen=True, eq=False)
class CardSample:
    """One sample of the picture.

    Attributes:
        index: position of the sample in the source, int64.
        clean: (height, width, channel), uint8.
        adversarial: as `clean`.
        flow: (2, height, width), float16, pixels.
        delta: (channel, height, width), float32, image units.
        before: logits of the clean image, (classes,), float32.
        after: logits of the adversarial image, (classes,), float32.
    """

    index: NDArray[np.int64]
    clean: NDArray[np.uint8]
    adversarial: NDArray[np.uint8]
    flow: NDArray[np.float16]
    delta: NDArray[np.float32]
    before: NDArray[np.float32]
    after: NDArray[np.float32]


def card_sample_name(shard: Shard) -> str:
    """Return the path, in the destination, of a shard's samples for the picture."""
    return f"records/{shard.name}.preview.npz"


def shown(plan: Plan) -> set[int]:
    """Return the indices of the samples in the picture, spread evenly to show several classes."""
    return {k * plan.count // _ROWS for k in range(_ROWS)}


def select_card_samples(
    plan: Plan,
    span: range,
    clean: NDArray[np.uint8],
    before: NDArray[np.float32],
    result: Any,
    kept: Sequence[int],
) -> tuple[CardSample, ...]:
    """Return the samples of a batch that the picture shows.

    Args:
        plan: the plan of the data set.
        span: indices of the samples of the batch.
        clean: clean images, (batch, height, width, channel), uint8.
        before: logits of the clean images, (batch, classes), float32.
        result: result of the attack on the batch.
        kept: positions in the batch that were not skipped.
    """
    slots = [slot for slot in kept if span[slot] in shown(plan)]
    return tuple(
        CardSample(
            np.array(span[slot]),
            clean[slot],
            np.asarray(result.adversarial[slot]),
            np.asarray(result.flow[slot]),
            np.asarray(result.delta[slot], np.float32),
            np.asarray(before[slot], np.float32),
            np.asarray(result.logits[slot], np.float32),
        )
        for slot in slots
    )


def write_card_samples(path: Path, card_samples: Sequence[CardSample]) -> None:
    """Write samples as an .npz archive, an array an attribute."""
    names = [field.name for field in fields(CardSample)]
    write_npz(path, {name: np.stack([getattr(s, name) for s in card_samples]) for name in names})


def read_card_samples(path: Path) -> list[CardSample]:
    """Return the samples of an archive.

    Raises:
        DataError: it is missing or damaged.
    """
    arrays = npz_rows(path)
    columns = [arrays[field.name].load() for field in fields(CardSample)]
    return [CardSample(*row) for row in zip(*columns, strict=True)]
