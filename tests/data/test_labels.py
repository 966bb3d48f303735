import json

import numpy as np
import pytest
from PIL import Image

from jataug.data import class_map, open_source, source_labels
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
        ('{"ant": 3}', r"expected 'ant' in \[0, 3\), got 3"),
        ('{"ant": "0"}', "got '0'"),
        ("{ant", "expected JSON"),
        ('{"ant": 0, "ant": 1, "bee": 2, "cow": 0}', "expected JSON .*'ant' is there twice"),
        ('{"a":' * 100_000, "expected JSON"),
    ],
)
def test_class_files_that_do_not_fit_are_refused(folders, tmp_path, text, message):
    path = tmp_path / "names"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        class_map(folders, 3, path)


def test_a_class_file_that_is_not_there_is_named(folders, tmp_path):
    with pytest.raises(DataError, match=r"no\.txt: expected a readable text file"):
        class_map(folders, 3, tmp_path / "no.txt")


def test_labels_outside_the_model_name_the_sample(array):
    with pytest.raises(DataError, match=r"a\.npz\[2\]: expected a label in \[0, 5\), got 5"):
        labels(array, 5)
    with pytest.raises(DataError, match=r"a\.npz\[3\]: expected a label in \[0, 6\), got -1"):
        labels(array, 6)


def test_a_source_without_labels_says_what_to_do(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((4, 2, 2), np.uint8))
    with pytest.raises(DataError, match="--labels predicted"):
        class_map(open_source(tmp_path / "a.npz"), 3)
