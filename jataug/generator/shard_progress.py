"""The progress of one run: which shards exist, which are missing, and the counts so far."""

from collections.abc import Sequence
from typing import Any

from ..config import AttackConfig
from ..dataset.counts import Progress, Tally
from ..dataset.plan import Shard
from ..dataset.schema import INDEX, finished, records
from ..dataset.verification.budget_checks import level_note
from .dataset_folder import check_destination
from .generate_report import Estimate, Report, Skip
from .request import Request
from .worker import Event

__all__ = ["ShardProgress"]

_NAMED = 20
"""Largest number of failed images that the report names."""

_MANY = 10
"""Images from which on a low accuracy is reported: a good model can fail on a few by chance."""


class ShardProgress:
    """The shards of one run, every n-th from the i-th, and which of them exist.

    Args:
        request: the checked request.
        part: (i, n).

    Attributes:
        shards: the shards of this run.
        missing: those that do not exist yet.
        markers: the markers of those that exist, by shard number.
    """

    def __init__(self, request: Request, part: tuple[int, int]) -> None:
        self.request, self.part = request, part
        self.shards = request.plan.shards[part[0] - 1 :: part[1]]
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
        """Whether there is nothing to do, because all shards and the index exist."""
        return not self.missing and (self.request.root / INDEX).exists()

    def look(self) -> bool:
        """Update the missing shards, because another run may have made some, and return whether
        the destination belongs to this plan. False means another plan that finished nothing.

        Raises:
            DataError: the destination holds shards of another plan.
        """
        own = check_destination(self.request.root, self.request.plan, self.request.snapshot)
        if own:
            self.missing = [shard for shard in self.missing if not self._there(shard)]
        return own

    def _there(self, shard: Shard) -> bool:
        marker = finished(self.request.root, shard)
        if marker is None:
            return False
        try:
            stored = list(records(self.request.root, shard))
            tally, failed = (
                Tally.of(stored),
                [record["key"] for record in stored if record["failed"]],
            )
            skipped = [Skip(**skip) for skip in marker["skipped"]]
        except (KeyError, TypeError):  # the marker or a record was edited
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
        """Add an event of a worker to the counts."""
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
        """Return the counts so far, with a note for the user."""
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
        """Return the report of the run."""
        whole = [shard for shard in self.shards if shard.number in self.markers]
        stopped = stopped and len(whole) < len(self.shards)
        kept = sum(self.markers[shard.number]["count"] for shard in whole)
        return Report(
            destination=self.request.root,
            planned=self.total,
            images=kept if stopped else self.tally.images,
            generated=self.generated,
            skipped=tuple(sorted(self.skipped, key=lambda skip: skip.index)),
            failed=self.tally.failed,
            clean_accuracy=self.tally.clean_accuracy,
            adversarial_accuracy=self.tally.adversarial_accuracy,
            seconds=seconds,
            complete=(self.request.root / INDEX).exists(),
            dry_run=estimate is not None,
            stopped=stopped,
            waited=self.waited,
            notes=tuple(self.notes),
            estimate=estimate,
            failed_keys=tuple(self.failed),
            warnings=self._warnings(),
        )

    def _warnings(self) -> tuple[str, ...]:
        plan = self.request.plan
        note = level_note(AttackConfig.from_dict(plan.attack), float_saved=plan.save_float)
        notes = (*self.request.warnings, note) if note else self.request.warnings
        accuracy, chance = self.tally.clean_accuracy, 1 / plan.classes
        if accuracy is None or accuracy > chance or self.tally.images < _MANY:
            return notes
        return (
            *notes,
            f"clean accuracy {accuracy:.1%} is no better than chance ({chance:.1%}). Check --mean, "
            "--std, --scale and --channels of the export, and the order of the classes (--classes)",
        )
