"""The published schema, and the records that it describes."""

import dataclasses
import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from scipy.stats import binom, binomtest

from jataug.errors import DataError
from jataug.evaluation import load_report, schema
from jataug.evaluation.report.contents import FORMAT_VERSION, Rate, Report

EXAMPLE = Path(__file__).parent / "example"


def example() -> dict:
    return json.loads((EXAMPLE / "report.json").read_text("utf-8"))


def test_example_meets_the_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(example(), schema())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("format_version",), 2),
        (("plan_hash",), "short"),
        (("unknown",), 1),
        (("models",), []),
        (("models", 0, "clean_accuracy", "value"), 1.5),
        (("models", 0, "attacks", 0, "threat"), "everything"),
        (("models", 0, "images", 0, "label"), "7"),
    ],
)
def test_schema_refuses(path: tuple, value: object) -> None:
    report = example()
    place = report
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(report, schema())


def test_schema_wants_every_field() -> None:
    names = {field.name for field in dataclasses.fields(Report)}
    assert set(schema()["required"]) == names
    for name in names:
        report = example()
        del report[name]
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(report, schema())


def test_a_report_reads_back() -> None:
    report = load_report(EXAMPLE / "report.json")
    assert isinstance(report.models[0].clean_accuracy, Rate)
    assert report.to_dict() == example()


def test_newer_or_broken_reports_are_refused(tmp_path: Path) -> None:
    newer = tmp_path / "report.json"
    newer.write_text(json.dumps({**example(), "format_version": FORMAT_VERSION + 1}))
    with pytest.raises(DataError, match=f"expected format_version {FORMAT_VERSION}"):
        load_report(newer)
    newer.write_text("[]")
    with pytest.raises(DataError, match=r"expected a report\.json"):
        load_report(newer)
    part = example()
    del part["models"][0]["sanity"]
    newer.write_text(json.dumps(part))
    with pytest.raises(DataError, match="sanity"):
        load_report(newer)


def test_gallery_holds_what_the_report_says() -> None:
    for model in example()["models"]:
        shape = tuple(model["image_shape"])
        with np.load(EXAMPLE / model["gallery"]["file"], allow_pickle=False) as file:
            images = model["gallery"]["images"]
            assert file["clean"].shape == (len(images), *shape)
            for image in images:
                k = image["position"]
                assert file["index"][k] == image["index"]
                for name, view in image["attacks"].items():
                    assert file[f"{name}.adversarial"][k].shape == shape
                    delta = np.abs(file[f"{name}.delta"][k]).max()
                    assert delta == pytest.approx(view["largest_delta"], abs=1e-7)
                    flow = np.hypot(*file[f"{name}.flow"][k].astype(float)).max()
                    assert flow == pytest.approx(view["longest_flow"], abs=1e-3)


@pytest.mark.parametrize(("correct", "total"), [(0, 10), (8, 10), (10, 10), (317, 512)])
def test_wilson_interval(correct: int, total: int) -> None:
    found, oracle = Rate.from_counts(correct, total), binomtest(correct, total)
    interval = oracle.proportion_ci(0.95, method="wilson")
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=1e-12)
    assert found.value == correct / total


def test_wilson_interval_covers() -> None:
    # Exact coverage by the binomial distribution: a 95% interval covers about that often.
    total, shares = 60, np.linspace(0.05, 0.95, 19)
    rates = [Rate.from_counts(k, total) for k in range(total + 1)]
    for share in shares:
        inside = np.array([r.low <= share <= r.high for r in rates])
        assert 0.91 < binom.pmf(np.flatnonzero(inside), total, share).sum() < 0.985


def test_a_rate_needs_images() -> None:
    with pytest.raises(DataError, match="expected"):
        Rate.from_counts(0, 0)
    with pytest.raises(DataError, match="expected"):
        Rate.from_counts(3, 2)
