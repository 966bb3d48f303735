import json
import pickle
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jataug.data import class_map, open_source, source_labels
from jataug.errors import DataError, MissingExtra

datasets = pytest.importorskip("datasets", reason="the extra hf is not installed")
NAMES = ["cat", "dog", "eel"]


@pytest.fixture
def rows(images, encoded):
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)}
    )
    values = {
        "image": [{"bytes": encoded(image), "path": None} for image in images],
        "label": [k % 3 for k in range(len(images))],
    }
    return datasets.Dataset.from_dict(values, features=features)


@pytest.fixture
def parquet(rows, tmp_path):
    """Two files as `datasets` writes them, of 4 and 3 rows, 2 rows a group."""
    folder = tmp_path / "parquet"
    folder.mkdir()
    for number, part in enumerate((range(4), range(4, 7))):
        rows.select(part).to_parquet(folder / f"train-{number:05d}-of-00002.parquet", batch_size=2)
    return folder


@pytest.fixture
def disk(rows, tmp_path):
    rows.save_to_disk(tmp_path / "disk")
    return tmp_path / "disk"


@pytest.mark.parametrize("kind", ["parquet", "disk"])
def test_tables(request, images, kind):
    path = request.getfixturevalue(kind)
    source = open_source(path)
    assert (len(source), source.labelled, source.classes) == (7, True, tuple(NAMES))
    np.testing.assert_array_equal(np.stack([s.image for s in source]), images)
    assert [s.label for s in source] == [k % 3 for k in range(7)]
    assert source.key(6) == "00006"
    described = source.describe()
    assert (described["kind"], described["count"]) == (kind, 7)
    assert source.describe(content=True)["fingerprint"].startswith("sha256:")
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again.read(5), images[5])


@pytest.mark.parametrize("kind", ["parquet", "disk"])
def test_a_moved_source_has_the_same_fingerprint(request, kind):
    path = request.getfixturevalue(kind)
    before = open_source(path).describe()
    after = open_source(path.rename(path.with_name("moved"))).describe()
    assert after["fingerprint"] == before["fingerprint"]


def test_where(parquet, disk):
    assert open_source(parquet).where(5) == f"{parquet}/train-00001-of-00002.parquet[1]"
    assert open_source(disk).where(5) == f"{disk}[5]"


def test_one_file_and_a_pattern(parquet, images):
    source = open_source(parquet / "train-00001-of-00002.parquet")
    np.testing.assert_array_equal(source[0].image, images[4])
    pattern = parquet / "train-{00000..00001}-of-00002.parquet"
    assert len(open_source(pattern)) == 7


def test_names_decide_what_labels_mean(parquet):
    source = open_source(parquet)
    meaning = class_map(source, 3, {"eel": 0, "dog": 1, "cat": 2})
    assert source_labels(source, meaning, 3).tolist() == [2, 1, 0, 2, 1, 0, 2]
    with pytest.raises(DataError, match=r"classes: expected 5 class names.*got 3"):
        class_map(source, 5, None)


def write(path, features=None, **columns):
    metadata = {"huggingface": json.dumps({"info": {"features": features}})} if features else None
    table = pa.table(columns)
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return path


def test_plain_columns(images, encoded, tmp_path):
    blobs = pa.array([encoded(image) for image in images], pa.binary())
    path = write(
        tmp_path / "p.parquet", img=blobs, labels=pa.array(range(7)), __key__=list("abcdefg")
    )
    source = open_source(path)
    np.testing.assert_array_equal(source[3].image, images[3])
    assert [source.key(k) for k in (0, 6)] == ["a", "g"]
    assert source.label(6) == 6
    assert source.classes is None


def test_images_alone(images, encoded, tmp_path):
    path = write(tmp_path / "p.parquet", x=pa.array([encoded(images[0])], pa.binary()))
    assert not open_source(path).labelled


BLOB = pa.array([b"x"], pa.binary())


@pytest.mark.parametrize(
    ("columns", "features", "message"),
    [
        ({"text": ["a"], "label": [1]}, None, "got none among the columns text, label; name it"),
        ({"left": BLOB, "right": BLOB}, None, r"got several \(left, right\) among the columns"),
        (
            {"image": BLOB, "fine": [1], "coarse": [2]},
            {
                "image": {"_type": "Image"},
                "fine": {"_type": "ClassLabel", "names": ["a"]},
                "coarse": {"_type": "ClassLabel", "names": ["b"]},
            },
            "expected one column of labels, got fine, coarse",
        ),
        ({"image": pa.array([], pa.binary())}, None, "expected at least one row"),
    ],
)
def test_tables_that_are_refused(tmp_path, columns, features, message):
    with pytest.raises(DataError, match=message):
        open_source(write(tmp_path / "p.parquet", features, **columns))


