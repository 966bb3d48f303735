import json

import numpy as np
import pytest
from PIL import Image

import jataug
from jataug.dataset import Progress, open_dataset
from jataug.errors import DataError
from jataug.generator import generate


def run(session, source, destination, **options):
    options = {"batch_size": 4, "shard_size": 5, **options}
    return generate(None, source, destination, session=session, **options)


def test_class_folders_keep_their_paths(session, folder, tmp_path):
    report = run(session, folder, tmp_path / "out")
    assert report.complete
    assert (report.images, report.generated, report.planned) == (11, 11, 11)
    names = sorted(
        p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out/images").rglob("*.png")
    )
    assert names[:2] == ["images/cat/img 0.png", "images/cat/img 3.png"]
    assert len(names) == 11
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "README.md",
        "classes.json",
        "images",
        "index.json",
        "plan.json",
        "preview.png",
        "records",
    ]


def test_the_images_are_those_of_the_session(session, npz, tmp_path):
    run(session, npz, tmp_path / "out", seed=3, epoch=2)
    images, indices = np.load(npz)["images"], np.arange(11)
    result = session.attack(images, indices % 3, indices, seed=3, epoch=2)
    dataset = open_dataset(tmp_path / "out")
    np.testing.assert_array_equal(np.stack([s.image for s in dataset]), result.adversarial)
    assert [s.target for s in dataset] == result.target.tolist()
    records = [s.record for s in dataset]
    assert [r["success"] for r in records] == result.success.tolist()
    assert [np.float32(r["loss"]) for r in records] == result.loss.tolist()
    assert [r["adversarial_prediction"] for r in records] == result.prediction.tolist()
    assert [r["clean_prediction"] for r in records] == session.predict(images).argmax(-1).tolist()


def test_both_formats_hold_the_same(session, folder, tmp_path):
    options = {"save_flow": True, "save_float": True}
    run(session, folder, tmp_path / "a", **options)
    run(session, folder, tmp_path / "b", format="npz", **options)
    first, second = open_dataset(tmp_path / "a"), open_dataset(tmp_path / "b")
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.flow, other.flow)
        assert (one.index, one.key, one.label) == (other.index, other.key, other.label)
    for place in ("flow", "float"):
        name = f"{place}/shard-00001.npz"
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    with np.load(tmp_path / "b" / "images" / "shard-00001.npz") as arrays:
        assert arrays["keys"].tolist() == ["eel/img 2", "eel/img 5", "eel/img 8"]
        assert arrays["indices"].tolist() == [8, 9, 10]


def test_array_sources_are_sorted_into_folders(session, npz, tmp_path):
    run(session, npz, tmp_path / "out")
    assert (tmp_path / "out" / "images" / "1" / "00004.png").exists()
    run(session, npz, tmp_path / "named", classes={"T-shirt/top": 0, "a": 1, "CON ..": 2})
    assert (tmp_path / "named" / "images" / "T-shirt_top" / "00003.png").exists()
    assert (tmp_path / "named" / "images" / "CON" / "00002.png").exists()


def test_class_names_that_meet_in_one_folder_are_refused(session, npz, tmp_path):
    with pytest.raises(DataError, match="classes 0 and 2: expected two names"):
        run(session, npz, tmp_path / "out", classes={"a/b": 0, "x": 1, "A:B": 2})


def test_predicted_labels(session, folder, tmp_path):
    report = run(session, folder, tmp_path / "out", labels="predicted")
    assert report.clean_accuracy == 1.0
    assert all(s.label == s.record["clean_prediction"] for s in open_dataset(tmp_path / "out"))


