"""A run that is stopped anywhere, or spread over workers, ends in the same bytes."""

import itertools
import json
import os

import pytest

from jataug.dataset import verify
from jataug.errors import DataError
from jataug.generator import generate
from jataug.generator.dataset_folder import clear


def run(session, source, destination, **options):
    options = {"batch_size": 2, "shard_size": 4, "save_flow": True, **options}
    return generate(None, source, destination, session=session, **options)


class Stop(BaseException):
    pass


def stopping_after(session, calls):
    """The session, with an attack that is interrupted after some calls."""
    whole = session.attack

    def attack(*args, **options):
        if len(session.calls) >= calls:
            raise Stop
        return whole(*args, **options)

    session.attack = attack
    return session


@pytest.mark.parametrize("format", ["folder", "npz"])
@pytest.mark.parametrize("calls", [0, 1, 2, 3, 5])
def test_a_stopped_run_goes_on(new_session, folder, tmp_path, files_of, format, calls):
    run(new_session(), folder, tmp_path / "once", format=format)
    with pytest.raises(Stop):
        run(stopping_after(new_session(), calls), folder, tmp_path / "twice", format=format)
    assert not (tmp_path / "twice" / "index.json").exists()
    session = new_session()
    report = run(session, folder, tmp_path / "twice", format=format)
    assert report.complete
    assert len(session.calls) == 6 - calls // 2 * 2
    assert files_of(tmp_path / "twice") == files_of(tmp_path / "once")


def test_a_keyboard_interrupt_can_be_resumed(new_session, folder, tmp_path, monkeypatch):
    session = new_session()

    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(session, folder, tmp_path / "out", progress=lambda p: p.done > 5 and interrupt())
    assert not (tmp_path / "out" / ".tmp").exists()
    assert run(new_session(), folder, tmp_path / "out").complete


def test_a_finished_run_does_nothing(new_session, folder, tmp_path, files_of):
    first = run(new_session(), folder, tmp_path / "out")
    before = files_of(tmp_path / "out")
    session = new_session()
    again = run(session, folder, tmp_path / "out")
    assert session.calls == []
    assert (again.generated, again.images, again.complete) == (0, 11, True)
    assert again.adversarial_accuracy == first.adversarial_accuracy
    assert "nothing to do" in again.message
    assert files_of(tmp_path / "out") == before


@pytest.mark.parametrize(
    "name",
    ["records/shard-00001.jsonl", "records/shard-00001.json", "flow/shard-00001.npz", "image"],
)
@pytest.mark.parametrize("harm", ["remove", "change"])
def test_a_damaged_shard_is_made_again(new_session, folder, tmp_path, files_of, name, harm):
    run(new_session(), folder, tmp_path / "out")
    before = files_of(tmp_path / "out")
    place = "images/dog/img 4.png" if name == "image" else name
    if harm == "remove":
        (tmp_path / "out" / place).unlink()
    else:
        (tmp_path / "out" / place).write_bytes(before[place][:-3])
    session = new_session()
    assert run(session, folder, tmp_path / "out").generated == 4
    assert len(session.calls) == 2
    assert files_of(tmp_path / "out") == before


def test_a_repair_that_is_stopped_leaves_no_index(new_session, folder, tmp_path):
    run(new_session(), folder, tmp_path / "out")
    (tmp_path / "out" / "images" / "dog" / "img 4.png").unlink()
    with pytest.raises(Stop):
        run(stopping_after(new_session(), 0), folder, tmp_path / "out")
    with pytest.raises(DataError, match="run the same generate command again"):
        verify(tmp_path / "out")


def test_workers_share_a_destination(new_session, folder, tmp_path, files_of):
    run(new_session(), folder, tmp_path / "one")
    first = run(new_session(), folder, tmp_path / "two", shard="2/2")
    assert (first.complete, first.planned, first.images) == (False, 4, 4)
    assert "other shards are still missing" in first.message
    second = run(new_session(), folder, tmp_path / "two", shard="1/2")
    assert (second.complete, second.planned, second.images) == (True, 7, 7)
    assert files_of(tmp_path / "two") == files_of(tmp_path / "one")


def test_more_workers_than_shards(new_session, folder, tmp_path):
    report = run(new_session(), folder, tmp_path / "out", shard="9/9")
    assert (report.planned, report.complete) == (0, False)


