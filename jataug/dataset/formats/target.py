"""What a writer is given, and what it and a reader have to offer."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...atomic import Store
from ..finished_batch import Finished
from ..plan import Plan, Shard

__all__ = ["ShardReader", "ShardWriter", "Target", "described", "raw"]

_DESCRIBED = (
    "index",
    "key",
    "label",
    "target",
    "clean_prediction",
    "adversarial_prediction",
    "loss",
    "success",
    "failed",
)


@dataclass(frozen=True, eq=False)
class Target:
    """Where and how a shard is written.

    Attributes:
        store: of the destination.
        plan: the shapes, and what is saved.
        shard: which one.
        name_of: the path of a sample's PNG (format "folder").
        names: the class names, where they are known.
        pool: encodes images.
    """

    store: Store
    plan: Plan
    shard: Shard
    name_of: Callable[[int], str]
    names: Mapping[int, str] | None
    pool: Executor


class ShardWriter(Protocol):
    """Writes one shard; memory holds one batch."""

    def add(self, batch: Finished) -> list[dict[str, Any]]:
        """Write a batch; return where each image is: its file, and the sha256 of its bytes there.

        Raises:
            DataError: a file cannot be written.
        """

    def finish(self, records: list[dict[str, Any]]) -> dict[str, str]:
        """Publish what was written; return the sha256 of each file of the shard.

        Images that are files of their own are not among them.
        """


class ShardReader(Protocol):
    """Reads the rows of one shard; safe to share between threads."""

    def data(self, row: int) -> bytes:
        """Return the bytes of an image as they are stored, which its record has the sha256 of.

        Raises:
            DataError: they cannot be read.
        """

    def image(self, row: int, data: bytes) -> NDArray[np.uint8]:
        """Return the image in these bytes: (height, width, channel), uint8."""

    def flow(self, row: int) -> NDArray[np.float16] | None:
        """Return a flow: (2, height, width), float16; None where flows were not saved."""

    def exact(self, row: int) -> NDArray[np.float32] | None:
        """Return the float image: (channel, height, width), float32, or None."""

    def problems(self) -> Iterator[str]:
        """Yield what the shard's files say otherwise than the records, each named by its key."""


def described(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known about an image, without where it is stored."""
    return {name: record[name] for name in _DESCRIBED}


def raw(array: NDArray[Any]) -> bytes:
    """Return the numbers of an array, little-endian, in C order."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
