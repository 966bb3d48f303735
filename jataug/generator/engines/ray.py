"""Workers on Ray: Ray Data hands shards to actors, and hands them out again where one is lost."""

import json
import logging
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from ...atomic import SCRATCH, name_write_errors
from ...dataset.plan import Shard
from ...errors import JataugError, MissingExtra, RuntimeUnavailable
from ..worker import Assignment, Event, Worker

__all__ = ["run"]

_RETRIES = 3
"""How often a shard is tried again after its worker died; Ray itself would never give up."""

_PATIENCE = 0.1
"""Seconds between two looks at whether to stop."""


class _Actor:
    """One worker, in a process that Ray places; its sessions stay open from shard to shard."""

    def __init__(self, assignment: Assignment, name: str | None = None) -> None:
        self._tries = assignment.request.root / SCRATCH / f"{assignment.scratch}.tries"
        self._refusal: RuntimeUnavailable | None = None
        try:
            opening = self._count(f"opening {name or _actor()}", "a worker died while it opened")
        except RuntimeUnavailable as error:
            self._refusal = error  # raised here, Ray would try again
            return
        self._worker = Worker(assignment, uuid4().hex[:12]).__enter__()
        opening.unlink()

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[str]]:
        return {"said": [self._make(int(number)) for number in batch["number"]]}

    def _count(self, what: str, death: str) -> Path:
        """Count the tries on the disk: who dies of one cannot remember it. Return the file.

        Raises:
            RuntimeUnavailable: there were too many.
        """
        file = self._tries / what
        with name_write_errors(file):
            self._tries.mkdir(parents=True, exist_ok=True)
            with file.open("ab") as tries:
                tries.write(b".")
            count = file.stat().st_size
        if count > 1 + _RETRIES:
            raise RuntimeUnavailable(
                f"{death} {_RETRIES + 1} times, as happens where memory runs out; what is whole is "
                "kept, run the same command again"
            )
        return file

    def _make(self, number: int) -> str:
        told: list[Event] = []
        try:
            if self._refusal is not None:
                raise self._refusal
            tries = self._count(str(number), f"shard {number}: its worker died").stat().st_size
            self._worker.make([self._worker.shard(number)], told.append)
        except JataugError as error:
            return json.dumps({"error": [type(error).__name__, str(error)]})
        return json.dumps({"tries": tries, "events": [event.to_dict() for event in told]})


def _actor() -> str:
    """Return what tells this actor from others; Ray keeps it when it starts the actor again."""
    ray = _load()
    return str(ray.get_runtime_context().get_actor_id())


def run(
    assignment: Assignment,
    shards: list[Shard],
    workers: int,
    gpus: float | None,
    tell: Callable[[Event], object],
    stop: Callable[[], bool],
) -> None:
    """Make shards with `workers` actors; events arrive a shard at a time.

    Raises:
        MissingExtra: Ray is not installed.
        JataugError: what a worker raised.
    """
    if not shards:
        return
    ray = _load()
    device = assignment.opening.device if assignment.opening else "cpu"
    with _cluster(ray, workers):
        some = bool(ray.cluster_resources().get("GPU"))
        if gpus is None:
            gpus = float(device.startswith("cuda") or (device == "auto" and some))
        if gpus and not some:
            raise RuntimeUnavailable(f"Ray: expected {gpus:g} GPU a worker, its cluster has none")
        rows = _rows(ray, assignment, shards, workers, gpus)
        for said in _until(stop, rows):
            if isinstance(said, BaseException):
                raise _explained(said) from said
            answer = json.loads(said["said"])
            if "error" in answer:
                raise _error(*answer["error"])
            if answer["tries"] > 1:
                tell(Event(note="a Ray worker was lost and replaced; its shard was made again"))
            for event in answer["events"]:
                tell(Event.from_dict(event))


def _rows(
    ray: Any, assignment: Assignment, shards: list[Shard], workers: int, gpus: float
) -> Iterator[Mapping[str, Any]]:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    items = [{"number": shard.number} for shard in shards]
    made = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        _Actor,
        fn_constructor_args=(assignment,),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(workers, len(shards))),
        num_cpus=1,
        num_gpus=gpus,
    )
    rows: Iterator[Mapping[str, Any]] = made.iter_rows()
    return rows


def _until(stop: Callable[[], bool], rows: Iterator[Any]) -> Iterator[Any]:
    """Yield rows until `stop`, which is asked while a row is awaited too; then an error, if any."""
    arrived: queue.Queue[Any] = queue.Queue()
    end = object()

    def collect() -> None:
        try:
            for row in rows:
                arrived.put(row)
        except BaseException as error:
            arrived.put(error)
        arrived.put(end)

    threading.Thread(target=collect, name="jataug-ray", daemon=True).start()
    while not stop():
        try:
            row = arrived.get(timeout=_PATIENCE)
        except queue.Empty:
            continue
        if row is end:
            return
        yield row


@contextmanager
def _cluster(ray: Any, workers: int) -> Iterator[None]:
    """Use the cluster that this process is connected to, or RAY_ADDRESS, or one of this machine."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not os.environ.get("RAY_ADDRESS"):
        processors = max(os.cpu_count() or 1, workers + 1)
        options |= {"address": "local", "num_cpus": processors, "include_dashboard": False}
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        line = " ".join(str(error).split())
        raise RuntimeUnavailable(f"Ray does not start: {line}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _load() -> Any:
    # No telemetry: Ray reads this when it is imported.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError:
        raise MissingExtra("Ray is not installed: pip install 'jataug[ray]'") from None
    return ray


def _error(name: str, text: str) -> JataugError:
    from ... import errors

    kind: type[JataugError] = getattr(errors, name, JataugError)
    return kind(text)


def _explained(error: BaseException) -> JataugError:
    cause = getattr(error, "cause", None) or error
    line = " ".join(str(cause).split())[-300:]
    return RuntimeUnavailable(
        f"Ray gave up: {type(cause).__name__}: {line}; what is whole is kept, run the same command "
        "again"
    )
