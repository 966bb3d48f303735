"""Progress displays: a bar on a terminal, plain lines elsewhere, JSON lines for programs."""

import json
import os
import sys
import time
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import click
from tqdm import tqdm

if TYPE_CHECKING:
    from jataug.dataset import Progress

__all__ = ["Bar", "JsonLines", "duration", "terminal_bar"]

_EVERY = 10.0
"""Seconds between two lines of progress, where stderr is no terminal."""


class Bar:
    """A progress display with rate and time left; call it with a Progress after every batch."""

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
        if progress.note:
            self.say(progress.note)
        if sys.stderr.isatty():
            self._draw(progress)
        else:
            self._line(progress)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if self._bar is not None:
            self._bar.clear()
        click.echo(f"{self._what}: {text}", err=True)

    def _draw(self, progress: "Progress") -> None:
        if self._bar is None:
            self._bar = terminal_bar(self._what, progress.total, "img")
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
        parts = [f"{progress.done}/{progress.total}", f"{rate:.1f} img/s", f"{duration(left)} left"]
        parts += filter(None, [_accuracy(progress)])
        click.echo(f"{self._what}: {', '.join(parts)}", err=True)


class JsonLines:
    """Print progress as one JSON object per line to stderr; call it after every batch."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return

    def __call__(self, progress: "Progress") -> None:
        """Write the progress."""
        if progress.note:
            self.say(progress.note)
        fields = asdict(progress)
        del fields["note"]
        self._write("progress", **fields, waited_share=self._share(progress))

    def say(self, text: str) -> None:
        """Print a remark."""
        self._write("note", text=text)

    def _share(self, progress: "Progress") -> float:
        return round(progress.waited / max(time.monotonic() - self._began, 1e-9), 4)

    def _write(self, event: str, **fields: Any) -> None:
        seconds = round(time.monotonic() - self._began, 3)
        line = {"event": event, "seconds": seconds, **fields}
        click.echo(json.dumps(line, sort_keys=True), err=True)


def terminal_bar(what: str, total: int, unit: str, initial: int = 0) -> Any:
    """Return a tqdm bar as wide as the terminal, or 80 columns if the width is unknown."""
    try:
        width = os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        width = 0
    fixed = None if width else 80
    return tqdm(
        desc=what, total=total, initial=initial, unit=unit, ncols=fixed, dynamic_ncols=not fixed
    )


def duration(seconds: float) -> str:
    """Format a duration: 12 s, 3 min 20 s, 5 h 10 min, 3 d 4 h."""
    whole = round(seconds)
    for size, unit, smaller, below in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller} {below}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{whole} s"


def _accuracy(progress: "Progress") -> str:
    counted = progress.done - progress.skipped
    if not counted or not progress.clean_correct:
        return ""
    clean, attacked = progress.clean_correct / counted, progress.adversarial_correct / counted
    return f"accuracy {clean:.3f} -> {attacked:.3f}"
