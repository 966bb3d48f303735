import io
import json

import numpy as np
import pytest
from PIL import Image

from jataug.data import class_map, first_classes, open_source, source_labels
from jataug.errors import DataError


@pytest.fixture
def folders(tmp_path):
    for name in ("ant", "bee", "cow"):
        (tmp_path / "s" / name).mkdir(parents=True)
        Image.new("L", (2, 2)).save(tmp_path / "s" / name / "1.png")
    return open_source(tmp_path / "s")


@pytest.fixture
def array(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((4, 2, 2), np.uint8), labels=[0, 1, 5, -1])
    return open_source(tmp_path / "a.npz")


def labels(source, count, classes=None):
    return source_labels(source, class_map(source, count, classes), count).tolist()


def test_as_many_folders_as_classes(folders):
    assert labels(folders, 3) == [0, 1, 2]
    assert class_map(folders, 3).names == {0: "ant", 1: "bee", 2: "cow"}


@pytest.mark.parametrize("count", [2, 4, 1000])
def test_another_number_of_folders_is_refused(folders, count):
    with pytest.raises(DataError, match=f"expected {count} class folders.*got 3; use --classes"):
        class_map(folders, count)


def test_a_text_file_names_the_classes_by_line(folders, tmp_path):
    path = tmp_path / "names.txt"
    path.write_bytes(b"\xef\xbb\xbfcow\r\nzebra\r\nbee\r\nant\r\n\r\n")
    assert labels(folders, 4, path) == [3, 2, 0]
    assert class_map(folders, 4, path).names[1] == "zebra"


def test_json_names_the_class_of_a_folder(folders, tmp_path):
    path = tmp_path / "names.json"
    path.write_text(json.dumps({"ant": 6, "bee": 6, "cow": 9}))
    assert labels(folders, 10, path) == [6, 6, 9]
    assert labels(folders, 10, {"ant": 1, "bee": 2, "cow": 3}) == [1, 2, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ant\nbee\n", "expected 3 lines, one a class, got 2"),
        ("ant\nant\nbee\n", "'ant' twice"),
        ("ant\nbee\ndog\n", "got nothing for 'cow'"),
        ('{"ant": 3}', "'ant': expected at most 2, got 3"),
        ('{"ant": "0"}', "got '0'"),
        ("{ant", "expected JSON"),
        ('{"a":' * 100_000, "expected JSON"),
        ('{"ant": 1' + "0" * 30 + "}", "'ant': expected at most 2, got 1000"),
        ('{"ant": 0, "ant": 1, "bee": 2, "cow": 0}', "expected JSON .*'ant' is there twice"),
    ],
)
def test_class_files_that_do_not_fit_are_refused(folders, tmp_path, text, message):
    path = tmp_path / "names"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        class_map(folders, 3, path)


def test_a_class_file_that_is_not_there_is_named(folders, tmp_path):
    with pytest.raises(DataError, match=r"no\.txt: cannot be read as a text file"):
        class_map(folders, 3, tmp_path / "no.txt")


def test_labels_outside_the_model_name_the_sample(array):
    with pytest.raises(DataError, match=r"a\.npz\[2\]: expected a label in \[0, 5\), got 5"):
        labels(array, 5)


def test_a_sample_without_a_label_is_named(array):
    assert [array.label(index) for index in range(4)] == [0, 1, 5, None]
    with pytest.raises(DataError, match=r"a\.npz\[3\]: has no label .*--labels predicted"):
        labels(array, 6)


@pytest.mark.parametrize("classes", [None, {"ant": 0, "bee": 1, "cow": 2}])
@pytest.mark.parametrize(("label", "message"), [(-1, "has no label"), (7, r"\[0, 3\).*got 7")])
def test_names_give_no_class_to_a_label_that_is_none(tmp_path, classes, label, message):
    source = open_source(named(tmp_path, [0, 2, label]))
    with pytest.raises(DataError, match=rf"p\.parquet\[2\]: .*{message}"):
        labels(source, 3, classes)
    meaning = class_map(source, 3, {"ant": 2, "bee": 1, "cow": 0})
    assert [meaning.of(source.label(index)) for index in range(2)] == [2, 0]
    if label == -1:
        assert meaning.of(source.label(2)) is None
    else:
        with pytest.raises(DataError, match=r"\[0, 3\).*got 7"):
            meaning.of(source.label(2))


