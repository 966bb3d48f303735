"""One run: the lock, the plan on the disk, the engine, the index."""

from collections.abc import Callable
from contextlib import ExitStack, suppress

from ..atomic import SCRATCH, Store
from ..checks import canonical
from ..dataset.counts import Progress
from ..dataset.schema import FORMAT_VERSION, INDEX, PLAN, SOURCE
from ..errors import DataError
from .dataset_folder import clear
from .engines import Workforce, run_engine
from .lock import Lock
from .open_session import AttackSession, Opening
from .shard_progress import Share
from .worker import Assignment, Event
from .write_index import write_index

__all__ = ["make_data_set"]


def make_data_set(
    share: Share,
    opening: Opening | None,
    session: AttackSession,
    workforce: Workforce,
    progress: Callable[[Progress], object] | None,
    stop: Callable[[], bool],
) -> None:
    """Make the missing shards of a share; write the index if no shard is missing any more.

    Args:
        share: the shards of this run.
        opening: how a worker opens its session; None where only `session` is used.
        session: an open session of this process.
        workforce: the engine and its workers.
        progress: called after every batch, or None.
        stop: asked after every batch; true ends the run.

    Raises:
        DataError: another run works there, a sample cannot be used, or a file cannot be written.
    """
    tell = progress or (lambda _: None)
    tell(share.progress())
    if share.idle:
        _clean_up(share)
        return
    job = share.job
    with ExitStack() as stack:
        lock = stack.enter_context(_lock(share))

        def take(event: Event) -> None:
            share.take(event)
            # Complete shards are reported from another thread, and count nothing.
            if event.shard is None:
                tell(share.progress(event.note))
                lock.check()

        for note in lock.notes:
            take(Event(note=note))
        if not share.look():
            clear(job.root, lock.began)
        store = Store(job.root, f"{lock.name}.run")
        stack.callback(store.close)
        _write_plan(store, share)
        if share.missing:
            assignment = Assignment(job, opening, lock.name)
            run_engine(workforce, assignment, session, share.missing, take, stop)
        write_index(store, job, share.markers)


def _lock(share: Share) -> Lock:
    job = share.job
    return Lock(job.root, job.plan.hash, share.part, len(job.plan.shards))


def _write_plan(store: Store, share: Share) -> None:
    """Write plan.json and the snapshot of the source; an index of an earlier run goes."""
    job = share.job
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


def _clean_up(share: Share) -> None:
    """Remove the temporary files of a run that was killed after it had completed the data set."""
    root = share.job.root
    if not any((root / name).exists() for name in (SCRATCH, SOURCE)):
        return
    # An error means that another run is at work, or that the disk is read-only. The data set is
    # complete all the same.
    with suppress(DataError), _lock(share) as lock:
        if share.idle:  # still: another run may have begun to write the index anew
            store = Store(root, f"{lock.name}.run")
            store.remove(SOURCE)
            store.close()
