"""Which process this is, and whether another one is still there."""

import os
import platform
from pathlib import Path

__all__ = ["host", "is_there", "space", "started"]


def host() -> str:
    """Return the machine's name."""
    return platform.node() or "unknown"


def space() -> str:
    """Return within which process numbers mean the same: this start of the machine, this container;
    empty where the system does not say.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def started(pid: int) -> str | None:
    """Return when a process began, in ticks since the machine did; None but on Linux."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    # A zombie has ended, though its number is still taken.
    return "ended" if fields[0] == "Z" else fields[19]


def is_there(pid: int, since: str | None) -> bool | None:
    """Return whether a process of this machine is there, or None where that cannot be told.

    Args:
        pid: its number.
        since: what `started` said of it, which tells it from a later one of the same number; None
            where it said nothing.
    """
    if os.name == "nt":  # there os.kill ends the process
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return since is None or since == started(pid)