def named(root, values):
    """A Parquet file whose labels have names, as `datasets` writes it."""
    pa = pytest.importorskip("pyarrow", reason="pyarrow, of jataug[parquet], is not installed")
    import pyarrow.parquet

    blob = io.BytesIO()
    Image.new("L", (2, 2)).save(blob, "PNG")
    names = {"_type": "ClassLabel", "names": ["ant", "bee", "cow"]}
    about = json.dumps({"info": {"features": {"image": {"_type": "Image"}, "label": names}}})
    cells = pa.array([{"bytes": blob.getvalue(), "path": None}] * len(values))
    table = pa.table({"image": cells, "label": pa.array(values, pa.int64())})
    table = table.replace_schema_metadata({"huggingface": about})
    pyarrow.parquet.write_table(table, root / "p.parquet")
    return root / "p.parquet"


@pytest.mark.parametrize("values", [[-1, -1], [None, None]])
def test_a_source_where_no_sample_has_a_label_is_unlabelled(tmp_path, values):
    source = open_source(named(tmp_path, values))
    assert not source.labelled
    with pytest.raises(DataError, match="--labels predicted"):
        class_map(source, 3)
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 2, 2), np.uint8), labels=[-1, -1])
    assert not open_source(tmp_path / "a.npz").labelled


def numbered(root, *names):
    for name in names:
        (root / name).mkdir(parents=True)
        Image.new("L", (2, 2)).save(root / name / "1.png")
    return open_source(root)


def test_two_orders_have_to_be_told_apart(tmp_path):
    source = numbered(tmp_path, *map(str, range(1, 12)))
    with pytest.raises(DataError) as error:
        class_map(source, 11)
    for said in ("0 1, 1 2, 2 3", "0 1, 1 10, 2 11", "--class-order sorted", "--classes"):
        assert said in str(error.value)
    ordered = class_map(source, 11, order="sorted")
    plain = sorted(source.classes)  # as torchvision's ImageFolder numbers them
    assert dict(ordered.names) == dict(enumerate(plain))
    assert source_labels(source, ordered, 11).tolist() == [plain.index(n) for n in source.classes]
    assert ordered.given == {name: number for number, name in enumerate(plain)}
    natural = class_map(source, 11, order="natural")
    assert source_labels(source, natural, 11).tolist() == list(range(11))
    assert natural.given is None
    given = {str(k): 11 - k for k in range(1, 12)}
    assert labels(source, 11, given) == list(range(10, -1, -1))


def test_the_orders_are_shown_where_they_differ(tmp_path):
    source = numbered(tmp_path, *"abcdefgh", "i9", "i10")
    with pytest.raises(DataError, match=r"7 h, 8 i9, 9 i10, .* 7 h, 8 i10, 9 i9;"):
        class_map(source, 10)


@pytest.mark.parametrize("order", [None, "natural", "sorted"])
def test_where_the_orders_agree_nothing_has_to_be_said(folders, order):
    found = class_map(folders, 3, order=order)
    assert (found.labels, dict(found.names), found.given) == (
        None, {0: "ant", 1: "bee", 2: "cow"}, None
    )  # fmt: skip


def test_an_order_that_has_no_effect_is_refused(folders, array):
    with pytest.raises(DataError, match="class_order: expected natural or sorted, got 'reverse'"):
        class_map(folders, 3, order="reverse")
    with pytest.raises(DataError, match=r"class_order: .*--classes or"):
        class_map(folders, 3, {"ant": 0, "bee": 1, "cow": 2}, "sorted")
    with pytest.raises(DataError, match="class_order: expected a source of class folders"):
        class_map(array, 6, order="sorted")


def test_names_by_number_are_read_as_classes_too(folders, tmp_path):
    path = tmp_path / "classes.json"
    path.write_text(json.dumps({"0": "cow", "1": "ant", "2": "bee"}))
    assert labels(folders, 3, path) == [1, 2, 0]
    path.write_text(json.dumps({"0": "cow", "1": "ant", "2": "ant"}))
    with pytest.raises(DataError, match="a name stands there twice"):
        labels(folders, 3, path)


def test_the_first_classes_in_a_line():
    assert first_classes(None) == ""
    assert first_classes({1: "dog", 0: "cat"}) == "classes: 0 cat, 1 dog"
    many = {number: f"n{number}" for number in range(1000)}
    assert first_classes(many) == "classes: 0 n0, 1 n1, 2 n2, 3 n3, 4 n4, ... (1000)"
    assert first_classes({0: "a\nb", 1: "\udcff"}) == "classes: 0 a\\nb, 1 \\udcff"


def test_a_source_without_labels_says_what_to_do(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((4, 2, 2), np.uint8))
    with pytest.raises(DataError, match="--labels predicted"):
        class_map(open_source(tmp_path / "a.npz"), 3)
