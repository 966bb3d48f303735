"""What every format promises: the same content, the same bytes, one batch in memory."""

import io
import itertools
import json
import sys
import tarfile
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from jataug.data import open_source
from jataug.dataset import open_dataset, verify
from jataug.dataset.formats import FORMATS
from jataug.dataset.formats.tar import stem
from jataug.dataset.plan import FORMATS as PLANNED
from jataug.errors import DataError, MissingExtra
from jataug.generator import generate

ALL = list(FORMATS)
PLACES = {"file", "row", "member", "offset", "size", "sha256"}


def run(session, source, destination, **options):
    options = {"batch_size": 2, "shard_size": 4, **options}
    return generate(None, source, destination, session=session, **options)


def test_every_module_has_the_same_names():
    assert tuple(FORMATS) == PLANNED
    for module in FORMATS.values():
        assert {"CARD", "LOADED", "PICTURES", "Reader", "Writer", "prepare"} <= set(module.__all__)


def test_all_formats_hold_the_same(new_session, folder, tmp_path):
    for format in ALL:
        out = tmp_path / format
        run(new_session(), folder, out, format=format, save_flow=True, save_float=True)
    first = open_dataset(tmp_path / "folder")
    for other in (open_dataset(tmp_path / format) for format in ALL[1:]):
        assert len(other) == len(first) == 11
        for one, two in zip(first, other, strict=True):
            np.testing.assert_array_equal(two.image, one.image)
            np.testing.assert_array_equal(two.flow, one.flow)
            assert two.flow.dtype == np.float16
            same = {name: value for name, value in one.record.items() if name not in PLACES}
            assert {k: v for k, v in two.record.items() if k not in PLACES} == same


@pytest.mark.parametrize("format", ALL)
@pytest.mark.parametrize("extra", [True, False])
def test_what_was_generated_verifies(session, folder, tmp_path, format, extra):
    run(session, folder, tmp_path / "out", format=format, save_flow=extra, save_float=extra)
    report = verify(tmp_path / "out", model=session.predict)
    assert report.problems == ()
    assert report.images == 11
    assert report.budget == ("checked" if extra else "bounded")
    assert report.changed_predictions == 0


class Stop(BaseException):
    pass


@pytest.mark.parametrize("format", ALL)
@pytest.mark.parametrize("calls", [1, 3, 5])
def test_a_stopped_run_ends_in_the_same_bytes(
    new_session, folder, tmp_path, files_of, format, calls
):
    options = {"format": format, "save_flow": True, "save_float": True}
    run(new_session(), folder, tmp_path / "once", **options)
    session = new_session()
    whole = session.attack

    def attack(*args, **given):
        if len(session.calls) >= calls:
            raise Stop
        return whole(*args, **given)

    session.attack = attack
    with pytest.raises(Stop):
        run(session, folder, tmp_path / "twice", **options)
    run(new_session(), folder, tmp_path / "twice", **options)
    assert files_of(tmp_path / "twice") == files_of(tmp_path / "once")


@pytest.mark.parametrize("format", ALL)
def test_workers_end_in_the_same_bytes(new_session, folder, tmp_path, files_of, format):
    run(new_session(), folder, tmp_path / "one", format=format)
    for part in ("2/2", "1/2"):
        run(new_session(), folder, tmp_path / "two", format=format, shard=part)
    assert files_of(tmp_path / "two") == files_of(tmp_path / "one")


@pytest.mark.parametrize("format", ["npz", "tar", "parquet"])
@pytest.mark.parametrize("harm", ["remove", "change"])
def test_a_damaged_shard_is_made_again(new_session, folder, tmp_path, files_of, format, harm):
    run(new_session(), folder, tmp_path / "out", format=format)
    before = files_of(tmp_path / "out")
    path = tmp_path / "out" / "images" / f"shard-00001.{format}"
    if harm == "remove":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-3])
    assert run(new_session(), folder, tmp_path / "out", format=format).generated == 4
    assert files_of(tmp_path / "out") == before


@pytest.mark.parametrize("format", ALL)
def test_memory_holds_a_batch_and_not_a_shard(new_session, tmp_path, format):
    noise = np.random.default_rng(1).integers(0, 256, (1024, 40, 40, 3), np.uint8)
    peaks = {}
    # The first run imports what it needs, which is memory too.
    for count in (8, 64, 1024):
        source = tmp_path / f"{count}.npz"
        np.savez(source, images=noise[:count], labels=np.zeros(count, int))
        session = new_session(image_shape=(3, 40, 40))
        session.predict(noise[:1])
        tracemalloc.start()
        options = {"batch_size": 8, "shard_size": 1024, "save_float": True, "format": format}
        generate(None, source, tmp_path / f"{format}{count}", session=session, **options)
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    # The other 960 images are 18.4 MB as float32, 4.6 MB as PNG. Their records are 0.9 MB, and the
    # batches that wait for a slow disk, five of 0.3 MB at most, may all come in the longer run.
    assert peaks[1024] - peaks[64] < 3_000_000


@pytest.mark.parametrize("format", ALL)
def test_a_shard_without_an_image(new_session, folder, tmp_path, format):
    for path in (folder / "cat").iterdir():
        path.write_bytes(b"")
    report = run(new_session(), folder, tmp_path / "out", format=format, on_error="skip")
    assert (report.images, len(report.skipped)) == (7, 4)
    assert verify(tmp_path / "out").problems == ()
    assert [sample.index for sample in open_dataset(tmp_path / "out")] == list(range(4, 11))


