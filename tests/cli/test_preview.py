import errno
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def odd_names(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    levels = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)
    for name, image in zip(["two\nlines.png", "日本 é.png", "plain.png"], levels, strict=True):
        Image.fromarray(image).save(folder / name)
    return folder


def test_odd_file_names_do_not_move_the_grid(run, artifact, odd_names, images, tmp_path):
    sizes = set()
    for source, options in ((odd_names, ("--labels", "predicted")), (images, ())):
        grid = tmp_path / "grid.png"
        result = run("preview", artifact, source, "-o", grid, "--count", "3", *options)
        assert result.exit_code == 0, result.output
        with Image.open(grid) as picture:
            sizes.add(picture.size)
    assert len(sizes) == 1


def test_a_picture_that_cannot_be_written_leaves_the_old_one(
    run, artifact, images, tmp_path, monkeypatch
):
    grid = tmp_path / "grid.png"
    grid.write_bytes(b"old")

    def full(self, other):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    result = run("preview", artifact, images, "-o", grid, "--count", "1")
    assert result.exit_code == 2
    assert "could not be written: No space left" in result.output
    assert grid.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [grid]
