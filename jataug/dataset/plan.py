"""What a data set will be, down to the byte; and the ranges of samples that it is made in."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..checks import canonical, check_integer, digest
from ..errors import DataError

__all__ = [
    "DEFAULT_BATCH",
    "FORMATS",
    "Plan",
    "Shard",
    "part_of",
]

FORMATS = ("folder", "npz", "tar", "parquet")
DEFAULT_BATCH = 64
"""Images in a call of the model, where there are so many."""
LABELS = ("source", "predicted")


@dataclass(frozen=True)
class Shard:
    """Samples [start, stop) of the source, stored and resumed as one."""

    number: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """The stem of the files of this shard."""
        return f"shard-{self.number:05d}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that decides the bytes of a data set, but for the build it is made with.

    Attributes:
        artifact: sha256 of the attack artifact.
        attack: its attack configuration.
        image_shape: (channel, height, width).
        classes: the number of classes of the model.
        count: the samples of the source that are used, from the first.
        class_labels: the model's class of each class name, where the user said so.
        threads: of the runtime, in every worker; None leaves the choice to it. Last
            bits depend on it.
        source: kind, count and fingerprint of the source; where it lies is no part of the plan.
        backend: the runtime that attacks.
        tf32: whether CUDA rounds products to TF32.
    """

    artifact: str
    attack: Mapping[str, Any]
    image_shape: tuple[int, int, int]
    classes: int
    count: int
    seed: int
    epoch: int
    batch_size: int
    shard_size: int
    format: Literal["folder", "npz", "tar", "parquet"]
    labels: Literal["source", "predicted"]
    class_labels: Mapping[str, int] | None
    resize: int | None
    crop: int | tuple[int, int] | None
    save_flow: bool
    save_float: bool
    threads: int | None
    source: Mapping[str, Any]
    backend: str = "onnxruntime"
    tf32: bool = False

    def __post_init__(self) -> None:
        for name in ("seed", "epoch"):
            check_integer(name, getattr(self, name), 0, 2**64 - 1)
        for name in ("batch_size", "shard_size"):
            check_integer(name, getattr(self, name), 1)
        if self.threads is not None:
            check_integer("threads", self.threads, 1)
        for name, choices in (("format", FORMATS), ("labels", LABELS)):
            if (value := getattr(self, name)) not in choices:
                raise DataError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")
        whole = -(-self.shard_size // self.batch_size) * self.batch_size
        object.__setattr__(self, "shard_size", whole)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain JSON types; the defaults of backend and tf32 are left out, as
        when there was nothing else, so that plans keep their hash.
        """
        plain: dict[str, Any] = json.loads(canonical(asdict(self)))
        if self.backend == "onnxruntime":
            del plain["backend"]
        if not self.tf32:
            del plain["tf32"]
        return plain

    @property
    def hash(self) -> str:
        """sha256 of the canonical JSON of the plan."""
        return digest(self.to_dict())

    @property
    def shards(self) -> list[Shard]:
        """The shards, in order; only the last may be smaller than shard_size."""
        starts = range(0, self.count, self.shard_size)
        ends = (min(start + self.shard_size, self.count) for start in starts)
        return [Shard(k, *span) for k, span in enumerate(zip(starts, ends, strict=True))]

    def batches(self, shard: Shard) -> list[range]:
        """The batches of a shard, as ranges of samples; only the last may be smaller."""
        starts = range(shard.start, shard.stop, self.batch_size)
        return [range(start, min(start + self.batch_size, shard.stop)) for start in starts]


def part_of(share: str | None) -> tuple[int, int]:
    """Return (i, n) of "i/n": every n-th shard from the i-th; (1, 1) for None.

    Raises:
        DataError: `share` is not i/n with 1 <= i <= n.
    """
    if share is None:
        return 1, 1
    part, _, parts = share.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise DataError(f"shard: expected i/n with 1 <= i <= n, such as 2/4, got {share!r}")
    return int(part), int(parts)
