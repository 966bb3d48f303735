"""Training sees the ground truth of its own source (claims 15, 19), whoever made the images."""

import json
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trainer_nets
from PIL import Image

import jataug
from jataug.errors import DataError
from jataug.trainer import Part, TrainConfig, load_run, train
from jataug.trainer.batches import Batch, Batches, is_renumbered
from jataug.trainer.data import TrainData, load_data
from jataug.trainer.processes import Processes

OTHERWISE = {"left": 2, "middle": 0, "right": 1}
"""Not the order of the folders."""


@pytest.fixture(scope="module")
def folders(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source as class folders, in the order of its labels."""
    root = tmp_path_factory.mktemp("labels") / "photos"
    with np.load(source) as arrays:
        for number, (image, label) in enumerate(zip(*arrays.values(), strict=True)):
            path = root / ("left", "middle", "right")[label] / f"{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return root


def generated(artifact: Path, folders: Path, name: str, **options: Any) -> Path:
    out = folders.parent / name
    if not out.exists():
        jataug.generate(artifact, folders, out, format="npz", device="cpu", **options)
    return out


@pytest.fixture(scope="module")
def renumbered(artifact: Path, folders: Path) -> Path:
    """A set whose classes are numbered as OTHERWISE says."""
    return generated(artifact, folders, "renumbered", classes=OTHERWISE)


@pytest.fixture(scope="module")
def predicted(artifact: Path, folders: Path) -> Path:
    return generated(artifact, folders, "predicted", labels="predicted")


def all_batches(
    options: Mapping[str, Any], source: Path, made: Path, **more: Any
) -> tuple[TrainData, list[Batch]]:
    """The batches of an epoch of the images of a set alone, neither cropped nor flipped."""
    config = TrainConfig(
        **{**options, "source": source, "pad": 0, "flip": False, **more},
        mixture=(Part("dataset", 1.0, str(made)),),
    )
    data = load_data(config)
    processes = Processes(0, 1, torch.device("cpu"))
    batches = Batches(config, data, trainer_nets.Normed(), processes)
    return data, [batches(1, step) for step in range(data.steps(16))]


def truths(made: Path, folders: Path) -> dict[bytes, str]:
    """The class folder of each image of a set, by the image's bytes."""
    found = jataug.open_dataset(made)
    return {sample.image.tobytes(): sample.key.split("/")[0] for sample in found}


def classes_of(batches: list[Batch], made: Path, folders: Path) -> list[tuple[str, int]]:
    """The folder and the label of each image."""
    names = truths(made, folders)
    levels = (torch.cat([b.images for b in batches]) * 255).round().to(torch.uint8).numpy()
    labels = torch.cat([b.labels for b in batches]).tolist()
    return [
        (names[image.transpose(1, 2, 0).tobytes()], label)
        for image, label in zip(levels, labels, strict=True)
    ]


IN_ORDER = {("left", 0), ("middle", 1), ("right", 2)}


@pytest.mark.parametrize("kind", ["renumbered", "predicted"])
def test_labels_are_those_of_the_source(kind, options, folders, request) -> None:
    made = request.getfixturevalue(kind)
    stored = {(s.key.split("/")[0], s.label) for s in jataug.open_dataset(made)}
    assert stored != IN_ORDER  # else the test could not fail
    data, found = all_batches(options, folders, made)
    assert set(classes_of(found, made, folders)) == IN_ORDER
    assert sum(len(batch.labels) for batch in found) == len(data.train) == 96


def test_a_source_told_by_its_bytes_is_the_same_source(options, folders, artifact) -> None:
    """Its times are other than when the set was made, as after a copy."""
    made = generated(artifact, folders, "hashed", labels="predicted", source_hash=True)
    copy = folders.parent / "copy"
    shutil.copytree(folders, copy, copy_function=shutil.copy)
    _, found = all_batches(options, copy, made)
    assert set(classes_of(found, made, folders)) == IN_ORDER


@pytest.fixture
def changed(folders: Path, tmp_path: Path) -> Path:
    """The same images and names, with other times: a set was not made of this source."""
    shutil.copytree(folders, tmp_path / "changed", copy_function=shutil.copy)
    return tmp_path / "changed"


def test_classes_of_another_source_are_matched_by_name(options, renumbered, changed) -> None:
    with pytest.warns(UserWarning, match="made of another source"):
        _, found = all_batches(options, changed, renumbered)
    assert set(classes_of(found, renumbered, changed)) == IN_ORDER


def test_predictions_are_no_labels_of_another_source(options, predicted, changed) -> None:
    with pytest.raises(DataError, match=r"predictions.* generate it from"):
        all_batches(options, changed, predicted)


def test_a_class_that_the_source_does_not_have_is_refused(options, renumbered, changed) -> None:
    (changed / "right").rename(changed / "east")
    with pytest.raises(DataError, match=r"'right'.*--classes"):
        all_batches(options, changed, renumbered)


def test_classes_that_the_set_has_joined_are_refused(options, artifact, folders, changed) -> None:
    joined = {"left": 0, "middle": 1, "right": 1}
    made = generated(artifact, folders, "joined", classes=joined)
    with pytest.raises(DataError, match="'middle', 'right'"):
        all_batches(options, changed, made)
    # Of its own source nothing is lost.
    _, found = all_batches(options, folders, made)
    assert set(classes_of(found, made, folders)) == IN_ORDER


def test_numbers_without_names_are_said(options, source, renumbered) -> None:
    with (
        pytest.warns(UserWarning, match="made of another source"),
        pytest.warns(UserWarning, match="renumbered: .*numbered"),
    ):
        all_batches(options, source, renumbered)


def test_an_image_under_another_name_is_refused(options, folders, renumbered, tmp_path) -> None:
    """The fingerprint agrees and the order does not: the index names another image."""
    made = tmp_path / "made"
    shutil.copytree(renumbered, made)
    for path in (made / "records").glob("*.jsonl"):
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        rows[5]["key"], rows[6]["key"] = rows[6]["key"], rows[5]["key"]
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    with pytest.raises(DataError, match="expected the sample 'left/"):
        all_batches(options, folders, made)


@pytest.mark.parametrize("kind", ["mapping", "text", "JSON"])
def test_classes_number_the_source(kind, options, folders, renumbered, tmp_path) -> None:
    file = tmp_path / "classes.txt"
    names = sorted(OTHERWISE, key=lambda name: OTHERWISE[name])
    file.write_text("\n".join(names) if kind == "text" else json.dumps(OTHERWISE), "utf-8")
    classes = OTHERWISE if kind == "mapping" else file
    data, found = all_batches(options, folders, renumbered, classes=classes)
    assert data.classes == 3
    assert set(classes_of(found, renumbered, folders)) == set(OTHERWISE.items())


def test_classes_of_a_larger_network(options, folders) -> None:
    config = TrainConfig(**{**options, "source": folders, "classes": {**OTHERWISE, "up": 9}})
    assert load_data(config).classes == 10


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ({"left": 0, "middle": 1}, "'right'"),
        ({"left": 0, "middle": 1, "right": -1}, "'right'"),
        ({"left": 0, "middle": 1, "right": "two"}, "'right'"),
        ("missing.txt", r"missing\.txt"),
    ],
)
def test_other_classes_are_refused(classes, said, options, folders) -> None:
    with pytest.raises(DataError, match=said):
        load_data(TrainConfig(**{**options, "source": folders, "classes": classes}))


