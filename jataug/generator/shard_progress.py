"""One run's part of a data set: what is there, what is missing, and what was counted."""

from collections.abc import Sequence
from typing import Any

from ..config import AttackConfig
from ..dataset.counts import Progress, Tally
from ..dataset.plan import Shard
from ..dataset.schema import INDEX, finished, records
from ..dataset.verify.budget_checks import level_note
from .dataset_folder import check_destination
from .generate_report import Estimate, Report, Skip
from .request import Job
from .worker import Event

__all__ = ["Share"]

_NAMED = 20
"""How many images that the model could not classify are named."""

_MANY = 10
"""Images; of fewer, a good model may have every one wrong."""


class Share:
    """Every n-th shard of a job, from the i-th; made, it knows which of them are there already.

    Args:
        job: the checked request.
        part: (i, n).

    Attributes:
        shards: of this share.
        missing: those that are not there.
        markers: of those that are, by number.
    """

    def __init__(self, job: Job, part: tuple[int, int]) -> None:
        self.job, self.part = job, part
        self.shards = job.plan.shards[part[0] - 1 :: part[1]]
        self.total = sum(shard.stop - shard.start for shard in self.shards)
        self.done, self.generated, self.tally, self.waited = 0, 0, Tally(), 0.0
        self.skipped: list[Skip] = []
        self.failed: list[str] = []
        self.notes: list[str] = []
        self.markers: dict[int, Any] = {}
        self.missing: list[Shard] = list(self.shards)
        self.look()

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do, not even to write the index."""
        return not self.missing and (self.job.root / INDEX).exists()

    def look(self) -> bool:
        """Look again at what is missing; another run may have made it since. Return whether what is
        there is of this plan: another one that finished nothing gives way.

        Raises:
            DataError: another plan was begun there.
        """
        own = check_destination(self.job.root, self.job.plan, self.job.marks)
        if own:
            self.missing = [shard for shard in self.missing if not self._there(shard)]
        return own

    def _there(self, shard: Shard) -> bool:
        marker = finished(self.job.root, shard)
        if marker is None:
            return False
        try:
            stored = list(records(self.job.root, shard))
            tally, failed = (
                Tally.of(stored),
                [record["key"] for record in stored if record["failed"]],
            )
            skipped = [Skip(**skip) for skip in marker["skipped"]]
        except (KeyError, TypeError):  # it was edited
            return False
        if len(stored) != marker.get("count"):
            return False
        self.markers[shard.number] = marker
        self.tally += tally
        self._name_failed(failed)
        self.skipped += skipped
        self.done += shard.stop - shard.start
        return True

    def take(self, event: Event) -> None:
        """Count what a worker tells."""
        self.done += event.samples
        self.generated += event.tally.images
        self.tally += event.tally
        self.skipped += event.skipped
        self._name_failed(event.failed)
        self.waited += event.waited
        if event.shard is not None:
            self.markers[event.shard] = event.marker
        if event.note:
            self.notes.append(event.note)

    def progress(self, note: str = "") -> Progress:
        """Return how far this share is."""
        return Progress(
            done=self.done,
            total=self.total,
            skipped=len(self.skipped),
            clean_correct=self.tally.clean_correct,
            adversarial_correct=self.tally.adversarial_correct,
            waited=self.waited,
            note=note,
        )

    def _name_failed(self, keys: Sequence[str]) -> None:
        self.failed += keys[: _NAMED - len(self.failed)]

    def report(
        self, seconds: float, *, stopped: bool = False, estimate: Estimate | None = None
    ) -> Report:
        """Return what was done."""
        whole = [shard for shard in self.shards if shard.number in self.markers]
        stopped = stopped and len(whole) < len(self.shards)
        kept = sum(self.markers[shard.number]["count"] for shard in whole)
        return Report(
            destination=self.job.root,
            planned=self.total,
            images=kept if stopped else self.tally.images,
            generated=self.generated,
            skipped=tuple(sorted(self.skipped, key=lambda skip: skip.index)),
            failed=self.tally.failed,
            clean_accuracy=self.tally.clean_accuracy,
            adversarial_accuracy=self.tally.adversarial_accuracy,
            seconds=seconds,
            complete=(self.job.root / INDEX).exists(),
            dry_run=estimate is not None,
            stopped=stopped,
            waited=self.waited,
            notes=tuple(self.notes),
            estimate=estimate,
            failed_keys=tuple(self.failed),
            warnings=self._warnings(),
        )

    def _warnings(self) -> tuple[str, ...]:
        plan = self.job.plan
        note = level_note(AttackConfig.from_dict(plan.attack), float_saved=plan.save_float)
        notes = (*self.job.warnings, note) if note else self.job.warnings
        accuracy, chance = self.tally.clean_accuracy, 1 / plan.classes
        if accuracy is None or accuracy > chance or self.tally.images < _MANY:
            return notes
        return (
            *notes,
            f"clean accuracy {accuracy:.1%} is no better than chance ({chance:.1%}): check the "
            "--mean, --std, --scale and --channels that the attack was exported with, and the "
            "order of the classes (--classes)",
        )
