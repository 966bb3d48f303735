from pathlib import Path

import pytest

from jataug.atomic import write_file
from jataug.errors import DataError


def test_a_file_is_written_whole_and_nothing_is_left_beside_it(tmp_path):
    write_file(tmp_path / "a.png", b"new")
    write_file(tmp_path / "a.png", b"newer")
    assert (tmp_path / "a.png").read_bytes() == b"newer"
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_a_failed_write_keeps_what_was_there(tmp_path, monkeypatch):
    target = tmp_path / "a.png"
    target.write_bytes(b"old")

    def full(self, other):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DataError, match=r"a\.png: could not be written: No space left"):
        write_file(target, b"new")
    assert target.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="could not be written: No such file"):
        write_file(tmp_path / "none" / "a.png", b"")
