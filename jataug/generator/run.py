"""One worker's share of a data set, from the first missing shard to the index."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from .destination import FORMAT_VERSION, INDEX, PLAN, finished, records
from .index import write_index
from .job import Job
from .pipeline import attack, crew, in_turn, read_ahead
from .plan import Shard, canonical
from .report import Progress, Report, Skip, Tally
from .session import AttackSession, environment
from .shard import ShardWriter
from .store import Store

__all__ = ["Run"]


class Run:
    """One worker's share of a job; made, it knows which of its shards are there already.

    Args:
        job: the checked request.
        session: runs the attack.
        share: the shards of this worker.
        progress: called after every batch, or None.
    """

    def __init__(
        self,
        job: Job,
        session: AttackSession,
        share: list[Shard],
        progress: Callable[[Progress], object] | None,
    ) -> None:
        self.job, self.session, self.progress = job, session, progress
        self.share = share
        self.total = sum(shard.stop - shard.start for shard in share)
        self.done, self.generated, self.tally = 0, 0, Tally()
        self.skipped: list[Skip] = []
        self.markers: dict[int, dict[str, Any]] = {}
        self.todo = [shard for shard in share if not self._resume(shard)]

    def _resume(self, shard: Shard) -> bool:
        """Count a shard that is there already; whether there was one."""
        marker = finished(self.job.root, shard)
        if marker is None:
            return False
        self.markers[shard.number] = marker
        self.tally += Tally.of(records(self.job.root, shard))
        self.skipped += (Skip(**skip) for skip in marker["skipped"])
        self.done += shard.stop - shard.start
        return True

    def make(self) -> None:
        """Make what is missing, then the index if nothing is missing any more."""
        if self.progress:
            self._tell()
        if not self.todo and (self.job.root / INDEX).exists():
            return
        store = Store(self.job.root)
        try:
            plan = {
                "format_version": FORMAT_VERSION,
                "plan_hash": self.job.plan.hash,
                "plan": self.job.plan.to_dict(),
                "source_path": self.job.source_path,
            }
            store.remove(INDEX)
            store.write(PLAN, f"{canonical(plan)}\n".encode())
            self._attack_all(store)
            complete = write_index(store, self.job, self.markers)
        except BaseException:
            store.close()
            raise
        store.close(everything=complete)

    def _attack_all(self, store: Store) -> None:
        work = [(shard, span) for shard in self.todo for span in self.job.plan.batches(shard)]
        pending: deque[Future[Any]] = deque()
        with crew() as (pool, writer):
            batches = read_ahead(self.job, [span for _, span in work], pool)
            for (shard, span), batch in zip(work, batches, strict=True):
                result = attack(self.job, self.session, batch)
                if span.start == shard.start:
                    shelf = ShardWriter(
                        store, self.job.plan, shard, self.job.name_of, pool, self.job.names
                    )
                in_turn(writer, pending, partial(shelf.add, result))
                if span.stop == shard.stop:
                    in_turn(writer, pending, partial(self._finish, shelf, shard))
                self._count(len(span), result.records, result.skipped)
            while pending:
                pending.popleft().result()

    def _finish(self, shelf: ShardWriter, shard: Shard) -> None:
        self.markers[shard.number] = shelf.finish(environment(self.session))

    def _count(
        self, samples: int, made: list[dict[str, Any]], skipped: list[dict[str, Any]]
    ) -> None:
        self.done += samples
        self.generated += len(made)
        self.tally += Tally.of(made)
        self.skipped += (Skip(**skip) for skip in skipped)
        self._tell()

    def _tell(self) -> None:
        if self.progress:
            tally, skipped = self.tally, len(self.skipped)
            self.progress(
                Progress(
                    self.done, self.total, skipped, tally.clean_correct, tally.adversarial_correct
                )
            )

    def report(self, seconds: float, dry_run: bool) -> Report:
        """Return what was done."""
        return Report(
            destination=self.job.root,
            planned=self.total,
            images=self.tally.images,
            generated=self.generated,
            skipped=tuple(sorted(self.skipped, key=lambda skip: skip.index)),
            failed=self.tally.failed,
            clean_accuracy=self.tally.clean_accuracy,
            adversarial_accuracy=self.tally.adversarial_accuracy,
            seconds=seconds,
            complete=(self.job.root / INDEX).exists(),
            dry_run=dry_run,
        )