def test_skipped_samples_are_remembered(new_session, folder, tmp_path):
    (folder / "cat" / "img 0.png").write_bytes(b"")
    with pytest.raises(Stop):
        run(stopping_after(new_session(), 4), folder, tmp_path / "out", on_error="skip")
    report = run(new_session(), folder, tmp_path / "out", on_error="skip")
    assert [skip.key for skip in report.skipped] == ["cat/img 0"]
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert [skip["key"] for skip in index["skipped"]] == ["cat/img 0"]
    assert verify(tmp_path / "out").ok


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 1}, "with --seed 0, .* says --seed 1\\. Use --seed 0 to resume"),
        ({"batch_size": 4}, "--batch-size 2, .* --batch-size 4"),
        ({"format": "npz"}, "--format folder, .* --format npz"),
        ({"save_flow": False}, "with --save-flow, .* leaves out --save-flow. Use --save-flow"),
        ({"limit": 3}, "without --limit, .* --limit 3. Leave out --limit"),
        ({"labels": "predicted"}, "--labels source, .* --labels predicted"),
        ({"crop": (10, 12)}, "without --crop, .* --crop 10,12"),
        ({"classes": {"cat": 0, "dog": 1, "eel": 2}}, "without --classes, .* says --classes"),
    ],
)
def test_another_plan_is_refused_by_name(new_session, folder, tmp_path, files_of, options, message):
    run(new_session(), folder, tmp_path / "out")
    before = files_of(tmp_path / "out")
    with pytest.raises(DataError, match=message):
        run(new_session(), folder, tmp_path / "out", **options)
    assert files_of(tmp_path / "out") == before


def test_a_plan_that_made_nothing_gives_way(new_session, folder, tmp_path, files_of):
    (folder / "cat" / "img 0.png").write_bytes(b"")
    with pytest.raises(DataError, match="img 0"):
        run(new_session(), folder, tmp_path / "out")
    run(new_session(), folder, tmp_path / "out", on_error="skip", seed=4)
    run(new_session(), folder, tmp_path / "fresh", on_error="skip", seed=4)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "fresh")


def test_a_plan_whose_images_were_all_unusable_gives_way(new_session, folder, tmp_path, files_of):
    big = folder.rename(tmp_path / "big")
    with pytest.raises(DataError, match="at least one image that can be used, got none of 11"):
        run(new_session(), big, tmp_path / "out", on_error="skip", crop=4)
    assert list((tmp_path / "out" / "records").glob("shard-*.json"))
    run(new_session(), big, tmp_path / "out", on_error="skip", crop=(10, 12))
    run(new_session(), big, tmp_path / "fresh", on_error="skip", crop=(10, 12))
    assert files_of(tmp_path / "out") == files_of(tmp_path / "fresh")


@pytest.mark.parametrize("format", ["folder", "tar"])
def test_a_run_that_was_stopped_before_its_first_shard_gives_way(
    new_session, folder, tmp_path, files_of, format
):
    class Stop(BaseException):
        pass

    def stop(progress):
        if progress.done >= 8:
            raise Stop

    out, options = tmp_path / "out", {"format": format, "shard_size": 100}
    with pytest.raises(Stop):
        run(new_session(), folder, out, progress=stop, **options)
    assert not list((out / "records").glob("shard-*.json"))
    dry = run(new_session(), folder, out, dry_run=True, limit=3, seed=4, **options)
    assert dry.images == 0
    run(new_session(), folder, out, limit=3, seed=4, **options)
    run(new_session(), folder, tmp_path / "fresh", limit=3, seed=4, **options)
    assert files_of(out) == files_of(tmp_path / "fresh")
    assert verify(out).ok


