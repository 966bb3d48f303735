"""Which class a folder is: the order of class folders, their names in the set, splits, no label."""

import json

import numpy as np
import pytest
from PIL import Image

from jataug.dataset import open_dataset, verify
from jataug.dataset.card import generate_command
from jataug.errors import DataError
from jataug.generator import generate, preview

NAMES = [str(number) for number in range(1, 12)]
PLAIN = sorted(NAMES)  # how torchvision's ImageFolder numbers folders


@pytest.fixture
def taught(new_session):
    """A session that knows the grey level of each class, taught on folders in sorted order."""

    class Taught(new_session):
        def _logits(self, planes):
            means = 255 * planes.reshape(len(planes), -1).mean(axis=1, dtype=np.float64)
            return -np.abs(means[:, None] - 20 * np.arange(11)).astype(np.float32)

    return Taught(classes=11)


@pytest.fixture
def numbered(tmp_path):
    for name in NAMES:
        (tmp_path / "numbers" / name).mkdir(parents=True)
        level = 20 * PLAIN.index(name)
        Image.new("RGB", (12, 10), (level,) * 3).save(tmp_path / "numbers" / name / "a.png")
    return tmp_path / "numbers"


def made(source, out, session, **options):
    options = {"batch_size": 4, "shard_size": 8, **options}
    return generate(None, source, out, session=session, **options)


def content(out, name="index.json"):
    return json.loads((out / name).read_text("utf-8"))


def test_an_order_that_is_not_told_is_refused(taught, numbered, tmp_path):
    for call in (
        lambda: made(numbered, tmp_path / "out", taught),
        lambda: preview(taught, numbered),
    ):
        with pytest.raises(DataError, match=r"natural order .*sorted order .*--class-order sorted"):
            call()
    assert not (tmp_path / "out").exists()
    made(numbered, tmp_path / "out", taught, labels="predicted")


def test_the_order_decides_what_the_labels_mean(taught, numbered, tmp_path):
    right = made(numbered, tmp_path / "right", taught, class_order="sorted")
    wrong = made(numbered, tmp_path / "wrong", taught, class_order="natural")
    assert right.clean_accuracy == 1
    assert wrong.clean_accuracy < 0.5
    labels = {sample.key: sample.label for sample in open_dataset(tmp_path / "right")}
    assert labels == {f"{name}/a": PLAIN.index(name) for name in NAMES}
    classes = made(
        numbered, tmp_path / "classes", taught, classes={n: k for k, n in enumerate(PLAIN)}
    )
    assert classes.clean_accuracy == 1
    assert content(tmp_path / "classes")["plan"] == content(tmp_path / "right")["plan"]


def test_a_plan_of_0_1_keeps_its_hash(taught, numbered, tmp_path):
    """There the order was natural, and nothing told so."""
    made(numbered, tmp_path / "out", taught, class_order="natural")
    plan = content(tmp_path / "out")["plan"]
    assert plan["class_labels"] is None
    assert "class_order" not in plan


@pytest.mark.parametrize("begun", ["natural", "sorted"])
def test_another_order_is_refused(taught, numbered, tmp_path, begun):
    other = {"natural": "sorted", "sorted": "natural"}[begun]
    made(numbered, tmp_path / "out", taught, class_order=begun)
    with pytest.raises(
        DataError, match=rf"{begun}, .* --class-order {other}\. Use --class-order {begun} to"
    ):
        made(numbered, tmp_path / "out", taught, class_order=other)
    assert made(numbered, tmp_path / "out", taught, class_order=begun).generated == 0


@pytest.mark.parametrize("order", ["natural", "sorted"])
def test_verify_reads_labels_in_the_order_of_the_set(taught, numbered, tmp_path, order):
    out, other = tmp_path / "out", {"natural": "sorted", "sorted": "natural"}[order]
    made(numbered, out, taught, class_order=order)
    assert verify(out, numbered).problems == ()
    assert verify(out, numbered, class_order=order).problems == ()
    problems = verify(out, numbered, class_order=other).problems
    assert any("expected the label of the source" in problem for problem in problems)


def test_the_command_in_the_card_tells_the_order(taught, numbered, folder, session, tmp_path):
    made(numbered, tmp_path / "natural", taught, class_order="natural")
    assert "--class-order natural" in generate_command(content(tmp_path / "natural"))
    made(numbered, tmp_path / "sorted", taught, class_order="sorted")
    assert "--classes class_labels.json" in generate_command(content(tmp_path / "sorted"))
    made(folder, tmp_path / "plain", session)
    assert "--class" not in generate_command(content(tmp_path / "plain"))


