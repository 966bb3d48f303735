"""Timing for machines that drift: contestants take turns, only ratios within a round count."""

import argparse
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

__all__ = ["Row", "interleaved", "machine", "print_rows", "ratios", "spread"]


class Row(NamedTuple):
    """One line of the table in benchmarks/README.md.

    Attributes:
        work: what was done.
        unit: what it was divided by.
        median: of the quotients, round by round.
        low: their first quartile.
        high: their third quartile.
        most: what the median may be at most, or None.
        least: what it must be at least, or None.
    """

    work: str
    unit: str
    median: float
    low: float
    high: float
    most: float | None = None
    least: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the median is within its bound; None without one."""
        if self.most is None and self.least is None:
            return None
        return self.median <= (self.most or np.inf) and self.median >= (self.least or 0)

    def __str__(self) -> str:
        return f"{self.work}, in {self.unit}: {self.median:.2f} [{self.low:.2f}, {self.high:.2f}]"


def print_rows(about: str | None, rows: Callable[[int], Iterable[Row]], rounds: int) -> None:
    """Be the command line of a part of speed.py: print its rows as they come.

    Args:
        about: the script's docstring.
        rows: a number of rounds to rows.
        rounds: by default.
    """
    parser = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=rounds)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print(machine())
    for row in rows(options.rounds):
        print(row, flush=True)


def interleaved(work: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return every contestant's seconds in every round, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for number in range(rounds + 1):
        for name, run in work.items():
            began = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def spread(values: Iterable[float]) -> tuple[float, float, float]:
    """Return the median and both quartiles."""
    found = sorted(values)
    low, high = np.quantile(found, [0.25, 0.75])
    return statistics.median(found), float(low), float(high)


def ratios(seconds: Mapping[str, list[float]], base: str) -> dict[str, tuple[float, float, float]]:
    """Return median and quartiles of each contestant's time over the base's, round by round."""
    return {
        name: spread(t / b for t, b in zip(times, seconds[base], strict=True))
        for name, times in seconds.items()
    }


def machine() -> str:
    """Return the processor, its threads and how many of them this process may use."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        model = f"{names[0]}, {_usable(len(names))}" if names else model
    return model


def _usable(threads: int) -> str:
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    usable = len(affinity(0)) if affinity else threads
    return f"{threads} threads" if usable == threads else f"{usable} of {threads} threads"
