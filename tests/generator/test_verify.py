import json

import numpy as np
import pytest
from PIL import Image

import jataug
from jataug.budget import FlowBudget, PixelBudget
from jataug.checks import canonical
from jataug.dataset import open_dataset, verify
from jataug.errors import DataError
from jataug.generator import generate


def made(session, source, destination, **options):
    generate(None, source, destination, session=session, batch_size=4, shard_size=8, **options)
    return destination


@pytest.fixture
def plain(session, folder, tmp_path):
    return made(session, folder, tmp_path / "out", save_flow=True)


def reseal(root, name):
    """Make the hashes in the index and the marker agree with a file that was edited."""
    import hashlib

    value = hashlib.sha256((root / name).read_bytes()).hexdigest()
    index = json.loads((root / "index.json").read_text())
    for entry in index["shards"]:
        if name in entry["files"]:
            entry["files"][name] = value
    (root / "index.json").write_text(canonical(index))
    if name.startswith("flow/"):
        with np.load(root / name) as arrays:
            hashes = [hashlib.sha256(row.tobytes()).hexdigest() for row in arrays["flow"]]
        for number, value in enumerate(hashes):
            edit_record(root, number, flow_sha256=value)


def edit_record(root, number, **changes):
    path = root / "records" / "shard-00000.jsonl"
    lines = path.read_text().splitlines()
    lines[number] = canonical({**json.loads(lines[number]), **changes})
    path.write_text("\n".join(lines) + "\n")
    reseal(root, "records/shard-00000.jsonl")


