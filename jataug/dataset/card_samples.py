"""The few samples that the picture of a data card shows, kept when their shard is made."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data import npz_rows
from .encode import write_npz
from .plan import Plan, Shard

__all__ = ["Sketch", "read_sketches", "shown", "sketch_name", "sketched", "write_sketches"]

_ROWS = 4


@dataclass(frozen=True, eq=False)
class Sketch:
    """One sample of the picture.

    Attributes:
        index: its position in the source, int64.
        clean: (height, width, channel), uint8.
        adversarial: as `clean`.
        flow: (2, height, width), float16, pixels.
        delta: (channel, height, width), float32, image units.
        before: (classes,), float32; the logits of the clean image.
        after: likewise, of the adversarial one.
    """

    index: NDArray[np.int64]
    clean: NDArray[np.uint8]
    adversarial: NDArray[np.uint8]
    flow: NDArray[np.float16]
    delta: NDArray[np.float32]
    before: NDArray[np.float32]
    after: NDArray[np.float32]


def sketch_name(shard: Shard) -> str:
    """Return the path of a shard's part of the picture, in the destination."""
    return f"records/{shard.name}.preview.npz"


def shown(plan: Plan) -> set[int]:
    """Return the samples in the picture, evenly spread: class folders come one after the other."""
    return {k * plan.count // _ROWS for k in range(_ROWS)}


def sketched(
    plan: Plan,
    span: range,
    clean: NDArray[np.uint8],
    before: NDArray[np.float32],
    result: Any,
    kept: Sequence[int],
) -> tuple[Sketch, ...]:
    """Return the samples of a batch that the picture shows.

    Args:
        plan: of the data set.
        span: the samples of the batch.
        clean: (batch, height, width, channel), uint8; what was attacked.
        before: (batch, classes), float32; the logits of that.
        result: of the attack on them.
        kept: the positions in the batch that were not skipped.
    """
    slots = [slot for slot in kept if span[slot] in shown(plan)]
    return tuple(
        Sketch(
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


def write_sketches(path: Path, sketches: Sequence[Sketch]) -> None:
    """Write samples as an .npz archive, an array an attribute."""
    names = [field.name for field in fields(Sketch)]
    write_npz(path, {name: np.stack([getattr(s, name) for s in sketches]) for name in names})


def read_sketches(path: Path) -> list[Sketch]:
    """Return the samples of an archive.

    Raises:
        DataError: it is missing or damaged.
    """
    arrays = npz_rows(path)
    columns = [arrays[field.name].load() for field in fields(Sketch)]
    return [Sketch(*row) for row in zip(*columns, strict=True)]
