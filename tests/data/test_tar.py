import gc
import pickle
import tarfile
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from jataug.data import class_map, open_source, source_labels, tar_members
from jataug.errors import DataError


@pytest.mark.parametrize("name", ["", "s-{0..1}.tar"])
def test_shards(tars, images, name):
    source = open_source(tars / name)
    assert (len(source), source.labelled, source.classes) == (7, True, None)
    np.testing.assert_array_equal(np.stack([s.image for s in source]), images)
    assert [s.label for s in source] == [k % 3 for k in range(7)]
    assert [s.key for s in source] == [f"dir/{k:03d}" for k in range(7)]
    assert source.where(5) == f"{tars}/s-1.tar:dir/005.png"
    described = source.describe()
    assert (described["kind"], described["count"]) == ("tar", 7)
    assert described["fingerprint"].startswith("stat:")
    assert source.describe(content=True)["fingerprint"].startswith("sha256:")


def test_one_shard(tars, images):
    source = open_source(tars / "s-1.tar")
    np.testing.assert_array_equal(source[2].image, images[6])


def test_threads_and_pickle(tars, images):
    source = pickle.loads(pickle.dumps(open_source(tars)))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(source.read, [6, 0, 3, 1, 5, 2, 4] * 5))
    np.testing.assert_array_equal(np.stack(found), images[[6, 0, 3, 1, 5, 2, 4] * 5])


def test_another_fingerprint_after_a_change(tars):
    before = open_source(tars).describe(content=True)["fingerprint"]
    data = (tars / "s-1.tar").read_bytes()
    (tars / "s-1.tar").write_bytes(data.replace(b"a caption", b"A caption", 1))
    assert open_source(tars).describe(content=True)["fingerprint"] != before


def test_a_moved_source_has_the_same_fingerprint(tars):
    before = open_source(tars).describe()
    moved = tars.rename(tars.with_name("moved"))
    after = open_source(moved).describe()
    assert after["fingerprint"] == before["fingerprint"]
    assert after["path"] != before["path"]
    pattern = open_source(moved / "s-{0..1}.tar").describe()
    assert pattern["fingerprint"] == before["fingerprint"]


def test_jpeg_and_webp(images, encoded, write_tar, tmp_path):
    members = {
        "a.JPG": encoded(images[0], "JPEG"),
        "b.webp": encoded(images[1], "WEBP", lossless=True),
    }
    source = open_source(write_tar(tmp_path / "s.tar", members))
    assert not source.labelled
    np.testing.assert_array_equal(source[1].image, images[1])
    assert source[0].image.shape == images[0].shape


def test_keys_of_several_shards(images, encoded, write_tar, tmp_path):
    for name in ("s-0", "s-1"):
        write_tar(tmp_path / f"{name}.tar", {"0.png": encoded(images[0]), "0.cls": b"1"})
    source = open_source(tmp_path)
    assert [s.key for s in source] == ["s-0/0", "s-1/0"]
    assert source.where(1) == f"{tmp_path}/s-1.tar:0.png"


def test_members_that_are_no_samples(images, encoded, write_tar, tmp_path):
    members = {
        "__meta__/x.json": b"{}",
        "README": b"hello",
        "._0.png": b"resource fork",
        "./0.png": encoded(images[0]),
        "./0.seg.png": b"a mask",
        "dir.v2/1.png": encoded(images[1]),
        "2.txt": b"no image",
    }
    source = open_source(write_tar(tmp_path / "s.tar", members))
    assert [source.key(k) for k in range(3)] == ["0", "dir.v2/1", "2"]
    np.testing.assert_array_equal(source[1].image, images[1])
    with pytest.raises(DataError, match=r"s\.tar:2: expected an image in the sample, got none"):
        source.read(2)


def test_long_and_foreign_names(images, encoded, write_tar, tmp_path):
    name = "ordner/" + "ä" * 150
    source = open_source(write_tar(tmp_path / "s.tar", {f"{name}.png": encoded(images[0])}))
    assert source.key(0) == name
    np.testing.assert_array_equal(source[0].image, images[0])


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({}, "expected jpeg, jpg, png, webp, got nothing"),
        ({"a.txt": b"x", "b.txt": b"y"}, "got 2 samples without one"),
        ({"a.png": b"x", "a.jpg": b"y"}, "a: expected one image a sample, got png and jpg"),
        ({"a.png": b"x", "a.cls": b"cat"}, r"a\.cls: expected an integer label, got 'cat'"),
        ({"a.png": b"x", "a.json": b"{"}, r"a\.json: expected JSON"),
        ({"a.png": b"x", "a.json": b"[" * 100_000}, r"a\.json: expected JSON"),
        ({"a.png": b"x", "a.json": b'{"label": "cat"}'}, "expected an integer label, got 'cat'"),
        ({"a.png": b"x", "a.cls": b"9" * 30}, r"a\.png: expected an integer label .*got 999"),
        ({"a.png": b"x", "a.json": b'{"cls": %s}' % (b"9" * 30)}, "integer label .*got 999"),
        ({"a.png": b"x", "a.json": b'{"cls":' * 100_000}, r"a\.json: expected JSON"),
        ({"a.png": b"x", "a.cls": b"-2"}, "expected an integer label from 0 .*got -2"),
        (
            {"a.png": b"", "b.png": b"", "a.cls": b"1"},
            "a: expected the files of a sample one after",
        ),
    ],
)
def test_shards_that_are_refused(write_tar, tmp_path, members, message):
    with pytest.raises(DataError, match=message):
        open_source(write_tar(tmp_path / "s.tar", members))


