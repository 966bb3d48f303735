"""The folder of an evaluation: whose it is, and which of its parts are finished."""

import json
import secrets
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic import is_temporary, remove_stale, replace_file
from ..checks import digest
from ..dataset.plan_diff import explain_mismatch
from ..errors import DataError
from .models.model import Array
from .settings_diff import plan_differences

__all__ = ["PLAN", "Folder"]

PLAN = "plan.json"
_OURS = "jataug evaluation"


class Folder:
    """Files that are whole or absent, under one plan. Without a root nothing is kept.

    Args:
        root: a new or empty folder, or one where the same plan was begun; None for memory alone.
        plan: everything that decides the figures.
        code: what else decides them and cannot be compared, so that nothing is resumed; or None.

    Raises:
        DataError: the folder holds something else, or another plan; nothing is touched then.
    """

    def __init__(self, root: Path | None, plan: Mapping[str, Any], code: str | None = None) -> None:
        self.root, self.plan, self._code = root, json.loads(json.dumps(plan)), code
        if code is not None and root is not None:
            self.plan["run"] = secrets.token_hex(16)  # like no other run's
        self.hash = digest(self.plan)
        if root is not None:
            self._check(root)
            remove_stale(root)
            self.write(PLAN, json.dumps(
                {"kind": _OURS, "plan_hash": self.hash, "plan": self.plan}, indent=1
            ).encode())  # fmt: skip

    def _check(self, root: Path) -> None:
        try:
            held = {entry.name for entry in root.iterdir() if not is_temporary(entry)} - {
                ".DS_Store"
            }
        except FileNotFoundError:
            return
        except OSError as error:
            raise DataError(f"{root}: expected a folder to write to: {error.strerror}") from None
        if not held:
            return
        stored = _read(root / PLAN) if PLAN in held else {}
        if stored.get("kind") != _OURS:
            raise DataError(
                f"{root}: expected an empty or new folder, got one that holds {min(held)}; "
                "nothing was touched, choose another"
            )
        if stored.get("plan_hash") != self.hash and _finished_any(root):
            if self._code is not None:
                raise DataError(
                    f"{root}: {self._code}, so nothing tells whether what is finished there was "
                    "made with the same code. Choose another folder. An evaluation with identity=, "
                    "a string that you change whenever that code changes, can be resumed"
                )
            found = plan_differences(stored.get("plan", {}), self.plan)
            others = [] if found else [f"its {PLAN} was changed"]
            raise DataError(explain_mismatch(root, found, others))

    def load(self, name: str) -> dict[str, Array] | None:
        """Return the arrays of a finished part, or None."""
        if self.root is None:
            return None
        try:
            # Opened here: np.load leaves a damaged file open.
            with (
                (self.root / name).open("rb") as stream,
                np.load(stream, allow_pickle=False) as file,
            ):
                found = dict(file)
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
            return None
        return found if str(found.pop("plan_hash", "")) == self.hash else None

    def save(self, name: str, arrays: Mapping[str, Array]) -> None:
        """Keep the arrays of a finished part."""
        if self.root is None:
            return
        self._check_plan(self.root)
        named: dict[str, Any] = {**arrays, "plan_hash": np.array(self.hash)}
        with self._written(self.root / name) as draft, draft.open("wb") as file:
            np.savez_compressed(file, **named)

    def _check_plan(self, root: Path) -> None:
        """Refuse to go on where another evaluation was begun since: a plan alone gives way."""
        if _read(root / PLAN).get("plan_hash") != self.hash:
            raise DataError(
                f"{root}: expected the plan of this evaluation, got another: a second one was "
                "begun there; run it again with another folder"
            )

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole."""
        if self.root is not None:
            with self._written(self.root / name) as draft:
                draft.write_bytes(data)

    @contextmanager
    def _written(self, final: Path) -> Iterator[Path]:
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{final}: could not be written: {error.strerror}") from None
        with replace_file(final) as draft:
            yield draft


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _finished_any(root: Path) -> bool:
    """Whether a part of an evaluation is there."""
    parts = (root / "attacks").rglob("*.npz")
    return (root / "report.json").exists() or any(not part.name.startswith(".") for part in parts)