def repaint(root, change):
    """Change the first stored image and make every hash agree."""
    import hashlib

    record = json.loads((root / "records" / "shard-00000.jsonl").read_text().splitlines()[0])
    path = root / record["file"]
    image = np.array(Image.open(path)).astype(int)
    Image.fromarray(np.clip(change(image), 0, 255).astype(np.uint8)).save(path)
    edit_record(root, 0, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


CONFIGS = {
    "joint": {},
    "pixel-spatial": {"composition": "pixel-spatial", "order": "pixel-flow"},
    "l2": {"pixel": PixelBudget(0.5, "l2")},
    "no pixels": {"pixel": PixelBudget(0)},
    "less than a level": {"pixel": PixelBudget("1/1020")},
    "no flow": {"flow": FlowBudget(0)},
    "large box flow": {"flow": FlowBudget(2.3, "linf")},
}


@pytest.mark.parametrize("options", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("format", ["folder", "npz"])
@pytest.mark.parametrize("extra", [True, False])
def test_what_was_generated_verifies(new_session, folder, tmp_path, options, format, extra):
    config = new_session().config.replace(**options)
    session = new_session(config=config)
    out = made(session, folder, tmp_path / "out", format=format, save_flow=extra, save_float=extra)
    report = verify(out)
    assert report.problems == ()
    assert report.ok
    assert report.images == 11
    assert report.budget == ("checked" if extra or config.flow.radius == 0 else "bounded")
    assert report.worst_pixel_excess <= 0
    assert report.largest_change <= report.allowed_change
    assert (report.worst_flow is not None) == extra
    if extra:
        assert report.worst_flow <= config.flow.radius


def test_a_warped_l2_budget_is_not_checked(new_session, folder, tmp_path):
    config = new_session().config.replace(
        pixel=PixelBudget(0.5, "l2"), composition="pixel-spatial", order="pixel-flow"
    )
    report = verify(made(new_session(config=config), folder, tmp_path / "out", save_flow=True))
    assert (report.ok, report.budget, report.worst_pixel_excess) == (True, "not checked", None)
    assert "l2 norm" in report.budget_note
    assert report.worst_flow > 0


def test_without_the_source(plain, folder):
    folder.rename(folder.with_name("away"))
    report = verify(plain)
    assert (report.ok, report.budget, report.worst_pixel_excess) == (True, "not checked", None)
    assert report.budget_note == "the source is not at hand"
    assert verify(plain, folder.with_name("away")).budget == "checked"
    with pytest.raises(DataError, match="got nothing there"):
        verify(plain, folder)


def test_the_accuracy_is_measured_again(plain, session):
    index = json.loads((plain / "index.json").read_text())
    report = verify(plain, model=session.predict)
    assert report.adversarial_accuracy == index["adversarial_accuracy"]
    assert report.changed_predictions == 0
    other = verify(plain, model=lambda images: -session.predict(images))
    assert other.ok
    assert other.changed_predictions == 11


def test_progress(plain):
    told = []
    verify(plain, progress=told.append)
    assert [p.done for p in told] == [4, 8, 11]


@pytest.mark.parametrize(("levels", "found"), [(0, False), (3, True), (-3, True)])
@pytest.mark.parametrize("flow_saved", [True, False])
def test_a_pixel_outside_its_budget(new_session, npz, tmp_path, levels, found, flow_saved):
    # Flat images: whatever the flow, T(x, w) = x, and both checks are as sharp as can be.
    images = np.full((5, 10, 12, 3), 100, np.uint8)
    np.savez(npz, images=images, labels=np.zeros(5, int))
    out = made(new_session(), npz, tmp_path / "out", save_flow=flow_saved)

    def change(image):
        image[3, 4, 1] = 100 + (8 * np.sign(levels) + levels if levels else 8)
        return image

    repaint(out, change)
    report = verify(out)
    assert report.ok != found
    assert (report.worst_pixel_excess > 0) == found
    assert report.largest_change == pytest.approx((8 + abs(levels)) / 255)
    assert report.allowed_change == pytest.approx(8 / 255, abs=3e-6)
    if found:
        assert report.problems[0].startswith("shard-00000 00000: expected the image within 0.03137")
        assert len(report.problems) == 1


def test_the_wrong_flow_is_noticed(new_session, folder, tmp_path):
    session = new_session(config=new_session().config.replace(pixel=PixelBudget("2/255")))
    out = made(session, folder, tmp_path / "out", save_flow=True)
    with np.load(out / "flow" / "shard-00000.npz") as arrays:
        flow, indices = -arrays["flow"], arrays["indices"]
    np.savez(out / "flow" / "shard-00000.npz", flow=flow, indices=indices)
    reseal(out, "flow/shard-00000.npz")
    assert len(verify(out).problems) == 8


def test_a_flow_outside_its_budget(plain):
    with np.load(plain / "flow" / "shard-00000.npz") as arrays:
        flow, indices = arrays["flow"].copy(), arrays["indices"]
    flow[2, :, 5, 5] = 0.3, 0.3
    np.savez(plain / "flow" / "shard-00000.npz", flow=flow, indices=indices)
    reseal(plain, "flow/shard-00000.npz")
    problems = verify(plain).problems
    assert "expected a flow of at most 0.4 pixels, got 0.424" in problems[0]
    flow[2, 0, 5, 5] = np.nan
    np.savez(plain / "flow" / "shard-00000.npz", flow=flow, indices=indices)
    reseal(plain, "flow/shard-00000.npz")
    assert any("got nan" in problem for problem in verify(plain).problems)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ("remove image", "img 3.png: cannot be read: No such file"),
        ("change image", "shard-00000 cat/img 3: expected the image of the records, got a changed"),
        ("add image", "images/cat/new.png: expected only files of the data set"),
        ("add flow", "flow/old.npz: expected only files of the data set"),
        ("cut records", "records/shard-00000.jsonl: expected the file of the index, got a changed"),
        ("remove flow", "flow/shard-00000.npz: expected the file of the index, got no readable"),
        ("remove plan", "plan.json: cannot be read"),
    ],
)
def test_harm_to_the_files(plain, harm, message):
    image = plain / "images" / "cat" / "img 3.png"
    if harm == "remove image":
        image.unlink()
    elif harm == "change image":
        image.write_bytes(image.read_bytes() + b"\0")
    elif harm == "add image":
        image.with_name("new.png").write_bytes(image.read_bytes())
    elif harm == "add flow":
        (plain / "flow" / "old.npz").write_bytes(b"")
    elif harm == "cut records":
        path = plain / "records" / "shard-00000.jsonl"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    elif harm == "remove flow":
        (plain / "flow" / "shard-00000.npz").unlink()
    else:
        (plain / "plan.json").unlink()
    report = verify(plain)
    assert not report.ok
    assert any(message in problem for problem in report.problems), report.problems
    assert all("\n" not in problem for problem in report.problems)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": 1}, "cat/img 0: expected the label of the source, 0, got 1"),
        ({"key": "cat/img 9"}, "expected the key of the source, 'cat/img 0', got 'cat/img 9'"),
        ({"index": 5}, "expected a record for every sample in order"),
        ({"file": "../secret.png"}, "expected a file inside the data set"),
        ({"file": "/etc/hosts"}, "expected a file inside the data set"),
        ({"label": "cat"}, "expected label of type int"),
        ({"adversarial_prediction": "cat"}, "expected adversarial_prediction of type int, or"),
        ({"clean_prediction": 7, "label": 0}, "clean_correct, got"),
    ],
)
def test_records_that_lie(plain, changes, message):
    if "clean_prediction" in changes:
        index = json.loads((plain / "index.json").read_text())
        index["counts"]["clean_correct"] += 1
        (plain / "index.json").write_text(canonical(index))
        changes = {}
    edit_record(plain, 0, **changes)
    problems = verify(plain).problems
    assert any(message in problem for problem in problems), problems


