"""Identifies processes, and tells whether one is still running."""

import os
import platform
from pathlib import Path

__all__ = ["host", "is_there", "space", "started"]


def host() -> str:
    """Return the name of this machine."""
    return platform.node() or "unknown"


def space() -> str:
    """Return an identifier of this boot and container, within which process numbers are unique.

    It is empty if the system does not provide one.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def started(pid: int) -> str | None:
    """Return the start time of a process in clock ticks since boot; None except on Linux."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    # A zombie has ended, although its number is still in use.
    return "ended" if fields[0] == "Z" else fields[19]


def is_there(pid: int, since: str | None) -> bool | None:
    """Return whether a process of this machine is running, or None if that is unknown.

    Args:
        pid: process number.
        since: the earlier result of `started`, which distinguishes the process from a later one
            with the same number; None if it is unknown.
    """
    if os.name == "nt":  # on Windows os.kill ends the process
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return since is None or since == started(pid)
