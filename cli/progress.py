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

from jataug.units import duration

if TYPE_CHECKING:
    from jataug.dataset import Progress

__all__ = ["Bar", "JsonLines", "ProgressBar"]

_EVERY = 10.0
"""Seconds between two lines of progress, where stderr is no terminal."""


class ProgressBar:
    """A progress display with rate and time left.

    Args:
        what: the word before it.
        unit: what is counted.
        counted: the word before the count, on plain lines.
    """

    def __init__(self, what: str, unit: str = "img", counted: str = "") -> None:
        self._unit, self._counted = unit, counted
        self._bar: Any = None
        self.start(what)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def start(self, what: str) -> None:
        """Begin something else, with a bar of its own."""
        self._close()
        self.what, self._bar = what, None
        self._began = self._last = time.monotonic()
        self._first: int | None = None

    def show(self, done: int, total: int, words: str = "", before: int = 0) -> None:
        """Show how many are done and what else there is to say. `before` were done at the start."""
        if sys.stderr.isatty():
            self._draw(done, total, words, before)
        else:
            self._line(done, total, words)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if self._bar is not None:
            self._bar.clear()
        click.echo(f"{self.what}: {text}", err=True)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _draw(self, done: int, total: int, words: str, before: int) -> None:
        if self._bar is None:
            self._bar = _terminal_bar(self.what, total, self._unit, before)
        self._bar.set_postfix_str(words, refresh=False)
        self._bar.update(done - self._bar.n)

    def _line(self, done: int, total: int, words: str) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first, self._began, self._last = done, now, now
            return
        if now - self._last < _EVERY and done < total:
            return
        self._last = now
        rate = (done - self._first) / max(now - self._began, 1e-9)
        left = (total - done) / rate if rate else 0.0
        count = f"{self._counted} {done}/{total}".strip()
        parts = [count, f"{rate:.1f} {self._unit}/s", f"{duration(left)} left", words]
        click.echo(f"{self.what}: {', '.join(filter(None, parts))}", err=True)


class Bar(ProgressBar):
    """Call it with a Progress after every batch."""

    def __call__(self, progress: "Progress") -> None:
        """Show the progress."""
        if progress.note:
            self.say(progress.note)
        self.show(progress.done, progress.total, _accuracy(progress))


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


def _terminal_bar(what: str, total: int, unit: str, initial: int) -> Any:
    """Return a tqdm bar as wide as the terminal, or 80 columns if the width is unknown."""
    try:
        width = os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        width = 0
    fixed = None if width else 80
    return tqdm(
        desc=what, total=total, initial=initial, unit=unit, ncols=fixed, dynamic_ncols=not fixed
    )


def _accuracy(progress: "Progress") -> str:
    counted = progress.done - progress.skipped
    if not counted or not progress.clean_correct:
        return ""
    clean, attacked = progress.clean_correct / counted, progress.adversarial_correct / counted
    return f"accuracy {clean:.3f} -> {attacked:.3f}"
