"""The folder of an evaluation: killed runs, and files that are not finished."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kills import killed_before_every_change

from jataug.errors import DataError
from jataug.evaluation.results_folder import Folder


@pytest.mark.skipif(
    sys.platform != "linux", reason="needs fork: Windows has none, torch on macOS refuses it"
)
def test_killed_before_every_change_of_a_file(source: Path, tmp_path: Path) -> None:
    """The plan, the clean images and two attacks, the gallery, the reports."""
    program = Path(__file__).with_name("every_kill.py")
    assert killed_before_every_change(program, tmp_path / "killed", source) > 20


def draft_of(root: Path, process: int, place: str | None = None) -> Path:
    """An unfinished file in a folder, as another process would have named it."""
    names = []
    folder = Folder(root, {})
    real = Path.replace

    def look(path: Path, final: Path) -> Path:
        names.append(path.name)
        return real(path, final)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", look)
        folder.write("part", b"")
    start, here = names[0].rsplit(".", 1)
    own, _, random = here.split("-")
    path = root / f"{start}.{place or own}-{process}-{random}"
    path.write_bytes(b"half")
    return path


def ended() -> int:
    """The number of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.skipif(
    os.name == "nt", reason="Windows tells of no process whether it is there; the day is tested"
)
def test_an_unfinished_file_goes_with_its_process(tmp_path: Path) -> None:
    gone = draft_of(tmp_path, ended())
    there = draft_of(tmp_path, os.getppid())
    elsewhere = draft_of(tmp_path, ended(), "00000000")
    Folder(tmp_path, {})
    assert [path.exists() for path in (gone, there, elsewhere)] == [False, True, True]


def test_an_unfinished_file_goes_after_a_day(tmp_path: Path) -> None:
    long_ago = draft_of(tmp_path, ended(), "00000000")
    new = draft_of(tmp_path, ended(), "00000001")
    os.utime(long_ago, (time.time() - 90_000,) * 2)
    Folder(tmp_path, {})
    assert [path.exists() for path in (long_ago, new)] == [False, True]


def test_a_folder_of_unfinished_files_is_empty(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    draft_of(tmp_path / "old", ended()).rename(tmp_path / "new" / ".plan.json.0a1b2c3d-1-00000000")
    Folder(tmp_path / "new", {})
    assert (tmp_path / "new" / "plan.json").exists()


def test_a_name_that_only_looks_like_one_is_another_s(tmp_path: Path) -> None:
    (tmp_path / ".plan.json.swp").write_bytes(b"")
    (tmp_path / ".DS_Store").write_bytes(b"")
    with pytest.raises(DataError, match=r"got one that holds \.plan\.json\.swp"):
        Folder(tmp_path, {})


def test_a_file_that_cannot_take_its_place_is_named(tmp_path: Path) -> None:
    folder = Folder(tmp_path, {})
    (tmp_path / "part" / "inside").mkdir(parents=True)
    reason = "Access is denied" if os.name == "nt" else "Is a directory"
    with pytest.raises(DataError, match=f"part: could not be written: {reason}"):
        folder.write("part", b"")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["part", "plan.json"]
