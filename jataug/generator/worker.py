"""A worker: it makes shards with one session, and reports what it does as events."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Self

from ..atomic import Store
from ..dataset.counts import Tally
from ..dataset.plan import Shard
from ..dataset.shard_writer import Finished, ShardWriter
from .generate_report import Skip
from .open_session import AttackSession, Opening, environment, opened
from .pipeline import attack, crew, draw, drawn_ahead, in_turn, read_ahead
from .request import Job

__all__ = ["Assignment", "Event", "Worker"]


@dataclass(frozen=True)
class Event:
    """What a worker tells: a batch that was attacked, a shard that is whole, or a remark.

    Attributes:
        samples: of the batch, skipped ones included.
        tally: of its images.
        skipped: of its samples.
        failed: keys of its images that the model could not classify.
        waited: seconds that the attack had nothing to do before and after the batch.
        shard: the number of a shard that is whole.
        marker: what its marker says.
        note: a remark for the user, in one line.
    """

    samples: int = 0
    tally: Tally = field(default_factory=Tally)
    skipped: tuple[Skip, ...] = ()
    failed: tuple[str, ...] = ()
    waited: float = 0.0
    shard: int | None = None
    marker: Mapping[str, Any] | None = None
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        skipped = tuple(Skip(**skip) for skip in data["skipped"])
        typed = {"tally": Tally(**data["tally"]), "skipped": skipped}
        return cls(**{**data, **typed, "failed": tuple(data["failed"])})


@dataclass(frozen=True, eq=False)
class Assignment:
    """What a worker needs to make shards.

    Attributes:
        job: the checked request.
        opening: opens a session; None where one is given.
        scratch: the name of the run's folder of temporary files.
    """

    job: Job
    opening: Opening | None
    scratch: str


class Worker:
    """Makes shards with one session; entering it opens the session.

    Args:
        assignment: the request, and how to open a session.
        name: tells this worker from the others of the run.
        session: an open one to use; by default the assignment's opening is used.
    """

    def __init__(
        self, assignment: Assignment, name: str, session: AttackSession | None = None
    ) -> None:
        self._job, self._assignment = assignment.job, assignment
        self._name, self._given = name, session
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            scratch = f"{self._assignment.scratch}.{self._name}"
            self._store = Store(self._job.root, scratch)
            stack.callback(self._store.close)
            size = self._job.plan.batch_size
            self._session = stack.enter_context(
                opened(self._assignment.opening, self._given, batch_size=size)
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def make(
        self,
        shards: Iterable[Shard],
        tell: Callable[[Event], object],
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Make shards.

        Args:
            shards: which; asked for one by one.
            tell: hears every event, those of complete shards from another thread.
            stop: asked after every batch; the next run begins an incomplete shard again.

        Raises:
            DataError: a sample cannot be used, or a file cannot be written.
        """
        job, session = self._job, self._session
        if hasattr(session, "note"):
            session.note = lambda text: tell(Event(note=text))
        pending: deque[Future[Any]] = deque()
        with crew() as (pool, writer):
            read = read_ahead(job, self._work(shards), pool)
            batches = drawn_ahead(read, lambda batch: draw(job, session, batch), pool)
            while True:
                began = time.perf_counter()
                following = next(batches, None)
                if following is None:
                    break
                shard, batch, start = following[0], following[1], following[2].result()
                waited = time.perf_counter() - began
                result = attack(job, session, batch, start)
                if batch.span.start == shard.start:
                    shelf = ShardWriter(self._store, job.plan, shard, job.name_of, pool, job.names)
                began = time.perf_counter()
                in_turn(writer, pending, partial(shelf.add, result))
                if batch.span.stop == shard.stop:
                    in_turn(writer, pending, partial(self._finish, shard, shelf, tell))
                waited += time.perf_counter() - began
                tell(_describe(len(batch.span), result, waited))
                if stop():
                    break
            while pending:
                pending.popleft().result()

    def shard(self, number: int) -> Shard:
        """Return the shard of a number."""
        return self._job.plan.shards[number]

    def _work(self, shards: Iterable[Shard]) -> Iterator[tuple[Shard, range]]:
        for shard in shards:
            for span in self._job.plan.batches(shard):
                yield shard, span

    def _finish(self, shard: Shard, shelf: ShardWriter, tell: Callable[[Event], object]) -> None:
        marker = shelf.finish(environment(self._session, self._job.plan.threads))
        tell(Event(shard=shard.number, marker=marker))


def _describe(samples: int, made: Finished, waited: float) -> Event:
    skipped = tuple(Skip(**skip) for skip in made.skipped)
    failed = tuple(record["key"] for record in made.records if record["failed"])
    return Event(samples, Tally.of(made.records), skipped, failed, waited)
