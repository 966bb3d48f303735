"""Where shards are made: in this process, in others on this machine, or on Ray; the bytes are the
same. Every engine has one function, `run`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ...checks import check_integer
from ...dataset.plan import Shard
from ...errors import DataError
from ..open_session import AttackSession
from ..worker import Assignment, Event

__all__ = ["ENGINES", "Workforce", "run_engine"]

ENGINES = ("local", "ray")

_MOST = 1024
"""GPUs a worker: more is a mistake."""


@dataclass(frozen=True)
class Workforce:
    """The engine and its workers.

    Attributes:
        engine: "local" or "ray".
        workers: how many, each with its own session.
        gpus_per_worker: for Ray, which places the workers: 0.5 puts two on a GPU. None: one where
            the device is CUDA, else none.
    """

    engine: str = "local"
    workers: int = 1
    gpus_per_worker: float | None = None

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise DataError(f"engine: expected one of {', '.join(ENGINES)}, got {self.engine!r}")
        check_integer("workers", self.workers, 1)
        gpus = self.gpus_per_worker
        if gpus is None:
            return
        if self.engine != "ray":
            raise DataError(
                "gpus_per_worker: expected --engine ray, which places workers on GPUs, got local; "
                "use --device cuda:<i> and --shard"
            )
        if not (0 <= gpus <= 1 or (1 < gpus < _MOST and gpus == int(gpus))):
            raise DataError(
                f"gpus_per_worker: expected a part of 1 or a whole number >= 0, got {gpus!r}"
            )


def run_engine(
    workforce: Workforce,
    assignment: Assignment,
    session: AttackSession,
    shards: Iterable[Shard],
    tell: Callable[[Event], object],
    stop: Callable[[], bool],
) -> None:
    """Make shards.

    Args:
        workforce: the engine and its workers.
        assignment: the request, and how to open a session.
        session: an open one of this process; other processes open their own.
        shards: which.
        tell: hears what is done, as it is done.
        stop: asked again and again; true ends the run after the batches that are being attacked.
    """
    if workforce.engine == "ray":
        from .ray import run as run_on_ray

        run_on_ray(
            assignment, list(shards), workforce.workers, workforce.gpus_per_worker, tell, stop
        )
    else:
        from .local import run as run_here

        run_here(assignment, session, list(shards), workforce.workers, tell, stop)
