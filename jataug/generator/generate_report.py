"""The report that generate returns, and the estimate of a dry run."""

from dataclasses import dataclass
from pathlib import Path

from ..data import Skip

__all__ = ["Estimate", "Report", "Skip"]


@dataclass(frozen=True)
class Estimate:
    """The time and space that a run will take, estimated from its plan and one batch.

    Attributes:
        plan_hash: hash of the plan.
        seed: seed of the random starts and targets.
        epoch: epoch of the random starts and targets.
        shards: number of shards of the run, or of its part with `shard`.
        missing_shards: number of those shards that do not exist yet.
        missing: number of samples in the missing shards.
        bytes: approximate size of the missing shards on disk.
        free: free bytes on that disk.
        batch_size: images in the measured batch.
        attack_seconds: time of the attack on the batch.
        encode_seconds: time to encode the batch, which happens during the next attack.
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
        """Approximate time in seconds that one worker will take."""
        longer = max(self.attack_seconds, self.encode_seconds)
        return -(-self.missing // self.batch_size) * longer


@dataclass(frozen=True)
class Report:
    """The result of a call of generate.

    Attributes:
        destination: folder of the data set.
        planned: number of samples of the run, or of its part with `shard`.
        images: number of those images that are stored.
        generated: number of images that this call made; the others existed before.
        skipped: samples that could not be used.
        failed: number of images kept clean because the model's logits were not finite.
        clean_accuracy: accuracy on the clean images; None without images.
        adversarial_accuracy: accuracy on the adversarial images; None without images.
        seconds: duration of the call.
        complete: whether every shard of the data set exists and index.json is written.
        dry_run: whether the call only checked and estimated.
        stopped: whether the call was stopped before it was done.
        waited: seconds in which the attack waited for data, summed over all workers.
        notes: messages on other events, one line each.
        estimate: the estimate of a dry run; None otherwise.
        failed_keys: keys of the first failed images.
        warnings: warnings on the result, one line each.
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
        """The result in one line."""
        if self.dry_run:
            there = f", {self.images} are there" if self.images else ""
            return (
                f"{self.destination}: {self.planned} images would be made{there}; nothing written"
            )
        if self.stopped:
            return (
                f"{self.destination}: stopped, {self.images} of {self.planned} images are there; "
                "run the same command again to resume"
            )
        if not self.generated:
            return f"{self.destination}: nothing to do, {self.images} images are there already"
        state = "complete" if self.complete else "other shards are still missing, no index.json yet"
        return f"{self.destination}: {self.generated} images made, {self.images} in all; {state}"
