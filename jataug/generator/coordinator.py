"""One run from start to end: takes the lock, writes the plan, runs the engine, writes the index."""

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
from .shard_progress import ShardProgress
from .worker import Assignment, Event
from .write_index import write_index

__all__ = ["make_data_set"]


def make_data_set(
    shard_progress: ShardProgress,
    opening: Opening | None,
    session: AttackSession,
    workforce: Workforce,
    progress: Callable[[Progress], object] | None,
    stop: Callable[[], bool],
) -> None:
    """Make the missing shards of this run. Write the index once every shard of the plan is there.

    Args:
        shard_progress: the shards of this run.
        opening: how a worker opens its session; None if only `session` is used.
        session: an open session of this process.
        workforce: the engine and its workers.
        progress: called with a Progress after every batch, or None.
        stop: called after every batch; a true result ends the run.

    Raises:
        DataError: another run uses the destination, a sample cannot be used, or a file cannot be
            written.
    """
    tell = progress or (lambda _: None)
    tell(shard_progress.progress())
    if shard_progress.idle:
        _clean_up(shard_progress)
        return
    request = shard_progress.request
    with ExitStack() as stack:
        lock = stack.enter_context(_lock(shard_progress))

        def take(event: Event) -> None:
            shard_progress.take(event)
            # Complete shards are reported from another thread and change no count.
            if event.shard is None:
                tell(shard_progress.progress(event.note))
                lock.check()

        for note in lock.notes:
            take(Event(note=note))
        if not shard_progress.look():
            clear(request.root, lock.began)
        store = Store(request.root, f"{lock.name}.run")
        stack.callback(store.close)
        _write_plan(store, shard_progress)
        if shard_progress.missing:
            assignment = Assignment(request, opening, lock.name)
            run_engine(workforce, assignment, session, shard_progress.missing, take, stop)
        write_index(store, request, shard_progress.markers)


def _lock(shard_progress: ShardProgress) -> Lock:
    request = shard_progress.request
    return Lock(request.root, request.plan.hash, shard_progress.part, len(request.plan.shards))


def _write_plan(store: Store, shard_progress: ShardProgress) -> None:
    """Write plan.json and the snapshot of the source, and remove the index of an earlier run."""
    request = shard_progress.request
    plan = {
        "format_version": FORMAT_VERSION,
        "plan_hash": request.plan.hash,
        "plan": request.plan.to_dict(),
        "source_path": request.source_path,
    }
    store.remove(INDEX)
    store.write(PLAN, f"{canonical(plan)}\n".encode())
    if request.snapshot is not None:
        draft = store.temporary()
        request.snapshot.save(draft)
        store.publish(draft, SOURCE)


def _clean_up(shard_progress: ShardProgress) -> None:
    """Remove the temporary files of a run that was killed after it completed the data set."""
    root = shard_progress.request.root
    if not any((root / name).exists() for name in (SCRATCH, SOURCE)):
        return
    # An error means that another run is at work, or that the disk is read-only. The data set is
    # complete all the same.
    with suppress(DataError), _lock(shard_progress) as lock:
        if shard_progress.idle:  # still: another run may have begun to write the index anew
            store = Store(root, f"{lock.name}.run")
            store.remove(SOURCE)
            store.close()
