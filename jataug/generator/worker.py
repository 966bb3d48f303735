"""A worker, which makes shards with one session and reports its progress as events."""

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
from .open_session import AttackSession, Opening, environment, open_session
from .pipeline import attack, draw, drawn_ahead, in_turn, read_ahead, thread_pools
from .request import Request

__all__ = ["Assignment", "Event", "Worker"]


@dataclass(frozen=True)
class Event:
    """A message of a worker: an attacked batch, a complete shard, or a note.

    Attributes:
        samples: number of samples of the batch, with skipped ones.
        tally: counts of its images.
        skipped: its skipped samples.
        failed: keys of its images whose logits were not finite.
        waited: seconds in which the attack waited for data before and after the batch.
        shard: number of a complete shard, or None.
        marker: content of the shard's marker, or None.
        note: one line for the user, or "".
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
    """The input of a worker.

    Attributes:
        request: the checked request.
        opening: how to open a session; None if an open one is given.
        scratch: name of the run's folder of temporary files.
    """

    request: Request
    opening: Opening | None
    scratch: str


class Worker:
    """Makes shards with one session. As a context manager it opens and closes the session.

    Args:
        assignment: the request, and how to open a session.
        name: name of this worker, unique in the run.
        session: an open session to use. By default `assignment.opening` opens one.
    """

    def __init__(
        self, assignment: Assignment, name: str, session: AttackSession | None = None
    ) -> None:
        self._request, self._assignment = assignment.request, assignment
        self._name, self._given = name, session
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            scratch = f"{self._assignment.scratch}.{self._name}"
            self._store = Store(self._request.root, scratch)
            stack.callback(self._store.close)
            size = self._request.plan.batch_size
            self._session = stack.enter_context(
                open_session(self._assignment.opening, self._given, batch_size=size)
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
            shards: the shards to make, taken one by one.
            tell: called with every event; for complete shards from another thread.
            stop: called after every batch; a true result stops. The next run then makes an
                incomplete shard again.

        Raises:
            DataError: a sample cannot be used, or a file cannot be written.
        """
        request, session = self._request, self._session
        if hasattr(session, "note"):
            session.note = lambda text: tell(Event(note=text))
        pending: deque[Future[Any]] = deque()
        with thread_pools() as (pool, writer):
            read = read_ahead(request, self._work(shards), pool)
            batches = drawn_ahead(read, lambda batch: draw(request, session, batch), pool)
            while True:
                began = time.perf_counter()
                following = next(batches, None)
                if following is None:
                    break
                shard, batch, start = following[0], following[1], following[2].result()
                waited = time.perf_counter() - began
                result = attack(request, session, batch, start)
                if batch.span.start == shard.start:
                    shelf = ShardWriter(
                        self._store, request.plan, shard, request.name_of, pool, request.names
                    )
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
        """Return the shard with this number."""
        return self._request.plan.shards[number]

    def _work(self, shards: Iterable[Shard]) -> Iterator[tuple[Shard, range]]:
        for shard in shards:
            for span in self._request.plan.batches(shard):
                yield shard, span

    def _finish(self, shard: Shard, shelf: ShardWriter, tell: Callable[[Event], object]) -> None:
        marker = shelf.finish(environment(self._session, self._request.plan.threads))
        tell(Event(shard=shard.number, marker=marker))


def _describe(samples: int, made: Finished, waited: float) -> Event:
    skipped = tuple(Skip(**skip) for skip in made.skipped)
    failed = tuple(record["key"] for record in made.records if record["failed"])
    return Event(samples, Tally.of(made.records), skipped, failed, waited)