def test_images_alone(session, folder, tmp_path):
    with pytest.raises(DataError, match="--labels predicted"):
        run(session, folder / "cat", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    run(session, folder / "cat", tmp_path / "out", labels="predicted")
    assert (tmp_path / "out" / "images" / "img 0.png").exists()


def test_the_same_run_gives_the_same_bytes(session, folder, tmp_path, files_of):
    for name in ("a", "b"):
        run(session, folder, tmp_path / name, format="npz", save_flow=True)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_a_skipped_sample_changes_no_other(session, folder, tmp_path):
    run(session, folder, tmp_path / "all", save_flow=True)
    (folder / "dog" / "img 1.jpg").write_bytes(b"broken")
    report = run(session, folder, tmp_path / "some", on_error="skip", save_flow=True)
    assert [(s.index, s.key) for s in report.skipped] == [(4, "dog/img 1")]
    assert "img 1.jpg: expected a PNG, JPEG or WebP image" in report.skipped[0].reason
    assert report.images == 10
    every = {s.key: s for s in open_dataset(tmp_path / "all")}
    for sample in open_dataset(tmp_path / "some"):
        np.testing.assert_array_equal(sample.image, every[sample.key].image)
        np.testing.assert_array_equal(sample.flow, every[sample.key].flow)
    index = json.loads((tmp_path / "some" / "index.json").read_text())
    assert index["skipped"][0]["key"] == "dog/img 1"
    assert index["counts"]["skipped"] == 1


def test_a_bad_image_stops_the_run_and_is_named(session, folder, tmp_path):
    (folder / "eel" / "img 8.webp").write_bytes(b"")
    with pytest.raises(DataError, match=r"img 8\.webp: .* empty file.*--on-error skip"):
        run(session, folder, tmp_path / "out")
    assert not (tmp_path / "out" / "index.json").exists()


def test_a_run_without_a_single_image_fails(session, folder, tmp_path):
    Image.new("RGB", (3, 3)).save(folder / "cat" / "img 0.png")
    with pytest.raises(DataError, match="at least one image that can be used, got none of 1"):
        run(session, folder, tmp_path / "out", on_error="skip", limit=1)


def test_limit_uses_the_first_samples(session, folder, tmp_path):
    run(session, folder, tmp_path / "all")
    run(session, folder, tmp_path / "six", limit=6)
    whole, part = open_dataset(tmp_path / "all"), open_dataset(tmp_path / "six")
    assert len(part) == 6
    np.testing.assert_array_equal(part[5].image, whole[5].image)


def test_geometry_reaches_the_images(session, folder, tmp_path):
    for path in folder.rglob("*.png"):
        Image.new("L", (60, 50), 128).save(path)
    run(session, folder / "cat", tmp_path / "out", labels="predicted", resize=14, crop=(10, 12))
    assert open_dataset(tmp_path / "out")[0].image.shape == (10, 12, 3)


def test_progress_is_told_after_every_batch(session, folder, tmp_path):
    told = []
    report = run(session, folder, tmp_path / "out", progress=told.append)
    assert [p.done for p in told] == [0, 4, 8, 11]
    assert {p.total for p in told} == {11}
    assert isinstance(told[-1], Progress)
    assert told[-1].adversarial_correct == round(report.adversarial_accuracy * 11)
    assert told[-1].clean_correct == round(report.clean_accuracy * 11)


def test_a_dry_run_writes_nothing(session, folder, tmp_path):
    report = run(session, folder, tmp_path / "out", dry_run=True)
    assert (report.planned, report.generated, report.complete) == (11, 0, False)
    assert "nothing written" in report.message
    assert not (tmp_path / "out").exists()
    found = report.estimate
    assert (found.shards, found.missing_shards, found.missing) == (2, 2, 11)
    assert session.calls == [4, 4]  # one batch, and once more by the clock
    made = run(session, folder, tmp_path / "out", shard="1/2")
    stored = sum(p.stat().st_size for p in (tmp_path / "out" / "images").rglob("*.png"))
    assert found.plan_hash == json.loads((tmp_path / "out" / "plan.json").read_text())["plan_hash"]
    rest = run(session, folder, tmp_path / "out", dry_run=True).estimate
    assert (rest.missing_shards, rest.missing) == (1, 11 - made.images)
    # The records come on top of the pictures; the first batch stands for all of them.
    assert 1.0 < found.bytes * made.images / 11 / stored < 2.5


def test_failed_images_are_recorded_as_such(session, folder, tmp_path, monkeypatch):
    def attack(*args, **options):
        result = type(session).attack(session, *args, **options)
        result.failed[0], result.logits[0], result.loss[0] = True, np.nan, np.inf
        return result

    monkeypatch.setattr(session, "attack", attack, raising=False)
    report = run(session, folder, tmp_path / "out", limit=4)
    assert report.failed == 1
    record = open_dataset(tmp_path / "out")[0].record
    assert (record["failed"], record["adversarial_prediction"], record["loss"]) == (
        True,
        None,
        None,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "zip"}, "format: expected one of folder, npz, tar, parquet, got 'zip'"),
        ({"labels": "mine"}, "labels: expected one of source, predicted"),
        ({"on_error": "ignore"}, "on_error: expected stop or skip"),
        ({"limit": 0}, "limit: expected an integer >= 1, got 0"),
        ({"seed": -1}, "seed: expected an integer >= 0"),
        ({"batch_size": 0}, "batch_size: expected an integer >= 1"),
        ({"shard": "3/2"}, "shard: expected i/n"),
        ({"shard": "two"}, "shard: expected i/n"),
        ({"engine": "dask"}, "engine: expected one of local, ray, got 'dask'"),
        ({"workers": 0}, "workers: expected an integer >= 1, got 0"),
        ({"workers": 2}, "session: .* each worker opens its own"),
        ({"engine": "ray"}, "session: .* each worker opens its own"),
        ({"gpus_per_worker": 0.5}, "gpus_per_worker: expected --engine ray"),
        ({"engine": "ray", "gpus_per_worker": 1.5}, "gpus_per_worker: expected a part of 1"),
        ({"engine": "ray", "gpus_per_worker": float("inf")}, "gpus_per_worker: expected a part"),
        ({"engine": "ray", "gpus_per_worker": float("nan")}, "gpus_per_worker: expected a part"),
        ({"threads": 0}, "threads: expected an integer >= 1"),
        ({"threads": 10**23}, "threads: expected at most 2147483647"),
        ({"batch_size": 10**23}, "batch_size: expected at most 2147483647"),
        ({"workers": 10**23}, "workers: expected at most 2147483647"),
        ({"seed": 2**64}, "seed: expected at most 18446744073709551615"),
        ({"classes": {"cat": 0}}, "got nothing for 'dog' and 1 more"),
    ],
)
def test_wrong_options_leave_no_trace(session, folder, tmp_path, options, message):
    with pytest.raises(DataError, match=message):
        run(session, folder, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_neither_artifact_nor_session(folder, tmp_path):
    with pytest.raises(DataError, match="artifact: expected"):
        generate(None, folder, tmp_path / "out")


def test_folders_that_are_not_the_classes_are_refused(new_session, folder, tmp_path):
    with pytest.raises(DataError, match="expected 10 class folders"):
        run(new_session(classes=10), folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("one", "other"), [("a.png", "a.jpg"), ("a.png", "A.png"), ("é.png", "e\u0301.png")]
)
def test_names_that_meet_are_refused(session, tmp_path, one, other):
    place = tmp_path / "source"
    place.mkdir()
    for name in (one, other):
        Image.new("RGB", (12, 10)).save(place / name)
    if len(list(place.iterdir())) < 2:
        pytest.skip("this file system already takes them for one")
    with pytest.raises(DataError, match="expected images that differ in more than suffix") as error:
        run(session, place, tmp_path / "out", labels="predicted")
    assert one in str(error.value)
    assert other in str(error.value)
    assert not (tmp_path / "out").exists()
    run(session, place, tmp_path / "out", labels="predicted", format="npz")


def test_strange_but_legal_names(session, tmp_path):
    place = tmp_path / "-source ü"
    place.mkdir()
    for name in ("-rf.png", " 猫 .png", "a.b.png"):
        Image.new("RGB", (12, 10)).save(place / name)
    run(session, place, tmp_path / "-out 猫", labels="predicted")
    keys = {s.key for s in open_dataset(tmp_path / "-out 猫")}
    assert keys == {"-rf", " 猫 ", "a.b"}


def test_the_public_names():
    assert jataug.generate is generate
    assert jataug.open_dataset is open_dataset


def test_a_batch_is_no_larger_than_the_source(new_session, folder, tmp_path):
    def size(name, **options):
        generate(None, folder, tmp_path / name, session=new_session(), **options)
        return json.loads((tmp_path / name / "plan.json").read_text())["plan"]["batch_size"]

    assert size("all") == 11
    assert size("some", limit=3) == 3
    assert size("more", limit=3, batch_size=7) == 7
    opened = new_session()
    opened.batch_size = 5
    generate(None, folder, tmp_path / "given", session=opened)
    assert json.loads((tmp_path / "given" / "plan.json").read_text())["plan"]["batch_size"] == 5
    big = tmp_path / "big.npz"
    np.savez(big, images=np.zeros((70, 10, 12, 3), np.uint8), labels=np.zeros(70, np.int64))
    generate(None, big, tmp_path / "big", session=new_session())
    assert json.loads((tmp_path / "big" / "plan.json").read_text())["plan"]["batch_size"] == 64