def test_the_names_of_the_classes_are_in_the_set(taught, numbered, tmp_path):
    made(numbered, tmp_path / "out", taught, class_order="sorted")
    text = (tmp_path / "out" / "classes.json").read_text("utf-8")
    assert list(json.loads(text).items()) == [(str(k), name) for k, name in enumerate(PLAIN)]
    again = made(numbered, tmp_path / "again", taught, classes=tmp_path / "out" / "classes.json")
    assert again.clean_accuracy == 1
    assert (tmp_path / "again" / "classes.json").read_text("utf-8") == text


def test_verify_notices_changed_names(folder, session, tmp_path):
    made(folder, tmp_path / "out", session)
    path = tmp_path / "out" / "classes.json"
    path.write_text(path.read_text().replace("eel", "owl"))
    assert any("classes.json" in problem for problem in verify(tmp_path / "out").problems)
    path.unlink()
    assert any("classes.json" in problem for problem in verify(tmp_path / "out").problems)


def test_names_that_are_not_known_are_not_in_the_set(npz, folder, session, tmp_path):
    made(npz, tmp_path / "arrays", session)
    made(folder, tmp_path / "predicted", session, labels="predicted")
    for out in (tmp_path / "arrays", tmp_path / "predicted"):
        assert not (out / "classes.json").exists()
        assert verify(out).problems == ()


def test_a_name_that_is_no_text_is_written(session, tmp_path):
    odd = b"\xff".decode("utf-8", "surrogateescape")
    for name in ("a", "b", odd):
        try:
            (tmp_path / "source" / name).mkdir(parents=True)
        except (OSError, UnicodeError):
            pytest.skip("this file system takes text alone")
        Image.new("RGB", (12, 10)).save(tmp_path / "source" / name / "1.png")
    made(tmp_path / "source", tmp_path / "out", session, format="npz")
    assert content(tmp_path / "out", "classes.json") == {"0": "a", "1": "b", "2": odd}


@pytest.mark.parametrize("labels", ["source", "predicted"])
def test_splits_are_neither_classes_nor_mixed(new_session, tmp_path, labels):
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            Image.new("RGB", (12, 10)).save(tmp_path / "photos" / split / name / "1.png")
    session, out = new_session(classes=2), tmp_path / "out"
    with pytest.raises(DataError, match=r"splits train, val.*name one: .*photos.val"):
        made(tmp_path / "photos", out, session, labels=labels)
    assert not out.exists()
    made(tmp_path / "photos" / "val", out, session, labels=labels)


def test_data_sets_beside_each_other_are_no_classes(new_session, folder, session, tmp_path):
    for name in ("strong", "weak"):
        made(folder, tmp_path / "budgets" / name, session)
    for labels in ("source", "predicted"):
        with pytest.raises(DataError, match=r"data sets strong, weak.*name one: .*strong"):
            made(tmp_path / "budgets", tmp_path / "out", new_session(classes=2), labels=labels)
    assert made(tmp_path / "budgets" / "weak", tmp_path / "out", session).complete


def test_a_preview_names_a_sample_without_a_label(session, tmp_path):
    images = np.zeros((3, 10, 12, 3), np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=[0, -1, 2])
    with pytest.raises(DataError, match=r"a\.npz\[1\]: has no label"):
        preview(session, tmp_path / "a.npz")
    preview(session, tmp_path / "a.npz", labels="predicted")


@pytest.mark.parametrize("place", ["in a link to it", "in what a class folder links to", "itself"])
def test_a_destination_inside_the_source_is_found_through_links(session, folder, tmp_path, place):
    try:
        (tmp_path / "link").symlink_to(folder, target_is_directory=True)
        (folder / "dog").rename(tmp_path / "elsewhere")
        (folder / "dog").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    except OSError:
        pytest.skip("links are not allowed here")
    source, out = {
        "in a link to it": (tmp_path / "link", folder / "out"),
        "in what a class folder links to": (folder, tmp_path / "elsewhere" / "out"),
        "itself": (folder, tmp_path / "link" / "out"),
    }[place]
    for labels in ("source", "predicted"):
        with pytest.raises(DataError, match="outside the source"):
            made(source, out, session, labels=labels)
    assert not out.exists()
    assert made(tmp_path / "link", tmp_path / "out", session).complete