@pytest.mark.parametrize("format", ALL)
@pytest.mark.parametrize("named", [True, False])
def test_a_data_set_is_a_source(session, folder, npz, tmp_path, format, named):
    run(session, folder if named else npz, tmp_path / "out", format=format)
    source = open_source(tmp_path / "out")
    stored = open_dataset(tmp_path / "out")
    assert (len(source), source.labelled) == (11, True)
    assert source.classes == (("cat", "dog", "eel") if named else None)
    for sample, other in zip(source, stored, strict=True):
        np.testing.assert_array_equal(sample.image, other.image)
        assert (sample.label, sample.key) == (other.label, other.key)
    assert str(tmp_path / "out" / "images") in source.where(3)
    assert source.describe()["kind"] == "dataset"
    again = run(session, tmp_path / "out", tmp_path / "again", format=format)
    assert again.images == 11
    assert verify(tmp_path / "again").ok


@pytest.mark.parametrize("format", ALL)
def test_an_unfinished_data_set_is_no_source(session, folder, tmp_path, format):
    run(session, folder, tmp_path / "out", format=format, shard="1/2")
    with pytest.raises(DataError, match=r"expected a finished data set, got one without index"):
        open_source(tmp_path / "out")


def test_names_of_classes_in_their_own_order(session, npz, tmp_path):
    """Class folders would sort the names; the records know better."""
    run(session, npz, tmp_path / "out", classes={"zebra": 0, "ape": 1, "newt": 2})
    source = open_source(tmp_path / "out")
    assert source.classes == ("zebra", "ape", "newt")
    assert [source.label(k) for k in range(4)] == [0, 1, 2, 0]


def test_a_missing_package_names_its_extra(session, folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtra, match=r'pip install "jataug\[parquet\]"'):
        run(session, folder, tmp_path / "out", format="parquet")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("format", ["folder", "tar", "parquet"])
def test_images_that_are_no_pictures(new_session, tmp_path, format):
    np.savez(tmp_path / "s.npz", images=np.zeros((3, 8, 8, 2), np.uint8), labels=np.zeros(3, int))
    session = new_session(image_shape=(2, 8, 8))
    with pytest.raises(DataError, match=f"format {format}: expected 1 or 3 channels, got 2; use"):
        run(session, tmp_path / "s.npz", tmp_path / "out", format=format)
    run(session, tmp_path / "s.npz", tmp_path / "out", format="npz")
    assert verify(tmp_path / "out").ok
    assert not (tmp_path / "out" / "preview.png").exists()


def test_samples_of_one_name_are_refused_in_a_tar(session, folder, tmp_path):
    image = Image.open(folder / "cat" / "img 0.png")
    image.save(folder / "cat" / "img 0.webp")
    with pytest.raises(DataError, match=r"img 0\.png and .*img 0\.webp: expected images"):
        run(session, folder, tmp_path / "out", format="tar")
    for format in ("npz", "parquet"):
        assert run(session, folder, tmp_path / format, format=format).images == 12


@pytest.mark.parametrize("key", ["/etc/a", "../a", "x/../../a", "x//a"])
def test_a_name_that_is_no_plain_path(session, tmp_path, key):
    """Of a sample in a tar: the destination is written there and nowhere else."""
    picture = io.BytesIO()
    Image.new("RGB", (12, 10)).save(picture, "PNG")
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for suffix, data in (("png", picture.getvalue()), ("cls", b"1")):
            member = tarfile.TarInfo(f"{key}.{suffix}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    for format in ("folder", "tar"):
        with pytest.raises(DataError, match=r"plain name, got .*; rename it, or use npz"):
            run(session, tmp_path / "s.tar", tmp_path / format, format=format)
        assert not (tmp_path / format).exists()
    assert run(session, tmp_path / "s.tar", tmp_path / "npz", format="npz").images == 1


def test_the_version_of_pyarrow_is_recorded(session, folder, tmp_path):
    import pyarrow

    run(session, folder, tmp_path / "out", format="parquet")
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert [e["pyarrow"] for e in index["environments"]] == [pyarrow.__version__]


def test_row_groups_are_batches(session, folder, tmp_path):
    import pyarrow.parquet as pq

    run(session, folder, tmp_path / "out", format="parquet", batch_size=3, shard_size=6)
    file = pq.ParquetFile(tmp_path / "out" / "images" / "shard-00000.parquet")
    assert [file.metadata.row_group(k).num_rows for k in range(2)] == [3, 3]


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("cat/img 0", "cat/img 0"),
        ("a.b/c.d.e", "a.b/c%2Ed%2Ee"),
        ("__x__/y", "%5F_x__/y"),
        ("50%", "50%25"),
        ("../x", "%2E%2E/x"),
        ("./x", "%2E/x"),
        ("/x", "%2F/x"),
        ("x/", "x/%2F"),
        ("ä/ß", "ä/ß"),
    ],
)
def test_names_in_a_tar(key, name):
    assert stem(key) == name


def test_two_keys_never_get_one_name():
    parts = ["a", "a.b", "%2E", ".", "..", "", "__m__", "%5F_m__", "%2F", "%252F", "_m__"]
    keys = ["/".join(pair) for pair in itertools.product(parts, repeat=2)] + parts
    assert len({stem(key) for key in keys}) == len(set(keys))
