"""The whole evaluation: what it returns and writes, goes on with, and refuses."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import material
import numpy as np
import pytest
from PIL import Image

import jataug
from jataug.errors import BudgetError, DataError, ModelError
from jataug.evaluation import evaluate, load_report, schema
from jataug.evaluation.attacks.suite import ATTACKS, SUITES, attacks_of
from jataug.evaluation.models.onnx import OnnxModel
from jataug.evaluation.report.markdown import markdown
from jataug.evaluation.runner import Progress
from jataug.export import export_attack
from jataug.preprocessing import Preprocessing

FEW = ("noise:restarts=2", "pgd:steps=4", "flow:steps=3", "joint:steps=3", "rotate:draws=3")


def quick(model: Any, source: Any, output: Any = None, **options: Any) -> Any:
    options = {"attacks": FEW, "curves": False, "sanity": False, "device": "cpu", **options}
    return evaluate(model, source, output, **options)


@pytest.fixture
def model(demo_classifier: material.Model) -> Path:
    return demo_classifier.path


@pytest.fixture
def finished(model: Path, source: Path, tmp_path: Path) -> tuple[Any, Path]:
    return quick(model, source, tmp_path / "out"), tmp_path / "out"


def test_an_attack_is_no_classifier(model: Path, source: Path, tmp_path: Path) -> None:
    attack = tmp_path / "attack.onnx"
    export_attack(model, jataug.AttackConfig(steps=1), attack, check=False)
    with pytest.raises(ModelError, match=r"attack.onnx: expected a classifier, got an attack"):
        quick(attack, source, tmp_path / "out")
    assert not (tmp_path / "out" / "report.json").exists()


def test_a_whole_report(model: Path, source: Path, tmp_path: Path) -> None:
    told: dict[str, list[int]] = {}
    report = jataug.evaluate(
        model, source, tmp_path / "out", attacks=FEW, limit=6, device="cpu", transfer=[model],
        progress=lambda p: told.setdefault(p.part, []).append(p.done),
    )  # fmt: skip
    assert {f"classifier {name}" for name in ("clean", "map", "gradient", *FEW)} <= set(told)
    assert all(done[0] == 0 and done[-1] == 6 for done in told.values()), told
    written = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    jsonschema.validate(written, schema())
    assert load_report(tmp_path / "out" / "report.json").to_dict() == written == report.to_dict()
    (found,) = report.models
    assert [row.name for row in found.attacks] == list(FEW)
    assert found.clean_accuracy.total == report.images == 6
    assert found.transfer[0].target == "classifier-2"
    # On itself the images do what they do.
    assert all(one.direct == one.accuracy for one in found.transfer)
    assert found.map is not None
    assert found.map.accuracy[0][0] == found.clean_accuracy
    assert found.pixel_curve is not None
    assert found.pixel_curve.points[0].accuracy == found.clean_accuracy
    text = markdown(report)
    for part in (*FEW, "classifier-2", "Accuracy (%) against both", "too few images to tell"):
        assert part in text


def test_images_say_what_the_table_says(finished: tuple[Any, Path]) -> None:
    (found,) = finished[0].models
    right = [image for image in found.images if image.clean_prediction == image.label]
    assert len(right) == found.clean_accuracy.correct
    for row in found.attacks:
        standing = [image for image in right if row.name not in image.broken]
        assert row.accuracy.correct == len(standing)
        assert all(image.prediction[row.name] == image.label for image in standing)
    every = {worst.threat: worst for worst in found.worst}
    assert every["joint"].accuracy.correct <= min(
        every[threat].accuracy.correct for threat in ("pixel", "flow")
    )
    assert every["all"].accuracy.correct == sum(not image.broken for image in right)
    for image in right:
        assert image.broken_by == (image.broken[0] if image.broken else None)


def test_gallery_shows_what_was_measured(
    finished: tuple[Any, Path], model: Path, demo_images: Any
) -> None:
    (found,) = finished[0].models
    opened = OnnxModel(model, device="cpu", threads=1)
    with np.load(finished[1] / found.gallery.file, allow_pickle=False) as file:
        clean = demo_images[0][file["index"]][:, None].astype(np.float32) / np.float32(255)
        np.testing.assert_array_equal(file["clean"], clean)
        for name in FEW:
            said = opened.logits(file[f"{name}.adversarial"]).argmax(1)
            for k, shown in enumerate(found.gallery.images):
                assert shown.attacks[name].prediction == said[k]
                assert found.images[shown.index].prediction[name] == said[k]


def test_measured_at_8_bits(model: Path, source: Path, tmp_path: Path) -> None:
    report = quick(model, source, tmp_path / "out", measured="uint8", pixel="2/255")
    (found,) = report.models
    for row in found.attacks:
        if row.threat == "pixel":
            assert row.largest_delta <= 2 / 255 + 2e-6
    with np.load(tmp_path / "out" / found.gallery.file, allow_pickle=False) as file:
        for name in FEW:
            levels = 255 * file[f"{name}.adversarial"].astype(np.float64)
            np.testing.assert_allclose(levels, np.rint(levels), atol=1e-4)


def test_both_backends_say_the_same(demo_classifier: material.Model, source: Path) -> None:
    (ours, theirs), names = (quick([*demo_classifier], source).models, FEW)
    assert (ours.kind, theirs.kind) == ("onnx", "torch")
    assert ours.clean_accuracy == theirs.clean_accuracy
    for a, b, name in zip(ours.attacks, theirs.attacks, names, strict=True):
        assert abs(a.accuracy.correct - b.accuracy.correct) <= 1, name


def test_the_same_call_gives_the_same_images(model: Path, source: Path) -> None:
    first, second = (quick(model, source).to_dict() for _ in range(2))
    assert first["models"][0]["images"] == second["models"][0]["images"]
    other = quick(model, source, seed=1).to_dict()
    assert first["models"][0]["images"] != other["models"][0]["images"]


class Stopped(Exception):
    pass


def test_goes_on_where_it_was_stopped(model: Path, source: Path, tmp_path: Path) -> None:
    def stop(progress: Progress) -> None:
        if progress.part.endswith(FEW[2]):
            raise Stopped

    with pytest.raises(Stopped):
        quick(model, source, tmp_path / "out", progress=stop)
    assert not (tmp_path / "out" / "report.json").exists()
    seen: list[str] = []
    resumed = quick(model, source, tmp_path / "out", progress=lambda p: seen.append(p.part))
    assert {part.split()[-1] for part in seen} == set(FEW[2:])
    assert resumed.models[0].images == quick(model, source).models[0].images
    quick(model, source, tmp_path / "out", progress=lambda p: pytest.fail(p.part))


def test_a_damaged_part_is_made_again(
    finished: tuple[Any, Path], model: Path, source: Path
) -> None:
    report, folder = finished
    (part,) = folder.glob("attacks/0/pgd*.npz")
    part.write_bytes(part.read_bytes()[:-40])
    seen: list[str] = []
    again = quick(model, source, folder, progress=lambda p: seen.append(p.part))
    assert {part.split()[-1] for part in seen} == {"pgd:steps=4"}
    assert again.models[0].images == report.models[0].images


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"seed": 1}, "with --seed 0, .* says --seed 1. Use --seed 0 to resume, or another"),
        ({"limit": 5}, "without --limit, .* --limit 5. Leave out --limit"),
        ({"attacks": FEW[:2]}, "with --attacks .* says --attacks"),
        ({"pixel": "4/255"}, "--pixel 8/255, .* --pixel 4/255"),
        ({"curves": True}, "with --no-curves, .* leaves out --no-curves. Use --no-curves to"),
        ({"preprocessing": Preprocessing(mean=(0.5,))}, "--mean 0, .* --mean 0.5"),
        ({"labels": "predicted"}, "--labels source, .* --labels predicted"),
    ],
)
def test_another_evaluation_is_refused(
    finished: tuple[Any, Path], model: Path, source: Path, options: dict, named: str
) -> None:
    before = (finished[1] / "report.json").read_bytes()
    with pytest.raises(DataError, match=named):
        quick(model, source, finished[1], **options)
    assert (finished[1] / "report.json").read_bytes() == before


class _Stopped(BaseException):
    pass


def test_an_evaluation_that_finished_nothing_gives_way(
    model: Path, source: Path, tmp_path: Path
) -> None:
    def stop(_: Progress) -> None:
        raise _Stopped

    with pytest.raises(_Stopped):
        quick(model, source, tmp_path / "out", progress=stop)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["plan.json"]
    report = quick(model, source, tmp_path / "out", seed=1)
    assert report.models[0].images == quick(model, source, seed=1).models[0].images


def test_one_finished_part_keeps_its_folder(model: Path, source: Path, tmp_path: Path) -> None:
    def stop(progress: Progress) -> None:
        if not progress.part.endswith("clean"):
            raise _Stopped

    with pytest.raises(_Stopped):
        quick(model, source, tmp_path / "out", progress=stop)
    with pytest.raises(DataError, match=r"--seed 0, .* --seed 1"):
        quick(model, source, tmp_path / "out", seed=1)


def test_two_evaluations_at_once_do_not_mix(model: Path, source: Path, tmp_path: Path) -> None:
    begun: list[Any] = []

    def second(_: Progress) -> None:
        if not begun:
            begun.append(None)
            begun[0] = quick(model, source, tmp_path / "out", seed=1)

    with pytest.raises(DataError, match="a second one was begun there"):
        quick(model, source, tmp_path / "out", progress=second)
    report = load_report(tmp_path / "out" / "report.json")
    assert report.to_dict() == begun[0].to_dict()


def test_another_version_does_not_go_on(
    finished: tuple[Any, Path], model: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jataug, "__version__", "99")
    with pytest.raises(DataError, match=r"version of jataug changed from 0.* to 99"):
        quick(model, source, finished[1])


def test_a_folder_that_is_not_ours_is_refused(model: Path, source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"holds notes\.txt; nothing was touched"):
        quick(model, source, tmp_path / "out")
    with pytest.raises(DataError, match="expected a folder"):
        quick(model, source, source)
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"attacks": ["pdg"]}, BudgetError, "did you mean pgd"),
        ({"attacks": ["pgd:step=3"]}, BudgetError, "did you mean steps"),
        ({"attacks": ["pgd:steps=many"]}, BudgetError, "expected steps as int"),
        ({"attacks": ["pgd:steps=-1"]}, BudgetError, "steps"),
        ({"attacks": ["pgd:objective=truht"]}, BudgetError, "objective"),
        ({"attacks": ["pgd:objective=margin"]}, BudgetError, "targets above 0"),
        ({"attacks": ["pgd:targets=3"]}, BudgetError, "targets above 0"),
        ({"attacks": ["square:area=nan"]}, BudgetError, "area"),
        ({"attacks": ["pgd", "pgd"]}, BudgetError, "twice"),
        ({"suite": "slow"}, DataError, "quick, strong"),
        ({"limit": 25}, DataError, "limit: 25 .* 24"),
        ({"limit": 0}, DataError, "limit"),
        ({"pixel": -1}, BudgetError, "pixel radius"),
        ({"flow": 0, "pixel": 0}, BudgetError, "above 0"),
        ({"flow": 29}, BudgetError, "flow radius: 29 pixels .*28 x 28 allow at most 28"),
        ({"pixel": jataug.PixelBudget(1, "l2")}, BudgetError, "linf"),
        ({"measured": "int4"}, BudgetError, "uint8"),
        ({"batch_size": 0}, DataError, "batch_size"),
        ({"seed": -1}, BudgetError, "seed"),
        ({"seed": 2**64}, BudgetError, "seed"),
        ({"threads": 10**23}, DataError, "threads: expected at most"),
        ({"batch_size": 10**23}, DataError, "batch_size: expected at most"),
        ({"labels": "guessed"}, DataError, "source or predicted"),
        ({"names": ["a", "b"]}, DataError, "names: .*one per model"),
        ({"crop": 20}, DataError, "28x28"),
    ],
)
def test_wrong_options(
    model: Path, source: Path, tmp_path: Path, options: dict, error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        quick(model, source, tmp_path / "out", **options)
    assert not (tmp_path / "out" / "report.json").exists()


def test_labels_that_are_not_the_model_s(model: Path, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "two" / name).mkdir(parents=True)
        Image.new("L", (28, 28)).save(tmp_path / "two" / name / "one.png")
    with pytest.raises(DataError, match="expected 10 class folders"):
        quick(model, tmp_path / "two")
    report = quick(model, tmp_path / "two", classes={"cat": 3, "dog": 5})
    assert {image.label for image in report.models[0].images} == {3, 5}
    assert report.class_names == {"3": "cat", "5": "dog"}
    predicted = quick(model, tmp_path / "two", labels="predicted")
    assert predicted.models[0].clean_accuracy.value == 1
    with pytest.raises(DataError, match="outside the source"):
        quick(model, tmp_path / "two", tmp_path / "two" / "out", classes={"cat": 3, "dog": 5})


def test_models_must_be_alike(model: Path, tiny_net: material.Model, source: Path) -> None:
    with pytest.raises(DataError, match=r"tiny.*expected images \(1, 28, 28\)"):
        quick([model, tiny_net.path], source)
    with pytest.raises(ModelError, match="got int"):
        quick([model, 3], source)
    with pytest.raises(DataError, match="at least one"):
        quick([], source)


def test_chance_is_warned_of(model: Path, source: Path) -> None:
    wrong = jataug.evaluation.evaluate.__globals__["Preprocessing"](mean=(5.0,))
    report = quick(model, source, preprocessing=wrong)
    assert any(
        "better than chance (10.0%): check --mean" in warning
        for warning in report.models[0].warnings
    )


def test_suites_hold_known_attacks() -> None:
    for suite, names in SUITES.items():
        assert set(names) <= set(ATTACKS)
        for attack in attacks_of(names, suite).values():
            json.dumps(attack.parameters())
    assert {"apgd-ce", "apgd-targeted", "square", "rotate-grid"} <= set(SUITES["strong"])
    strong, plain = (attacks_of(["pgd"], suite)["pgd"].tries for suite in ("strong", "quick"))
    assert strong > plain