@pytest.mark.parametrize(
    "unlabelled", [{}, {"b.cls": b"-1"}, {"b.json": b'{"label": null}'}, {"b.json": b"{}"}]
)
def test_a_sample_without_a_label_is_named_where_labels_are_used(
    write_tar, tmp_path, encoded, images, unlabelled
):
    data = encoded(images[0])
    members = {"a.png": data, "a.cls": b"1", "b.png": data, **unlabelled}
    source = open_source(write_tar(tmp_path / "s.tar", members))
    assert source.labelled
    assert [sample.label for sample in source] == [1, None]
    with pytest.raises(DataError, match=r"s\.tar:b\.png: has no label"):
        source_labels(source, class_map(source, 3), 3)


def test_names_with_dots_say_where_they_are_cut(write_tar, tmp_path, encoded, images):
    data = encoded(images[0])
    members = {"d/a.2024.jpg": data, "d/b.png": data}
    source = open_source(write_tar(tmp_path / "s.tar", members))
    with pytest.raises(DataError) as error:
        source.read(0)
    del members["d/b.png"]
    with pytest.raises(DataError) as refused:
        open_source(write_tar(tmp_path / "s.tar", members))
    for said in (str(error.value), str(refused.value)):
        assert "d/a.2024.jpg" in said
        assert "first dot" in said
        assert "a_2024.jpg" in said


def test_a_damaged_image_is_named_by_shard_and_key(tars, images):
    data = bytearray((tars / "s-0.tar").read_bytes())
    place = data.find(b"IDAT")
    data[place + 10] ^= 0xFF
    (tars / "s-0.tar").write_bytes(data)
    source = open_source(tars)
    with pytest.raises(DataError, match=r"s-0\.tar:dir/000\.png: expected a whole image"):
        source.read(0)
    np.testing.assert_array_equal(source.read(1), images[1])


@pytest.mark.parametrize("lost", [1, 700, 9000, 10240, 11000, 13000])
def test_a_truncated_tar_is_named_with_the_offset(tars, lost):
    path = tars / "s-0.tar"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - lost])
    end = whole.rstrip(b"\0")
    if len(whole) - lost >= -(-len(end) // 512) * 512 + 512:
        assert len(open_source(path)) == 4  # only padding after the end mark is gone
        return
    with pytest.raises(DataError, match=r"s-0\.tar.* at offset [0-9]+.*truncated"):
        open_source(path)


def test_a_cut_image_is_named(tars):
    path = tars / "s-0.tar"
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(DataError, match=r"dir/000\.png: expected [0-9]+ bytes at offset 512"):
        open_source(path)


def test_one_header_at_a_time_is_in_memory(tars):
    held = []
    for _ in tar_members(tars / "s-0.tar"):
        held.append(sum(type(found) is tarfile.TarInfo for found in gc.get_objects()))
    assert len(held) == 12
    assert max(held) <= held[0] + 1


def test_every_cut_is_noticed_or_harmless(tars):
    path = tars / "s-0.tar"
    whole = path.read_bytes()
    end = -(-len(whole.rstrip(b"\0")) // 512) * 512 + 512
    for size in range(0, end, 97):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"s-0\.tar"):
            open_source(path)


def test_a_damaged_header_is_named_with_the_offset(tars):
    path = tars / "s-0.tar"
    data = bytearray(path.read_bytes())
    data[1024 + 150] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"s-0\.tar: .*damaged header at offset 1024"):
        open_source(path)


def test_compressed_tars_are_refused(images, encoded, tmp_path):
    import gzip

    for name in ("s.tar.gz", "s.tar"):
        (tmp_path / name).write_bytes(gzip.compress(bytes(1024)))
    with pytest.raises(DataError, match="got a compressed one; decompress it"):
        open_source(tmp_path / "s.tar.gz")
    with pytest.raises(DataError, match=r"expected a plain tar archive.*decompress"):
        open_source(tmp_path / "s.tar")


def test_tars_beside_images_are_refused(tars, images, encoded):
    (tars / "photo.png").write_bytes(encoded(images[0]))
    with pytest.raises(DataError, match=r"expected one kind of source, got tar and images .photo"):
        open_source(tars)


def test_opening_keeps_no_image_in_memory(write_tar, tmp_path, encoded):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    picture = encoded(noise)  # 12 kB, so 3 MB in all
    members = {
        f"{k:04d}.{kind}": picture if kind == "png" else b"1"
        for k in range(250)
        for kind in ("png", "cls")
    }
    path = write_tar(tmp_path / "s.tar", members)
    del members
    tracemalloc.start()
    source = open_source(path)
    for index in range(len(source)):
        source.read(index)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(source) == 250
    assert kept < 300_000
    assert peak < 1_000_000
