"""Timing for machines that drift: contestants take turns, only ratios within a round count."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

__all__ = ["interleaved", "machine", "ratios"]


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


def ratios(seconds: Mapping[str, list[float]], base: str) -> dict[str, tuple[float, float, float]]:
    """Return median and quartiles of each contestant's time over the base's, round by round."""
    found = {}
    for name, times in seconds.items():
        quotients = [t / b for t, b in zip(times, seconds[base], strict=True)]
        low, high = np.quantile(quotients, [0.25, 0.75])
        found[name] = (statistics.median(quotients), float(low), float(high))
    return found


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
