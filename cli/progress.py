"""How far a run is: a bar on a terminal, plain lines otherwise, JSON lines for machines."""

import json
import sys
import time
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import click
from tqdm import tqdm

if TYPE_CHECKING:
    from jataug.generator import Progress

__all__ = ["Bar", "JsonLines"]

_EVERY = 10.0
"""Seconds between two plain lines."""


class Bar:
    """Call it with a Progress after every batch; rate and time left are shown as it goes."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._bar: Any = None
        self._began = self._last = time.monotonic()
        self._first: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, progress: "Progress") -> None:
        """Show the progress."""
        if sys.stderr.isatty():
            self._draw(progress)
        else:
            self._line(progress)

    def _draw(self, progress: "Progress") -> None:
        if self._bar is None:
            self._bar = tqdm(desc=self._what, total=progress.total, unit="img", dynamic_ncols=True)
        self._bar.set_postfix_str(_accuracy(progress), refresh=False)
        self._bar.update(progress.done - self._bar.n)

    def _line(self, progress: "Progress") -> None:
        now = time.monotonic()
        if self._first is None:
            self._first, self._began, self._last = progress.done, now, now
            return
        if now - self._last < _EVERY and progress.done < progress.total:
            return
        self._last = now
        rate = (progress.done - self._first) / max(now - self._began, 1e-9)
        left = (progress.total - progress.done) / rate if rate else 0.0
        click.echo(
            f"{self._what}: {progress.done}/{progress.total}, {rate:.1f} img/s, {left:.0f} s left"
            f" {_accuracy(progress)}".rstrip(),
            err=True,
        )


class JsonLines:
    """Writes a Progress as one JSON object a line to stderr, after every batch."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self, progress: "Progress") -> None:
        """Write the progress."""
        seconds = round(time.monotonic() - self._began, 3)
        line = {"event": "progress", "seconds": seconds, **asdict(progress)}
        click.echo(json.dumps(line, sort_keys=True), err=True)


def _accuracy(progress: "Progress") -> str:
    counted = progress.done - progress.skipped
    if not counted or not progress.clean_correct:
        return ""
    clean, attacked = progress.clean_correct / counted, progress.adversarial_correct / counted
    return f"accuracy {clean:.3f} -> {attacked:.3f}"
