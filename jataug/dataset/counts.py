"""Counts over images: the progress of a run, and the tally of a data set."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

__all__ = ["Progress", "Tally"]


@dataclass(frozen=True)
class Progress:
    """The progress of a run. Counts include samples of an earlier run that is resumed.

    Attributes:
        done: number of finished samples, with skipped ones.
        total: number of samples of the run, or of its part with `shard`.
        skipped: number of samples that could not be used.
        clean_correct: number of images that the model classifies correctly.
        adversarial_correct: number of images that it classifies correctly after the attack.
        waited: seconds in which the attack waited for data, summed over all workers.
        note: one line for the user on another event; usually empty.
    """

    done: int
    total: int
    skipped: int = 0
    clean_correct: int = 0
    adversarial_correct: int = 0
    waited: float = 0.0
    note: str = ""


@dataclass(frozen=True)
class Tally:
    """Counts over records. Tallies can be added."""

    images: int = 0
    failed: int = 0
    clean_correct: int = 0
    adversarial_correct: int = 0

    @classmethod
    def of(cls, records: Iterable[Mapping[str, Any]]) -> Self:
        """Count the records of some images."""
        rows = list(records)
        return cls(
            len(rows),
            sum(row["failed"] for row in rows),
            sum(row["clean_prediction"] == row["label"] for row in rows),
            sum(row["adversarial_prediction"] == row["label"] for row in rows),
        )

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.images + other.images,
            self.failed + other.failed,
            self.clean_correct + other.clean_correct,
            self.adversarial_correct + other.adversarial_correct,
        )

    @property
    def clean_accuracy(self) -> float | None:
        """Fraction of images classified correctly before the attack; None without images."""
        return self.clean_correct / self.images if self.images else None

    @property
    def adversarial_accuracy(self) -> float | None:
        """Fraction of images classified correctly after the attack; None without images."""
        return self.adversarial_correct / self.images if self.images else None