def test_what_another_worker_has_made_meanwhile_stays(tmp_path):
    for name in ("images/cat/old.png", "images/cat/new.png", "images/notes.txt", "flow/old.npz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, ns=(0, 20 if "new" in name else 10))
    clear(tmp_path, 10)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert left == {"images", "images/cat", "images/cat/new.png", "images/notes.txt"}


def test_one_whole_shard_keeps_its_destination(new_session, folder, tmp_path, files_of):
    class Stop(BaseException):
        pass

    def stop(progress):
        if progress.done >= 8:
            raise Stop

    with pytest.raises(Stop):
        run(new_session(), folder, tmp_path / "out", progress=stop)
    before = files_of(tmp_path / "out")
    with pytest.raises(DataError) as error:
        run(new_session(), folder, tmp_path / "out", limit=3)
    for word in ("--limit 3", "Leave out --limit", "another folder"):
        assert word in str(error.value)
    assert files_of(tmp_path / "out") == before


def test_what_follows_from_a_limit_is_no_difference(new_session, folder, tmp_path):
    options = {"batch_size": None, "shard_size": 1024}
    run(new_session(), folder, tmp_path / "out", limit=2, **options)
    with pytest.raises(
        DataError, match=r"with --limit 2, and .* leaves out --limit. Use --limit 2 to"
    ):
        run(new_session(), folder, tmp_path / "out", **options)


def test_a_class_that_means_another_is_named(new_session, folder, tmp_path):
    classes = {"cat": 0, "dog": 1, "eel": 2}
    run(new_session(), folder, tmp_path / "out", classes=classes)
    with pytest.raises(DataError, match=r"--classes.* 'cat' changed from 0 to 1"):
        run(new_session(), folder, tmp_path / "out", classes={"cat": 1, "dog": 0, "eel": 2})


def test_a_changed_source_is_another_plan(new_session, folder, tmp_path):
    run(new_session(), folder, tmp_path / "out")
    (folder / "cat" / "img 0.png").touch()
    with pytest.raises(DataError, match=r"the source has changed.* Use the same source"):
        run(new_session(), folder, tmp_path / "out")
    run(new_session(), folder, tmp_path / "hash", source_hash=True)
    (folder / "cat" / "img 0.png").touch()
    assert run(new_session(), folder, tmp_path / "hash", source_hash=True).generated == 0


def test_a_moved_source_is_the_same_plan(new_session, folder, tmp_path):
    run(new_session(), folder, tmp_path / "out")
    folder.rename(tmp_path / "elsewhere")
    assert run(new_session(), tmp_path / "elsewhere", tmp_path / "out").generated == 0


def test_another_attack_is_another_plan(new_session, folder, tmp_path):
    run(new_session(), folder, tmp_path / "out")
    session = new_session()
    session.config = session.config.replace(steps=7)
    with pytest.raises(DataError, match=r"attack steps .* 1 to 7\. Use the same attack"):
        run(session, folder, tmp_path / "out")


def test_a_foreign_folder_is_not_touched(new_session, folder, tmp_path, files_of):
    place = tmp_path / "mine"
    place.mkdir()
    (place / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match=r"holds thesis\.tex.* Use a new or empty folder"):
        run(new_session(), folder, place)
    assert files_of(place) == {"thesis.tex": b"years of work"}


def test_places_that_cannot_be_written(new_session, folder, tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DataError, match=f"{place.name}: cannot be used as the folder"):
            run(new_session(), folder, place)


def test_a_disk_that_fails_is_one_line(new_session, folder, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jataug.atomic.os.fsync", full)
    with pytest.raises(DataError, match=r"plan\.json: could not be written: No space left"):
        run(new_session(), folder, tmp_path / "out")
    monkeypatch.undo()
    assert run(new_session(), folder, tmp_path / "out").complete


@pytest.mark.parametrize("format", ["folder", "npz"])
@pytest.mark.parametrize("writes", range(0, 14, 2))
def test_a_batch_that_is_lost_leaves_no_whole_shard(
    new_session, folder, tmp_path, files_of, monkeypatch, format, writes
):
    run(new_session(), folder, tmp_path / "once", format=format)
    count, sync = itertools.count(), os.fsync

    def failing(handle):
        if next(count) == writes:
            raise OSError(5, "Input/output error")
        sync(handle)

    monkeypatch.setattr("jataug.atomic.os.fsync", failing)
    with pytest.raises(DataError, match="could not be written: Input/output error"):
        run(new_session(), folder, tmp_path / "twice", format=format)
    monkeypatch.undo()
    assert run(new_session(), folder, tmp_path / "twice", format=format).complete
    assert files_of(tmp_path / "twice") == files_of(tmp_path / "once")


def test_a_session_that_does_not_say_what_it_is(session, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(type(session), "manifest", {})
    with pytest.raises(DataError, match="session: expected a manifest"):
        run(session, folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", ["count", "skipped", "files", "start"])
@pytest.mark.parametrize("value", [None, "x", 7])
def test_a_shard_whose_marker_was_edited_is_made_again(
    new_session, folder, tmp_path, files_of, key, value
):
    run(new_session(), folder, tmp_path / "out")
    before = files_of(tmp_path / "out")
    (tmp_path / "out" / "index.json").unlink()
    marker = tmp_path / "out" / "records" / "shard-00001.json"
    marker.write_text(json.dumps({**json.loads(marker.read_text()), key: value}))
    session = new_session()
    assert run(session, folder, tmp_path / "out").complete
    assert session.calls
    after = files_of(tmp_path / "out")
    assert {n: h for n, h in after.items() if n != "index.json"} == {
        n: h for n, h in before.items() if n != "index.json"
    }