def test_a_run_holds_its_classes(options, folders, tmp_path) -> None:
    """A run is read, and goes on, without the file that named them."""
    file = tmp_path / "classes.json"
    file.write_text(json.dumps(OTHERWISE), "utf-8")
    options |= {"source": folders, "mode": "natural", "epochs": 1}
    config = TrainConfig(**{**options, "classes": file})
    run = train(config).output
    file.write_text(json.dumps({"left": 0, "middle": 1, "right": 2}), "utf-8")
    with pytest.raises(DataError, match="classes"):
        train(TrainConfig(**{**options, "classes": file}))
    file.unlink()
    chosen = {"label_smoothing": 0.0, "milestones": (0.3, 0.45)}
    assert load_run(run).config == config.replace(**chosen)
    assert load_run(run).config.classes == OTHERWISE


def test_an_artifact_that_numbers_its_classes_otherwise_is_said(options, artifact, folders) -> None:
    mixture = (Part("artifact", 1.0, str(artifact)),)

    def opened(**more: Any) -> None:
        config = TrainConfig(**{**options, "source": folders, "mixture": mixture, **more})
        Batches(
            config, load_data(config), trainer_nets.Normed(), Processes(0, 1, torch.device("cpu"))
        )

    with pytest.warns(UserWarning, match=r"attack\.onnx: .* of 96 training images .*--classes"):
        opened(classes=OTHERWISE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened()


ORDER = list(range(10))
SORTED = [0, 9, 1, 2, 3, 4, 5, 6, 7, 8]
"""1, 10, 2, ... for 1, 2, ... 10."""


@pytest.mark.parametrize(
    ("order", "accuracy", "other"),
    [
        (ORDER, 0.0, False),
        (ORDER, 0.4, False),
        (ORDER, 0.9, False),
        (SORTED, 0.4, True),
        (SORTED, 0.9, True),
        ([1, 0, *range(2, 10)], 0.9, True),
    ],
)
@pytest.mark.parametrize("seed", range(5))
def test_another_numbering_is_told(order, accuracy, other, seed) -> None:
    """Of a model that is right as often as that, and else says anything."""
    generator = np.random.default_rng(seed)
    labels = np.sort(generator.integers(0, 10, 256))
    anything = generator.integers(0, 10, 256)
    said = np.where(generator.random(256) < accuracy, np.array(order)[labels], anything)
    assert is_renumbered(labels, said) == other