def test_labels_in_an_archive_that_lie(session, folder, tmp_path):
    out = made(session, folder, tmp_path / "out", format="npz")
    path = out / "images" / "shard-00000.npz"
    with np.load(path) as arrays:
        changed = {**arrays, "labels": arrays["labels"] + 1}
    np.savez(path, **changed)
    reseal(out, "images/shard-00000.npz")
    assert "expected the labels of the records" in verify(out).problems[0]


def test_another_source_is_noticed(plain, folder, tmp_path):
    (folder / "cat" / "img 3.png").unlink()
    report = verify(plain)
    assert report.budget == "not checked"
    assert "source: expected 11 samples, got 10" in report.problems[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("card", True),
        ("counts", {}),
        ("counts", {"images": "12", "failed": 0, "skipped": 0}),
        ("class_names", []),
        ("environments", None),
        ("model", 3),
        ("model", {}),
        ("plan_hash", None),
        ("skipped", [3]),
        ("skipped", [{"index": "3"}]),
        ("source_path", 3),
    ],
)
def test_an_index_of_other_types(plain, name, value):
    index = json.loads((plain / "index.json").read_text())
    (plain / "index.json").write_text(json.dumps({**index, name: value}))
    for read in (verify, open_dataset):
        with pytest.raises(DataError, match=f"expected a whole index.*{name}"):
            read(plain)


@pytest.mark.parametrize("key", ["index", "key", "label", "target", "file"])
def test_a_record_without_a_key_is_named_where_it_is_read(plain, key):
    path = plain / "records" / "shard-00000.jsonl"
    first, *others = path.read_text().splitlines(keepends=True)
    record = json.loads(first)
    del record[key]
    path.write_text("".join([json.dumps(record) + "\n", *others]))
    with pytest.raises(DataError, match=rf"shard-00000.*({key}|row 0)"):
        open_dataset(plain)[0]


def test_an_index_that_is_not_one(plain):
    def rewrite(**changes):
        index = json.loads((plain / "index.json").read_text())
        (plain / "index.json").write_text(json.dumps({**index, **changes}))

    rewrite(format_version=2)
    with pytest.raises(DataError, match="format_version 1 or lower, got 2; update"):
        verify(plain)
    rewrite(format_version=1, shards=[{"name": "../x"}])
    with pytest.raises(DataError, match="expected a whole index"):
        verify(plain)
    (plain / "index.json").write_text("{")
    with pytest.raises(DataError, match="expected JSON, got a damaged file"):
        verify(plain)
    (plain / "index.json").unlink()
    with pytest.raises(DataError, match="run the same generate command again"):
        verify(plain)
    with pytest.raises(DataError, match="expected a data set"):
        verify(plain / "images")


def test_a_changed_plan_is_noticed(plain):
    index = json.loads((plain / "index.json").read_text())
    index["plan"]["attack"]["pixel"]["radius"] = 0.5
    (plain / "index.json").write_text(canonical(index))
    assert "expected the plan that its hash names" in verify(plain).problems[0]


def test_the_public_name():
    assert jataug.verify is verify
