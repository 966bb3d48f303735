"""Who works on a destination: a small file a run, so that no two runs make the same shards.

A run publishes its claim, then reads the others'. Nobody can overlook anybody: of two that publish
at once, each sees the other, and the earlier one goes on. No file is locked, so this works where
several machines share a file system.
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
"""Seconds between two signs of life."""

SILENT = 120.0
"""Seconds after which a run on another machine that gives none is taken for dead."""

_CLAIM, _HELD = ".claim", ".held"


@dataclass(frozen=True)
class Claim:
    """What a run says of itself.

    Attributes:
        host: the machine's name.
        space: within which process numbers mean the same: this start of it, this container.
        pid: of the process.
        started: tells a process from a later one of the same number; None where the system does
            not say.
        since: ISO 8601, UTC.
        plan_hash: of what it makes.
        part: which of the shards, (i, n) for i of n.
    """

    host: str
    space: str
    pid: int
    started: str | None
    since: str
    plan_hash: str
    part: tuple[int, int]

    def excludes(self, other: "Claim", shards: int) -> bool:
        """Whether two runs over `shards` shards must not work at once."""
        if self.plan_hash != other.plan_hash:
            return True
        mine, others = (set(range(i - 1, shards, n)) for i, n in (self.part, other.part))
        return bool(mine & others)

    def __str__(self) -> str:
        share = "" if self.part[1] == 1 else f", part {self.part[0]}/{self.part[1]}"
        return f"process {self.pid} on {self.host}, since {self.since}{share}"


class Lock:
    """The right to make some shards of a destination; enter it to hold it.

    Args:
        root: the destination.
        plan_hash: of what will be made there.
        part: (i, n): every n-th shard from the i-th.
        shards: their number, all in all.

    Attributes:
        name: tells this run from every other.
        notes: what the user should hear, a line each.
        began: when its claim was published, by the clock of the file system: nanoseconds.

    Raises:
        DataError: another run makes some of these shards, or another plan, or `root` cannot be
            written.
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
        """Raise DataError where another run has taken this one for dead and goes on in its place.

        Nothing is spoilt by then: both make the same bytes.
        """
        if not self._path.exists():
            raise DataError(
                f"{self._root}: expected the claim of this run, {self._path.name}, got none: "
                "another run took it for dead, or it was removed; run the same command again"
            )

    def _publish(self) -> None:
        text = json.dumps(asdict(self._own))
        for _ in range(100):  # a run that ends removes the folder when it is empty
            self._path.parent.mkdir(parents=True, exist_ok=True)
            draft = self._path.with_suffix(".draft")
            with suppress(FileNotFoundError):
                draft.write_text(text, "utf-8")
                draft.replace(self._path)
                return
        raise FileNotFoundError(2, "the folder disappears while it is written to")

    def _first(self) -> bool:
        """Whether no other run is in the way; False where one has not decided yet.

        Raises:
            DataError: one is.
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
        other = "" if claim.plan_hash == self._own.plan_hash else " on another plan"
        return (
            f"{self._root}: expected no run at work there, got {claim}{other}; wait for it, or "
            f"split the job by --shard i/n (if it is gone for certain, remove {path})"
        )

    def _dead(self, path: Path, claim: Claim) -> str:
        """Return why a claim is of a run that is no more; empty where it may be alive."""
        here = (claim.host, claim.space) == (self._own.host, self._own.space)
        if here and (alive := process.is_there(claim.pid, claim.started)) is not None:
            return "" if alive else "it is no longer there"
        with suppress(FileNotFoundError):
            os.utime(self._path)  # both times by the clock of the file system
            silent = self._path.stat().st_mtime - path.stat().st_mtime
            return f"no sign of life for {silent:.0f} s" if silent > SILENT else ""
        return ""

    def _bury(self, path: Path, claim: Claim, reason: str) -> None:
        for suffix in (_HELD, _CLAIM):
            path.with_suffix(suffix).unlink(missing_ok=True)
        self.notes.append(f"took over from {claim}: {reason}")

    def _tidy(self) -> None:
        """Remove the unfinished files of runs that are gone."""
        folder = self._path.parent
        there = list(folder.iterdir())  # before the claims: a run that comes in meanwhile has one
        known = {path.stem for path in folder.glob(f"*{_CLAIM}")}
        for path in there:
            if path.name.split(".")[0] not in known:
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
    """Return a claim, or None where it was withdrawn; a damaged one says nothing but its age."""
    try:
        value: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return Claim(**{**value, "part": tuple(value["part"])})
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, RecursionError):
        return Claim("an unknown machine", "", 0, None, "an unknown time", "", (1, 1))
