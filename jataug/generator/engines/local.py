"""Workers on this machine: one in this process, or several in processes of their own."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing import connection
from typing import Any

from ...dataset.plan import Shard
from ...errors import JataugError, RuntimeUnavailable
from ..open_session import AttackSession
from ..worker import Assignment, Event, Worker

__all__ = ["run"]

_END, _NEXT, _HALT = "end", "next", "halt"
_PATIENCE = 0.1
"""Seconds between two checks of the workers and of `stop`."""


def run(
    assignment: Assignment,
    session: AttackSession,
    shards: list[Shard],
    workers: int,
    tell: Callable[[Event], object],
    stop: Callable[[], bool],
) -> None:
    """Make shards with `workers` workers. Each takes the next shard when it has finished one.

    Raises:
        JataugError: a worker raised an error or was killed.
    """
    if workers == 1:
        with Worker(assignment, "0", session) as worker:
            worker.make(shards, tell, stop)
        return
    context = multiprocessing.get_context("spawn")
    processes: dict[Any, Any] = {}
    try:
        for number in range(min(workers, len(shards))):
            # One pipe per worker, because a killed worker could leave a shared one locked.
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_serve, args=(assignment, str(number), theirs), daemon=True
            )
            processes[ours] = process
            process.start()
            theirs.close()  # so that the end of the worker closes the pipe
        _listen(processes, iter(shards), tell, stop)
    finally:
        running = [process for process in processes.values() if process.pid is not None]
        for process in running:
            process.terminate()
        for process in running:
            process.join()
        for channel in processes:
            channel.close()


def _listen(
    processes: dict[Any, Any],
    shards: Iterator[Shard],
    tell: Callable[[Event], object],
    stop: Callable[[], bool],
) -> None:
    """Hand out shards and forward the events of the workers until all of them are done."""
    busy, halted = list(processes), False
    failure: BaseException | None = None
    while busy:
        if (failure or stop()) and not halted:
            halted = True
            for channel in busy:
                with suppress(OSError):
                    channel.send(_HALT)
        ready: list[Any] = connection.wait(busy, _PATIENCE)
        for channel in ready:
            try:
                message = channel.recv()
                if message == _NEXT:
                    channel.send(None if halted else next(shards, None))
            except (EOFError, OSError):
                message = _killed(processes, channel)
            if isinstance(message, Event):
                tell(message)
            elif isinstance(message, BaseException):
                failure = failure or message
            if message == _END or isinstance(message, BaseException):
                busy.remove(channel)
    if failure:
        raise failure


def _killed(processes: dict[Any, Any], channel: Any) -> JataugError:
    process = processes[channel]
    process.join(10)
    code, number = process.exitcode or 0, list(processes).index(channel)
    how = f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return RuntimeUnavailable(
        f"worker {number + 1} (process {process.pid}) was {how}"
        f"{', as happens where memory runs out' if code == -9 else ''}; "
        "what is whole is kept, run the same command again"
    )


class _Line:
    """What a worker says and hears; batches and shards are told from two threads."""

    def __init__(self, channel: Any) -> None:
        self._channel, self._lock, self._halted = channel, threading.Lock(), False

    def put(self, said: Any) -> None:
        with self._lock:
            self._channel.send(said)

    def shards(self) -> Iterator[Shard]:
        self.put(_NEXT)
        while (heard := self._channel.recv()) is not None:
            if heard == _HALT:
                self._halted = True
                continue
            yield heard
            self.put(_NEXT)

    def halted(self) -> bool:
        while not self._halted and self._channel.poll():
            self._halted = self._channel.recv() == _HALT
        return self._halted


def _serve(assignment: Assignment, name: str, channel: Any) -> None:
    """Run one worker in its own process."""
    # A Ctrl-C reaches every process of a terminal; the first one decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    line = _Line(channel)
    try:
        with Worker(assignment, name) as worker:
            worker.make(line.shards(), line.put, line.halted)
    except JataugError as error:
        line.put(type(error)(str(error)))
    except Exception as error:
        line.put(RuntimeError(f"worker {name}: {type(error).__name__}: {error}"))
    else:
        line.put(_END)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    with suppress(OSError):
        if parent is not None:
            parent.join()
    os._exit(1)
