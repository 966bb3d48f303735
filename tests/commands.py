"""The command line in processes of its own, to be watched, stopped and killed."""

import hashlib
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

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


def file_hashes(root: Path) -> dict[str, str]:
    """sha256 of every file under a folder, by name."""
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }


def tree_hash(root: Path) -> str:
    """sha256 over the names and bytes of all files under a folder."""
    lines = (f"{name} {value}\n" for name, value in file_hashes(root).items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def refused(result: Any, *words: str) -> None:
    """Check that a command ended with 2 and one line that has these words."""
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    last = [line for line in result.output.splitlines() if line.strip()][-1]
    assert last.startswith("Error: ")
    assert "Usage: " not in result.output
    for word in words:
        assert word in last, last
