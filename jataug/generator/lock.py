"""The lock of a destination: one claim file per run, so that no two runs make the same shards.

A run writes its own claim, then reads those of the others. If two runs write their claims at the
same time, each sees the other, and the earlier one continues. No file is locked, so this works on
file systems that several machines share.
"""

import json
import os
import secrets
import shutil
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .. import process
from ..atomic import SCRATCH, name_write_errors
from ..errors import DataError

__all__ = ["HEARTBEAT", "SILENT", "Claim", "Lock"]

HEARTBEAT = 10.0
"""Seconds between two updates of the modification time of a claim."""

SILENT = 120.0
"""Seconds without an update after which a run on another machine counts as dead."""

_CLAIM, _HELD = ".claim", ".held"


@dataclass(frozen=True)
class Claim:
    """The content of a claim file: which process works, and on which shards.

    Attributes:
        host: name of the machine.
        space: identifies the boot and the container, within which process numbers are unique.
        pid: process number.
        started: start time of the process, which distinguishes it from a later process with the
            same number; None if the system does not provide it.
        since: when the claim was written, ISO 8601, UTC.
        plan_hash: hash of the plan.
        part: (i, n) for part i of n of the shards.
    """

    host: str
    space: str
    pid: int
    started: str | None
    since: str
    plan_hash: str
    part: tuple[int, int]

    def excludes(self, other: "Claim", shards: int) -> bool:
        """Return whether two runs over `shards` shards must not work at the same time."""
        if self.plan_hash != other.plan_hash:
            return True
        mine, others = (set(range(i - 1, shards, n)) for i, n in (self.part, other.part))
        return bool(mine & others)

    def __str__(self) -> str:
        part = "" if self.part[1] == 1 else f", part {self.part[0]}/{self.part[1]}"
        return f"process {self.pid} on {self.host}, since {self.since}{part}"


class Lock:
    """The right to make some shards of a destination. Use it as a context manager.

    Args:
        root: the destination.
        plan_hash: hash of the plan.
        part: (i, n): every n-th shard from the i-th.
        shards: number of shards of the whole plan.

    Attributes:
        name: unique name of this run.
        notes: messages for the user, one line each.
        began: when the claim was written, by the clock of the file system, in nanoseconds.

    Raises:
        DataError: another run makes some of these shards or works on another plan, or `root`
            cannot be written.
    """

    def __init__(self, root: Path, plan_hash: str, part: tuple[int, int], shards: int) -> None:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        pid = os.getpid()
        self._own = Claim(
            process.host(), process.space(), pid, process.started(pid), since, plan_hash, part
        )
        self._root, self._shards = root, shards
        self.name = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
        self.notes: list[str] = []
        self.began = 0
        self._over = threading.Event()
        self._path = root / SCRATCH / f"{self.name}{_CLAIM}"

    def __enter__(self) -> Self:
        with name_write_errors(self._root):
            self._publish()
            self.began = self._path.stat().st_mtime_ns
        try:
            with name_write_errors(self._root):
                while not self._first():
                    time.sleep(0.05)
                self._path.with_suffix(_HELD).touch()
                self._tidy()
        except BaseException:
            self._release()
            raise
        threading.Thread(target=self._beat, name="jataug-heartbeat", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._release()

    def check(self) -> None:
        """Raise DataError if another run took this one for dead and continues in its place.

        No data is damaged by then, because both runs write the same bytes.
        """
        if not self._path.exists():
            raise DataError(
                f"{self._root}: the claim of this run, {self._path.name}, is gone: another run "
                "took this one for dead, or the file was removed; run the same command again"
            )

    def _publish(self) -> None:
        text = json.dumps(asdict(self._own))
        for _ in range(100):  # a run that ends removes the folder when it is empty
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._path.with_suffix(".draft")
            with suppress(FileNotFoundError):
                temporary.write_text(text, "utf-8")
                temporary.replace(self._path)
                return
        raise FileNotFoundError(2, "the folder is removed while files are written to it")

    def _first(self) -> bool:
        """Return whether this run may start; False if another run has not decided yet.

        Raises:
            DataError: another run holds the lock.
        """
        undecided = False
        for path in sorted(self._path.parent.glob(f"*{_CLAIM}")):
            if path == self._path or (claim := _read(path)) is None:
                continue
            if reason := self._dead(path, claim):
                self._bury(path, claim, reason)
            elif claim.excludes(self._own, self._shards):
                if path.with_suffix(_HELD).exists() or path.name < self._path.name:
                    raise DataError(self._refusal(path, claim))
                undecided = True
        return not undecided

    def _refusal(self, path: Path, claim: Claim) -> str:
        if claim.plan_hash == self._own.plan_hash:
            plan, cure = "", "split the work with --shard i/n"
        else:
            plan, cure = ", with other options", "use another folder"
        return (
            f"{self._root}/ is in use by {claim}{plan}. Wait for it, or {cure}. If it is gone for "
            f"certain, remove {path}"
        )

    def _dead(self, path: Path, claim: Claim) -> str:
        """Return why the run of a claim is dead, or "" if it may be alive."""
        here = (claim.host, claim.space) == (self._own.host, self._own.space)
        if here and (alive := process.is_there(claim.pid, claim.started)) is not None:
            return "" if alive else "its process has ended"
        with suppress(FileNotFoundError):
            os.utime(self._path)  # so that both times are by the clock of the file system
            silent = self._path.stat().st_mtime - path.stat().st_mtime
            return f"it was silent for {silent:.0f} s" if silent > SILENT else ""
        return ""

    def _bury(self, path: Path, claim: Claim, reason: str) -> None:
        for suffix in (_HELD, _CLAIM):
            path.with_suffix(suffix).unlink(missing_ok=True)
        self.notes.append(f"took over from {claim}: {reason}")

    def _tidy(self) -> None:
        """Remove the unfinished files of runs that have ended."""
        folder = self._path.parent
        # Listed before the claims, so that a run that starts meanwhile has a claim.
        present = list(folder.iterdir())
        claimed = {path.stem for path in folder.glob(f"*{_CLAIM}")}
        for path in present:
            if path.name.split(".")[0] not in claimed:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._over.wait(HEARTBEAT):
            with suppress(OSError):
                os.utime(self._path)

    def _release(self) -> None:
        with suppress(OSError):
            # A worker that was killed leaves its folder behind.
            for path in self._path.parent.glob(f"{self.name}.*"):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
            for suffix in (_HELD, ".draft", _CLAIM):
                self._path.with_suffix(suffix).unlink(missing_ok=True)
            self._path.parent.rmdir()  # where no other run is at work


def _read(path: Path) -> Claim | None:
    """Return a claim, or None if it was withdrawn; of a damaged one only the file's age counts."""
    try:
        value: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return Claim(**{**value, "part": tuple(value["part"])})
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, RecursionError):
        return Claim("an unknown machine", "", 0, None, "an unknown time", "", (1, 1))
