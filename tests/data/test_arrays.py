import gzip
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

from jataug.data import open_source
from jataug.errors import DataError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (13, 5, 4, 3), dtype=np.uint8)
LABELS = np.arange(13) % 4


def idx(array):
    shape = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, 8, array.ndim]) + shape + array.astype(np.uint8).tobytes()


def write_pair(root, suffix="", stem="t10k", count=13):
    pack = gzip.compress if suffix else bytes
    path = root / f"{stem}-images-idx3-ubyte{suffix}"
    path.write_bytes(pack(idx(IMAGES[:, :, :, 0])))
    (root / f"{stem}-labels-idx1-ubyte{suffix}").write_bytes(pack(idx(LABELS[:count])))
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_rows_in_any_order(tmp_path, save):
    save(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    source = open_source(tmp_path / "a.npz")
    assert source.labelled
    assert len(source) == 13
    for index in (0, 12, 3, 4):
        np.testing.assert_array_equal(source[index].image, IMAGES[index])
        assert source[index].label == LABELS[index]
    assert source.key(3) == "00003"
    assert source.describe()["kind"] == "npz"


def test_npz_without_channels_or_labels(tmp_path):
    np.savez(tmp_path / "a.npz", images=IMAGES[..., 0])
    source = open_source(tmp_path / "a.npz")
    assert source[2].image.shape == (5, 4, 1)
    assert source[2].label is None


def test_a_source_survives_pickling_while_it_is_open(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", images=IMAGES)
    source = open_source(tmp_path / "a.npz")
    source.read(5)
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy.read(1), IMAGES[1])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": IMAGES}, "an array named images, got x"),
        ({"images": IMAGES / 255.0}, "images uint8 .* got float64"),
        ({"images": IMAGES[0, 0]}, r"got uint8 \(4, 3\)"),
        ({"images": IMAGES[:0]}, "at least one image, got none"),
        ({"images": IMAGES[:, :0]}, r"got uint8 \(13, 0, 4, 3\)"),
        ({"images": IMAGES, "labels": np.full(13, 2**64 - 1, np.uint64)}, r"label below 2\*\*63"),
        ({"images": np.asfortranarray(IMAGES)}, "C order"),
        ({"images": IMAGES, "labels": LABELS[1:]}, r"labels integer \(13,\), got int64 \(12,\)"),
        ({"images": IMAGES, "labels": LABELS / 2}, "labels integer"),
        (
            {"images": IMAGES, "labels": np.full(13, 2**64 - 1, np.uint64)},
            r"a\.npz\[0\]: expected a label below 2\*\*63, got 18446744073709551615",
        ),
    ],
)
def test_arrays_of_another_kind_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message):
        open_source(tmp_path / "a.npz")


class Trap:
    def __reduce__(self):
        return os.mkdir, ("sprung",)


def test_a_pickle_is_never_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", images=IMAGES, labels=np.array([Trap()], dtype=object))
    with pytest.raises(DataError, match="Python objects"):
        open_source("a.npz")
    assert not (tmp_path / "sprung").exists()


def test_damaged_npz_files_are_refused(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", images=IMAGES)
    data = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "short.npz").write_bytes(data[:-30])
    with pytest.raises(DataError, match=r"short\.npz: expected a whole file"):
        open_source(tmp_path / "short.npz")
    start = zipfile.ZipFile(tmp_path / "a.npz").infolist()[0].compress_size // 2
    (tmp_path / "bad.npz").write_bytes(data[:start] + bytes(40) + data[start + 40 :])
    with pytest.raises(DataError, match=r"bad\.npz"):
        list(open_source(tmp_path / "bad.npz"))


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_with_the_labels_beside_it(tmp_path, suffix):
    source = open_source(write_pair(tmp_path, suffix))
    assert [sample.label for sample in source] == list(LABELS)
    for index in (12, 0, 7):
        np.testing.assert_array_equal(source.read(index), IMAGES[index, :, :, :1])
    assert source.describe()["kind"] == "idx"


def test_a_directory_with_one_idx_pair(tmp_path):
    write_pair(tmp_path, ".gz")
    assert len(open_source(tmp_path)) == 13
    write_pair(tmp_path, ".gz", stem="train")
    with pytest.raises(DataError, match=r"one idx pair, got t10k-images-idx3-ubyte\.gz, train"):
        open_source(tmp_path)


def test_idx_without_labels(tmp_path):
    path = write_pair(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    assert not open_source(path).labelled


def test_idx_files_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(DataError, match="expected 13 labels, got 9"):
        open_source(write_pair(tmp_path, count=9))
    labels = tmp_path / "t10k-labels-idx1-ubyte"
    with pytest.raises(DataError, match="expected an idx3 file"):
        open_source(labels, format="idx")
    (tmp_path / "x-idx3-ubyte").write_bytes(idx(IMAGES[:, :, :, 0])[:-1])
    source = open_source(tmp_path / "x-idx3-ubyte")
    with pytest.raises(DataError, match=r"ubyte\[12\]: expected 20 bytes, got 19"):
        list(source)


def test_a_truncated_gzip_is_refused(tmp_path):
    path = write_pair(tmp_path, ".gz")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"truncated|damaged"):
        list(open_source(path))


def test_fashion_mnist(fashion_mnist):
    source = open_source(fashion_mnist / "t10k-images-idx3-ubyte.gz")
    assert (len(source), source[0].image.shape, source.label(0)) == (10000, (28, 28, 1), 9)
