"""Ctrl-C and SIGTERM: the first one stops a run after its batch, the second one at once.

Before a run has begun nothing is written, so the first one raises KeyboardInterrupt.
"""

import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from jataug.dataset import Progress

__all__ = ["INTERRUPTED", "Interrupt"]

INTERRUPTED = 130
"""Exit code of a run that a signal stopped."""

_SIGNALS = ("SIGINT", "SIGTERM", "SIGBREAK")


class Interrupt:
    """A context manager that turns the first signal into a request to stop.

    Call the object to ask whether a stop was requested. Requests are counted from the first call of
    the function that `begins` returns; before that a signal raises KeyboardInterrupt. A thread
    waits for signals, so that the second one works while the runtime computes.

    Args:
        tell: called with a line of text for the user.
    """

    def __init__(self, tell: Callable[[str], object]) -> None:
        self._tell, self._asked = tell, threading.Event()
        self._before: dict[int, Any] = {}
        self._begun = self._early = False
        self._deciding = threading.Lock()

    def __call__(self) -> bool:
        """Return whether a stop was requested."""
        return self._asked.is_set()

    def begins(self, progress: "Callable[[Progress], object]") -> "Callable[[Progress], object]":
        """Return a function that calls `progress` and whose first call marks the run as begun.

        The function raises KeyboardInterrupt if a signal came before that.
        """

        def report(now: "Progress") -> object:
            with self._deciding:
                self._begun = True
            if self._early:
                raise KeyboardInterrupt
            return progress(now)

        return report

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        for name in _SIGNALS:
            if (number := getattr(signal, name, None)) is not None:
                self._before[number] = signal.signal(number, self._hear)
        self._wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._watch, name="jataug-signals", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._before:
            return
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
        self._writer.close()

    def _hear(self, *_: object) -> None:
        if not self._begun:
            raise KeyboardInterrupt

    def _watch(self) -> None:
        with self._reader, suppress(OSError):
            while came := self._reader.recv(1):
                if came[0] not in self._before:
                    continue
                with self._deciding:
                    again = self._early or self._asked.is_set()
                    self._early = self._early or not self._begun
                if again:
                    self._tell(
                        "stopped at once; run the same command again to resume after the last "
                        "complete shard"
                    )
                    os._exit(INTERRUPTED)
                if self._early:
                    continue
                self._asked.set()
                self._tell("stopping after this batch; press Ctrl-C again to stop at once")
