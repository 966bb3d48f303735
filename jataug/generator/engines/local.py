"""Workers on this machine: one in this process, or several in processes of their own."""

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from ...errors import JataugError, RuntimeUnavailable
from ..plan import Shard
from ..session import AttackSession
from ..worker import Event, Lane, Worker

__all__ = ["run"]

_END = "end"
_PATIENCE = 0.1
"""Seconds between two looks at whether workers live and whether to stop."""


def run(
    lanes: Sequence[Lane],
    sessions: Sequence[AttackSession],
    shards: list[Shard],
    workers: int,
    tell: Callable[[Event], object],
    stop: Callable[[], bool],
) -> None:
    """Make shards with `workers` workers; each takes the next shard when it has made one.

    Raises:
        JataugError: what a worker raised, or that one was killed.
    """
    if workers == 1:
        with Worker(lanes, "0", sessions) as worker:
            worker.make(shards, tell, stop)
        return
    context = multiprocessing.get_context("spawn")
    todo, events, halt = context.Queue(), context.Queue(), context.Event()
    for shard in [*shards, *[None] * workers]:
        todo.put(shard)
    crew = [
        context.Process(target=_serve, args=(lanes, str(number), todo, events, halt), daemon=True)
        for number in range(workers)
    ]
    try:
        for process in crew:
            process.start()
        _listen(crew, events, halt, tell, stop)
    finally:
        for process in crew:
            process.terminate()
        for process in crew:
            process.join()
        for channel in (todo, events):
            channel.cancel_join_thread()
            channel.close()


def _listen(
    crew: list[Any],
    events: Any,
    halt: Any,
    tell: Callable[[Event], object],
    stop: Callable[[], bool],
) -> None:
    """Pass on what the workers say, until each has said that it is done."""
    ended = 0
    failure: BaseException | None = None
    while ended < len(crew):
        if stop():
            halt.set()
        try:
            said = events.get(timeout=_PATIENCE)
        except queue.Empty:
            if failure is None and (failure := _killed(crew)):
                halt.set()
            ended = (
                max(ended, sum(not process.is_alive() for process in crew)) if failure else ended
            )
            continue
        if isinstance(said, Event):
            tell(said)
        elif isinstance(said, BaseException):
            failure = failure or said
            halt.set()
        else:
            ended += 1
    if failure:
        raise failure


def _killed(crew: list[Any]) -> JataugError | None:
    for number, process in enumerate(crew):
        if code := process.exitcode:
            how = f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            return RuntimeUnavailable(
                f"worker {number + 1} (process {process.pid}) was {how}"
                f"{', as happens where memory runs out' if code == -9 else ''}; "
                "what is whole is kept, run the same command again"
            )
    return None


def _serve(lanes: Sequence[Lane], name: str, todo: Any, events: Any, halt: Any) -> None:
    """Run one worker in its own process."""
    # A Ctrl-C reaches every process of a terminal; the first one decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        with Worker(lanes, name) as worker:
            worker.make(_until_none(todo), events.put, halt.is_set)
    except JataugError as error:
        events.put(type(error)(str(error)))
    except Exception as error:
        events.put(RuntimeError(f"worker {name}: {type(error).__name__}: {error}"))
    events.put(_END)


def _until_none(todo: Any) -> Iterator[Shard]:
    return iter(todo.get, None)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    with suppress(OSError):
        if parent is not None:
            parent.join()
    os._exit(1)
