import pickle

import numpy as np
import pytest

from jataug.dataset import open_dataset
from jataug.dataset.encode import Spool, png, write_npz
from jataug.errors import DataError
from jataug.generator import generate


@pytest.mark.parametrize("format", ["folder", "npz"])
def test_samples_by_position(session, folder, tmp_path, format):
    (folder / "cat" / "img 3.png").write_bytes(b"")
    options = {"format": format, "on_error": "skip", "batch_size": 2, "shard_size": 4}
    generate(None, folder, tmp_path / "out", session=session, **options)
    dataset = open_dataset(tmp_path / "out")
    assert len(dataset) == 10
    assert [s.index for s in dataset] == [0, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert dataset[9].key == "eel/img 8"
    assert dataset[0].flow is None
    assert dataset.index["counts"]["images"] == 10
    with pytest.raises(IndexError):
        dataset[10]
    with pytest.raises(IndexError):
        dataset[-1]
    copy = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(copy[4].image, dataset[4].image)


def test_an_unfinished_data_set_is_refused(session, folder, tmp_path):
    generate(None, folder, tmp_path / "out", session=session)
    (tmp_path / "out" / "index.json").unlink()
    with pytest.raises(DataError, match="finished data set"):
        open_dataset(tmp_path / "out")


def test_archives_hold_no_date_and_numpy_reads_them(tmp_path):
    rows = np.arange(24, dtype=np.float16).reshape(4, 2, 3)
    for name in ("a", "b"):
        spool = Spool(tmp_path / f"{name}.raw", np.float16, (2, 3))
        spool.append(rows[:1])
        spool.append(rows[1:, ::-1])
        write_npz(tmp_path / f"{name}.npz", {"flow": spool, "keys": np.array(["ü", "bc"])})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["flow"], np.concatenate([rows[:1], rows[1:, ::-1]]))
        assert arrays["keys"].tolist() == ["ü", "bc"]


def test_an_archive_without_rows(tmp_path):
    write_npz(tmp_path / "a.npz", {"x": Spool(tmp_path / "raw", np.uint8, (2, 3))})
    with np.load(tmp_path / "a.npz") as arrays:
        assert arrays["x"].shape == (0, 2, 3)


def test_png_bytes_depend_on_the_pixels_alone():
    image = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    assert png(image) == png(image.copy())
    assert png(image) != png(image[::-1])
    assert png(image[:, :, :1])
