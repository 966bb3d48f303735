import os
from pathlib import Path

import pytest
from PIL import Image

from jataug.data import open_source
from jataug.errors import DataError


def fill(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3), "red").save(root / name)
    return root


def test_class_folders_are_labels_in_natural_order(tmp_path):
    source = open_source(fill(tmp_path, "10/a.png", "9/b10.jpg", "9/b9.PNG", "9/deep/c.webp"))
    assert source.classes == ("9", "10")
    assert [source.key(i) for i in range(4)] == ["9/b9", "9/b10", "9/deep/c", "10/a"]
    assert [source.label(i) for i in range(4)] == [0, 0, 0, 1]
    sample = source[3]
    assert (sample.index, sample.key, sample.label) == (3, "10/a", 1)
    assert sample.image.shape == (3, 4, 3)


def test_an_empty_class_folder_keeps_its_number(tmp_path):
    (fill(tmp_path, "a/1.png", "c/1.png") / "b").mkdir()
    source = open_source(tmp_path)
    assert source.classes == ("a", "b", "c")
    assert [source.label(i) for i in range(2)] == [0, 2]


def test_hidden_and_other_files_are_ignored(tmp_path):
    fill(tmp_path, "a/1.png", "a/.2.png", ".git/3.png", "__MACOSX/4.png")
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "readme.md").write_text("no image")
    source = open_source(tmp_path)
    assert [source.key(i) for i in range(len(source))] == ["a/1"]


def test_images_alone_have_no_labels(tmp_path):
    source = open_source(fill(tmp_path, "b 2.png", "-b 10.png"))
    assert not source.labelled
    assert source.classes is None
    assert [sample.label for sample in source] == [None, None]


@pytest.mark.parametrize(
    ("names", "example"),
    [
        (("train/cat/1.png", "train/dog/1.png", "val/cat/1.png", "val/dog/1.png"), "val"),
        (("training/cat/1.png", "Validation/cat/deep/1.png"), "Validation"),
        (("train2017/a/1.png", "test2017/a/1.png", "notes/b/1.png"), "test2017"),
        (("ILSVRC_img_train/a/1.png", "ILSVRC_img_val/a/1.png"), "ILSVRC_img_val"),
        (("train/cat/1.png", "train/dog/1.png"), "train"),
    ],
)
def test_splits_are_no_classes(tmp_path, names, example):
    root = fill(tmp_path / "photos", *names)
    with pytest.raises(DataError, match=rf"holds the split.*name one: {root / example}"):
        open_source(root)
    assert len(open_source(root / example)) >= 1


@pytest.mark.parametrize(
    "names",
    [
        ("train/1.png", "test/1.png", "car/1.png"),
        ("train/1.png", "val/1.png"),
        ("train/steam/1.png", "car/1.png"),
        ("train/steam/1.png", "plane/jet/1.png"),
        ("trainer/a/1.png", "contest/a/1.png"),
    ],
)
def test_a_class_may_be_called_like_a_split(tmp_path, names):
    assert open_source(fill(tmp_path, *names)).classes == tuple(
        sorted({name.partition("/")[0] for name in names})
    )


def test_images_beside_class_folders_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"got both \(x\.png beside a/\)"):
        open_source(fill(tmp_path, "a/1.png", "x.png"))


@pytest.mark.parametrize("names", [[], ["a"]])
def test_a_directory_without_images_is_refused(tmp_path, names):
    for name in names:
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match="images, got none"):
        open_source(tmp_path)


def test_a_link_to_a_folder_above_ends(tmp_path):
    fill(tmp_path, "a/1.png")
    try:
        (tmp_path / "a" / "again").symlink_to(tmp_path / "a", target_is_directory=True)
    except OSError:
        pytest.skip("links are not allowed here")
    assert len(open_source(tmp_path)) == 1


def test_the_fingerprint_sees_names_times_and_bytes(tmp_path):
    source = open_source(fill(tmp_path, "a/1.png", "a/2.png"))
    before, bytes_before = source.describe(), source.describe(content=True)
    assert before["kind"] == "folder"
    assert before["count"] == 2
    assert Path(before["path"]).is_absolute()
    os.utime(tmp_path / "a" / "1.png", ns=(0, 1))
    assert source.describe()["fingerprint"] != before["fingerprint"]
    assert source.describe(content=True) == bytes_before
    Image.new("RGB", (4, 3), "blue").save(tmp_path / "a" / "1.png")
    assert source.describe(content=True) != bytes_before


def test_the_fingerprint_sees_names(tmp_path):
    source = open_source(fill(tmp_path, "a/1.png"))
    before = source.describe()["fingerprint"]
    (tmp_path / "a" / "1.png").rename(tmp_path / "a" / "0.png")
    assert open_source(tmp_path).describe()["fingerprint"] != before


def test_positions_outside_are_index_errors(tmp_path):
    source = open_source(fill(tmp_path, "a/1.png"))
    with pytest.raises(IndexError):
        source[1]
    with pytest.raises(IndexError):
        source[-1]


def test_nothing_there_and_unknown_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="got nothing there"):
        open_source(tmp_path / "missing")
    (tmp_path / "data.csv").write_text("1,2")
    with pytest.raises(DataError, match=r"got data\.csv"):
        open_source(tmp_path / "data.csv")
    with pytest.raises(DataError, match="source format: expected one of folder, npz, idx"):
        open_source(tmp_path, format="zip")


def test_files_that_are_not_read_are_counted(tmp_path):
    fill(tmp_path, "a/1.png", "b/deep/2.jpg")
    for name in ("a/IMG_1.HEIC", "b/deep/x.heic", "b/y.gif", "b/raw", "a/Thumbs.db", "b/.z.gif"):
        (tmp_path / name).write_bytes(b"no image")
    source = open_source(tmp_path)
    assert len(source) == 2
    assert source.left_out.count == 4
    assert dict(source.left_out.endings) == {".heic": 2, ".gif": 1, "without an ending": 1}
    assert source.left_out.first == "a/IMG_1.HEIC"
    assert str(source.left_out) == (
        "4 files are not read (2 .heic, 1 .gif, 1 without an ending; the first: a/IMG_1.HEIC); "
        "convert images among them to PNG or JPEG"
    )


def test_what_is_read_leaves_nothing_out(tmp_path):
    fill(tmp_path, "a/1.png")
    (tmp_path / "desktop.ini").write_text("")
    assert open_source(tmp_path).left_out.count == 0


def test_a_folder_of_other_files_says_which(tmp_path):
    for number in range(6):
        (tmp_path / f"{number}.x{number}").write_text("")
    with pytest.raises(DataError, match=r"got none; 6 files are not read \(1 \.x0, .*, 2 others; "):
        open_source(tmp_path)


def test_a_pipe_is_no_image(tmp_path):
    """Opening one waits for whoever writes to it."""
    os.mkfifo(fill(tmp_path, "a.png") / "b.png")
    source = open_source(tmp_path)
    assert source.describe(content=True)["count"] == 2
    with pytest.raises(DataError, match=r"b\.png: expected a regular file"):
        source.read(1)
