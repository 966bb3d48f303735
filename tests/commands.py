"""The command line in processes of its own, to be watched, stopped and killed."""

import hashlib
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_CODE = "from jataug.cli import main; main()"


def start(*words: object) -> "subprocess.Popen[str]":
    """Start `jataug` with these words."""
    command = [sys.executable, "-c", _CODE, *(str(word) for word in words)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )


def finish(process: "subprocess.Popen[str]", seconds: float = 120) -> tuple[int, str]:
    """Return the exit code and what was said."""
    try:
        said, complained = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=20)  # a process that it started may hold the pipes
        raise
    return process.returncode, complained + said


def call(*words: object) -> tuple[int, str]:
    """Run `jataug` with these words; return the exit code and what it said."""
    return finish(start(*words))


def until(true: Callable[[], object], seconds: float = 60) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError("the condition did not come true")
        time.sleep(0.01)


def tree_hash(root: Path) -> str:
    """sha256 over the names and bytes of all files under a folder."""
    total = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        value = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(root).as_posix()} {value}\n".encode())
    return total.hexdigest()
