import pytest

from jataug.data.readers.shards import expand, one_split, shard_files
from jataug.errors import DataError


def test_patterns():
    assert [p.name for p in expand("a/s-{08..11}.tar")] == [
        "s-08.tar",
        "s-09.tar",
        "s-10.tar",
        "s-11.tar",
    ]
    assert [str(p) for p in expand("{x,y}-{0..1}.tar")] == [
        "x-0.tar",
        "x-1.tar",
        "y-0.tar",
        "y-1.tar",
    ]


@pytest.mark.parametrize("inside", ["9..11", "3..1", "", "a..c", "x"])
def test_patterns_that_are_none(inside):
    with pytest.raises(DataError, match=r"expected a range with ends of one length"):
        expand(f"s-{{{inside}}}.tar")


def test_a_pattern_with_a_missing_file(tmp_path):
    for number in (0, 2):
        (tmp_path / f"s-{number}.tar").touch()
    with pytest.raises(DataError, match=r"expected 3 files, got 2; s-1\.tar is missing"):
        shard_files(tmp_path / "s-{0..2}.tar", ".tar")


def test_files_of_a_folder_in_natural_order(tmp_path):
    for name in ("s-10.tar", "s-9.tar", ".hidden.tar", "notes.txt", "S-11.TAR"):
        (tmp_path / name).touch()
    found = [path.name for path in shard_files(tmp_path, ".tar")]
    assert found == sorted(found, key=lambda name: (name[0], int(name[2:-4])))
    assert set(found) == {"s-9.tar", "s-10.tar", "S-11.TAR"}


@pytest.mark.parametrize(
    "names",
    [
        ("train-0.tar", "test-0.tar"),
        ("imagenet_train_0.tar", "imagenet_test_0.tar"),
        ("my-test-set.tar", "my-test-set-train.tar"),
    ],
)
def test_other_names_of_splits(tmp_path, names):
    with pytest.raises(DataError, match=r"expected one split, got .*test.*name the files of one"):
        one_split(tmp_path, [tmp_path / name for name in names])


def test_the_pattern_of_one_split_is_one_that_is_there(tmp_path):
    files = [tmp_path / f"{name}-{k:03d}-of-2.tar" for name in ("train", "val") for k in range(2)]
    with pytest.raises(DataError) as error:
        one_split(tmp_path, files)
    pattern = str(error.value).partition("such as ")[2].partition(", or")[0]
    assert expand(pattern) == files[:2]


def test_one_split_in_every_name_is_one_source(tmp_path):
    one_split(tmp_path, [tmp_path / f"imagenet-val-{k}.tar" for k in range(3)])
    one_split(tmp_path, [tmp_path / name for name in ("latest-0.tar", "trainer-0.tar")])


def test_several_splits_are_not_one_source(tmp_path):
    files = [tmp_path / name for name in ("train-0.tar", "test-0.tar")]
    with pytest.raises(DataError, match="expected one split, got test, train"):
        one_split(tmp_path, files)
    one_split(tmp_path, [tmp_path / "trains-0.tar", tmp_path / "test-0.tar"])
