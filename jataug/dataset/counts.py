"""Counts over images: the progress of a run, and the tally of a data set."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

__all__ = ["Progress", "Tally"]


@dataclass(frozen=True)
class Progress:
    """How far a run is; counts are of samples, those of an earlier run that is resumed included.

    Attributes:
        done: samples that are finished, skipped ones included.
        total: samples of the run, or of this worker's share.
        skipped: samples that could not be used.
        clean_correct: images that the model classifies as their label.
        adversarial_correct: images that it still classifies so after the attack.
        waited: seconds that the attack had nothing to do, of all workers together.
        note: what else happened since the last call, in one line; mostly empty.
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
    """Counts over records; tallies add up."""

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
        """Part of the images that are classified as their label before the attack."""
        return self.clean_correct / self.images if self.images else None

    @property
    def adversarial_accuracy(self) -> float | None:
        """Part of the images that are classified as their label after the attack."""
        return self.adversarial_correct / self.images if self.images else None