def test_a_row_without_a_label_is_named(tmp_path, images, encoded):
    blobs = pa.array([encoded(image) for image in images[:2]], pa.binary())
    source = open_source(write(tmp_path / "p.parquet", image=blobs, label=pa.array([0, None])))
    assert [source.label(0), source.label(1)] == [0, None]
    with pytest.raises(DataError, match=r"p\.parquet\[1\]: has no label"):
        source_labels(source, class_map(source, 3, None), 3)


def test_images_outside_the_table_are_refused(tmp_path):
    cells = pa.array(
        [{"bytes": None, "path": "/a/b.png"}],
        pa.struct({"bytes": pa.binary(), "path": pa.string()}),
    )
    source = open_source(write(tmp_path / "p.parquet", image=cells))
    with pytest.raises(DataError, match=r"expected an image inside the table, got the path /a/b"):
        source.read(0)


def test_a_damaged_image_is_named(parquet, images):
    path = parquet / "train-00000-of-00002.parquet"
    table = pq.read_table(path)
    cells = table["image"].to_pylist()
    cells[2]["bytes"] = cells[2]["bytes"][:60]
    pq.write_table(table.set_column(0, "image", pa.array(cells, table.schema.field(0).type)), path)
    source = open_source(parquet)
    with pytest.raises(DataError, match=r"00000-of-00002\.parquet\[2\]: expected a whole image"):
        source.read(2)
    np.testing.assert_array_equal(source.read(3), images[3])


def test_files_with_other_columns(parquet, tmp_path):
    write(parquet / "train-00002-of-00002.parquet", other=BLOB)
    with pytest.raises(DataError, match=r"00002\.parquet: expected the columns of train-00000"):
        open_source(parquet)


@pytest.mark.parametrize("harm", ["cut", "text", "empty"])
def test_a_damaged_file(parquet, harm):
    path = parquet / "train-00000-of-00002.parquet"
    data = path.read_bytes()
    path.write_bytes({"cut": data[:-100], "text": b"hello", "empty": b""}[harm])
    with pytest.raises(DataError, match=r"train-00000-of-00002\.parquet: expected a whole Parquet"):
        open_source(parquet)


def test_two_splits(parquet):
    (parquet / "test-00000.parquet").write_bytes(b"")
    with pytest.raises(DataError, match="expected one split, got test, train"):
        open_source(parquet)


def test_a_folder_of_splits(rows, tmp_path):
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk(tmp_path / "d")
    with pytest.raises(
        DataError, match=r"expected one split, got a folder of test, train; .*d/test"
    ):
        open_source(tmp_path / "d")


@pytest.mark.parametrize("name", ["state.json", "dataset_info.json", "arrow"])
def test_a_damaged_disk_folder(disk, name):
    path = next(disk.glob("*.arrow")) if name == "arrow" else disk / name
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(DataError, match="disk: expected a whole data set of `datasets`"):
        open_source(disk)


@pytest.mark.parametrize(
    ("kind", "package", "extra"),
    [("parquet", "pyarrow.parquet", "parquet"), ("disk", "datasets", "hf")],
)
def test_a_missing_package_names_its_extra(request, monkeypatch, kind, package, extra):
    path = request.getfixturevalue(kind)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf'pip install "jataug\[{extra}\]"'):
        open_source(path)


def test_row_groups_are_read_once_and_two_are_held(rows, images, tmp_path, monkeypatch):
    rows.to_parquet(tmp_path / "p.parquet", batch_size=2)
    source = open_source(tmp_path / "p.parquet")
    read = []
    whole = pq.ParquetFile.read_row_group

    def counted(file, number, **options):
        read.append(number)
        return whole(file, number, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    # Threads come over the edge of a group in any order.
    for index in (0, 2, 1, 3, 4, 3, 5, 6):
        np.testing.assert_array_equal(source.read(index), images[index])
    assert read == [0, 1, 2, 3]
    source.read(0)
    assert read == [0, 1, 2, 3, 0]
