"""What generate says while it runs and when it is done."""

from dataclasses import dataclass
from pathlib import Path

from ..data import Skip

__all__ = ["Estimate", "Report", "Skip"]


@dataclass(frozen=True)
class Estimate:
    """What a run will take, from its plan and one batch that was really made.

    Attributes:
        plan_hash: of the plan.
        seed: of its random starts and targets.
        epoch: likewise.
        shards: of the run, or of this worker's share.
        missing_shards: those of them that are not there yet.
        missing: samples in them.
        bytes: that they will take on the disk, about.
        free: bytes that are free there.
        batch_size: of the batch.
        attack_seconds: that it took to attack.
        encode_seconds: that it took to encode, which runs beside the next attack.
    """

    plan_hash: str
    seed: int
    epoch: int
    shards: int
    missing_shards: int
    missing: int
    bytes: int
    free: int
    batch_size: int
    attack_seconds: float
    encode_seconds: float

    @property
    def seconds(self) -> float:
        """That one worker will take, about."""
        longer = max(self.attack_seconds, self.encode_seconds)
        return -(-self.missing // self.batch_size) * longer


@dataclass(frozen=True)
class Report:
    """What a call of generate did.

    Attributes:
        destination: where the data set is.
        planned: samples of the run, or of this worker's share.
        images: images of that share that are stored.
        generated: images that this call made; the others were there.
        skipped: samples that could not be used.
        failed: images kept clean because the model's logits were not finite.
        clean_accuracy: over the images of the share; None without images.
        adversarial_accuracy: likewise, after the attack.
        seconds: that this call took.
        complete: whether the data set is whole, and index.json written.
        dry_run: whether nothing was done but to check and to estimate.
        stopped: whether it was asked to stop before it was done.
        waited: seconds that the attack had nothing to do, of all workers together.
        notes: what else happened, a line each.
        estimate: what a dry run found; None otherwise.
        failed_keys: the keys of the first images that failed.
        warnings: what a user must know of the result, a line each.
    """

    destination: Path
    planned: int
    images: int
    generated: int
    skipped: tuple[Skip, ...]
    failed: int
    clean_accuracy: float | None
    adversarial_accuracy: float | None
    seconds: float
    complete: bool
    dry_run: bool = False
    stopped: bool = False
    waited: float = 0.0
    notes: tuple[str, ...] = ()
    estimate: Estimate | None = None
    failed_keys: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def images_per_second(self) -> float:
        """Images made by this call per second."""
        return self.generated / self.seconds if self.seconds > 0 else 0.0

    @property
    def message(self) -> str:
        """What happened, in one line."""
        if self.dry_run:
            there = f", {self.images} are there" if self.images else ""
            return (
                f"{self.destination}: {self.planned} images would be made{there}; nothing written"
            )
        if self.stopped:
            return (
                f"{self.destination}: stopped, {self.images} of {self.planned} images are there; "
                "the same command goes on from here"
            )
        if not self.generated:
            return f"{self.destination}: nothing to do, {self.images} images are there already"
        state = "complete" if self.complete else "other shards are still missing, no index.json yet"
        return f"{self.destination}: {self.generated} images made, {self.images} in all; {state}"
