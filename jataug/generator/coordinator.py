"""A run: the locks, the plans on the disk, the engine, the indexes. All of its artifacts share what
is decoded.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress

from ..atomic import SCRATCH, Store
from ..checks import canonical
from ..dataset.counts import Progress
from ..dataset.schema import FORMAT_VERSION, INDEX, PLAN, SOURCE
from ..errors import DataError
from .dataset_folder import clear
from .engines import Crew
from .engines import run as run_engine
from .lock import Lock
from .open_session import AttackSession, Opening
from .shard_progress import Share
from .worker import Event, Lane
from .write_index import write_index

__all__ = ["Run"]


class Run:
    """Shares of data sets that are made together.

    Args:
        shares: one an artifact; geometry and image shape are the same in all of them.
        openings: how a worker opens each one's session; None where only the given one is used.
        sessions: of this process, one an artifact.
        crew: who works.
        progress: called after every batch, or None.
        stop: asked after every batch; true ends the run.
    """

    def __init__(
        self,
        shares: Sequence[Share],
        openings: Sequence[Opening | None],
        sessions: Sequence[AttackSession],
        crew: Crew,
        progress: Callable[[Progress], object] | None,
        stop: Callable[[], bool],
    ) -> None:
        self._all, self._crew, self._progress, self._stop = shares, crew, progress, stop
        busy = [number for number, share in enumerate(shares) if not share.idle]
        self._shares = [shares[number] for number in busy]
        self._openings = [openings[number] for number in busy]
        self._sessions = [sessions[number] for number in busy]
        self._locks: list[Lock] = []

    def make(self) -> None:
        """Make what is missing, then the index of each data set that misses nothing any more.

        Raises:
            DataError: another run works there, a sample cannot be used, or a file cannot be
                written.
        """
        self._tell()
        for share in self._all:
            if share.idle:
                _sweep(share)
        if not self._shares:
            return
        with ExitStack() as stack:
            stores = [self._begin(share, stack) for share in self._shares]
            lanes = [
                Lane(share.job, opening, lock.name, frozenset(s.number for s in share.missing))
                for share, opening, lock in zip(
                    self._shares, self._openings, self._locks, strict=True
                )
            ]
            numbers = frozenset().union(*(lane.missing for lane in lanes))
            shards = [shard for shard in self._shares[0].shards if shard.number in numbers]
            if shards:
                run_engine(self._crew, lanes, self._sessions, shards, self._take, self._stop)
            for share, store in zip(self._shares, stores, strict=True):
                write_index(store, share.job, share.markers)

    def _begin(self, share: Share, stack: ExitStack) -> Store:
        """Lock a destination, look again at what is missing, and write what will be made."""
        job = share.job
        lock = stack.enter_context(Lock(job.root, job.plan.hash, share.part, len(job.plan.shards)))
        self._locks.append(lock)
        for note in lock.notes:
            self._take(Event(self._shares.index(share), note=note))
        if not share.look():
            clear(job.root, lock.began)
        store = Store(job.root, f"{lock.name}.run")
        stack.callback(store.close)
        plan = {
            "format_version": FORMAT_VERSION,
            "plan_hash": job.plan.hash,
            "plan": job.plan.to_dict(),
            "source_path": job.source_path,
        }
        store.remove(INDEX)
        store.write(PLAN, f"{canonical(plan)}\n".encode())
        if job.marks is not None:
            draft = store.temporary()
            job.marks.save(draft)
            store.publish(draft, SOURCE)
        return store

    def _take(self, event: Event) -> None:
        self._shares[event.lane].take(event)
        # Whole shards are told from another thread, which counts nothing.
        if event.shard is None:
            self._tell(event.note)
            for lock in self._locks:
                lock.check()

    def _tell(self, note: str = "") -> None:
        if self._progress is None:
            return
        shares = self._all
        self._progress(
            Progress(
                done=sum(share.done for share in shares),
                total=sum(share.total for share in shares),
                skipped=sum(len(share.skipped) for share in shares),
                clean_correct=sum(share.tally.clean_correct for share in shares),
                adversarial_correct=sum(share.tally.adversarial_correct for share in shares),
                waited=sum(share.waited for share in shares),
                note=note,
            )
        )


def _sweep(share: Share) -> None:
    """Remove what a run has left that was killed once the data set was whole."""
    job = share.job
    if not any((job.root / name).exists() for name in (SCRATCH, SOURCE)):
        return
    with (
        # Another run is at work, or the disk is read-only: the data set is whole all the same.
        suppress(DataError),
        Lock(job.root, job.plan.hash, share.part, len(job.plan.shards)) as lock,
    ):
        if share.idle:  # still: another run may have begun to make its index anew
            store = Store(job.root, f"{lock.name}.run")
            store.remove(SOURCE)
            store.close()
