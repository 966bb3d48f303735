"""Who makes shards: one session for each artifact, one source, and what it tells about its work."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Self

from ..atomic import Store
from ..dataset.counts import Tally
from ..dataset.plan import Shard
from .generate_report import Skip
from .open_session import AttackSession, Opening, environment, opened
from .pipeline import Loaded, attack, crew, draw, drawn_ahead, in_turn, read_ahead
from .request import Job
from .shard import Finished, ShardWriter

__all__ = ["Event", "Lane", "Worker"]


@dataclass(frozen=True)
class Event:
    """What a worker tells: a batch that was attacked, a shard that is whole, or a remark.

    Attributes:
        lane: the number of the artifact.
        samples: of the batch, skipped ones included.
        tally: of its images.
        skipped: of its samples.
        failed: keys of its images that the model could not classify.
        waited: seconds that the attack had nothing to do before and after the batch.
        shard: the number of a shard that is whole.
        marker: what its marker says.
        note: a remark for the user, in one line.
    """

    lane: int
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
class Lane:
    """The data set of one artifact; all lanes of a run read the same samples.

    Attributes:
        job: the checked request.
        opening: opens a session; None where one is given.
        scratch: the name of the run's folder of unfinished files.
        missing: numbers of the shards to make.
    """

    job: Job
    opening: Opening | None
    scratch: str
    missing: frozenset[int]


class Worker:
    """Makes shards of all lanes; enter it to open what it needs.

    Args:
        lanes: what to make; geometry and image shape are the same in all of them.
        name: tells this worker from the others of the run.
        sessions: open ones to use, a lane each; by default every lane's opening is used.
    """

    def __init__(
        self, lanes: Sequence[Lane], name: str, sessions: Sequence[AttackSession] | None = None
    ) -> None:
        self._lanes, self._name, self._given = lanes, name, sessions
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._stores = []
            for lane in self._lanes:
                store = Store(lane.job.root, f"{lane.scratch}.{self._name}")
                stack.callback(store.close)
                self._stores.append(store)
            given: Sequence[AttackSession | None] = self._given or [None] * len(self._lanes)
            self._sessions = [
                stack.enter_context(
                    opened(lane.opening, session, batch_size=lane.job.plan.batch_size)
                )
                for lane, session in zip(self._lanes, given, strict=True)
            ]
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
        """Make shards, each batch decoded once for all lanes.

        Args:
            shards: which; asked for one by one.
            tell: hears every event, those of whole shards from another thread.
            stop: asked after every batch; a shard that is not whole by then is begun again by the
                next run.

        Raises:
            DataError: a sample cannot be used, or a file cannot be written.
        """
        for number, session in enumerate(self._sessions):
            if hasattr(session, "note"):
                session.note = partial(_remark, tell, number)
        pending: deque[Future[Any]] = deque()
        with crew() as (pool, writer):
            read = read_ahead(self._lanes[0].job, self._work(shards), pool)
            batches = drawn_ahead(read, self._starts, pool)
            shelves: dict[int, ShardWriter] = {}
            while True:
                began = time.perf_counter()
                following = next(batches, None)
                if following is None:
                    break
                shard, batch, starts = following[0], following[1], following[2].result()
                waited = time.perf_counter() - began
                for number, lane in enumerate(self._lanes):
                    if shard.number not in lane.missing:
                        continue
                    result = attack(lane.job, self._sessions[number], batch, starts[number])
                    if batch.span.start == shard.start:
                        shelves[number] = self._shelf(number, shard, pool)
                    began = time.perf_counter()
                    in_turn(writer, pending, partial(shelves[number].add, result))
                    if batch.span.stop == shard.stop:
                        finish = partial(self._finish, number, shard, shelves.pop(number), tell)
                        in_turn(writer, pending, finish)
                    waited += time.perf_counter() - began
                    tell(_told(number, len(batch.span), result, waited))
                    waited = 0.0
                if stop():
                    break
            while pending:
                pending.popleft().result()

    def shard(self, number: int) -> Shard:
        """Return the shard of a number."""
        return self._lanes[0].job.plan.shards[number]

    def _work(self, shards: Iterable[Shard]) -> Iterator[tuple[Shard, range]]:
        for shard in shards:
            for span in self._lanes[0].job.plan.batches(shard):
                yield shard, span

    def _starts(self, shard: Shard, batch: Loaded) -> list[Any]:
        """Return where the attack on a batch begins in each lane; None where it is not made."""
        pairs = zip(self._lanes, self._sessions, strict=True)
        return [
            draw(lane.job, session, batch) if shard.number in lane.missing else None
            for lane, session in pairs
        ]

    def _shelf(self, number: int, shard: Shard, pool: Any) -> ShardWriter:
        job = self._lanes[number].job
        return ShardWriter(self._stores[number], job.plan, shard, job.name_of, pool, job.names)

    def _finish(
        self, number: int, shard: Shard, shelf: ShardWriter, tell: Callable[[Event], object]
    ) -> None:
        threads = self._lanes[number].job.plan.threads
        marker = shelf.finish(environment(self._sessions[number], threads))
        tell(Event(number, shard=shard.number, marker=marker))


def _told(lane: int, samples: int, made: Finished, waited: float) -> Event:
    skipped = tuple(Skip(**skip) for skip in made.skipped)
    failed = tuple(record["key"] for record in made.records if record["failed"])
    return Event(lane, samples, Tally.of(made.records), skipped, failed, waited)


def _remark(tell: Callable[[Event], object], lane: int, text: str) -> None:
    tell(Event(lane, note=text))
