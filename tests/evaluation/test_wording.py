"""What the page, the Markdown and the terminal say alike."""

import html
import re
from dataclasses import replace

import pytest
from made_reports import made, written

from jataug.evaluation.report.contents import Check, Rate, Sanity, Worst
from jataug.evaluation.report.html import html_page
from jataug.evaluation.report.markdown import markdown
from jataug.evaluation.report.page.numbers import NOTHING
from jataug.evaluation.report.wording import TOO_FEW, distinct, last, without_folders


def text_of(report, folder):
    """The words of the page, without its markup."""
    page = html_page(written(report, folder)).partition("<body>")[2]
    return html.unescape(re.sub(r"<[^>]*>", "", page))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/home/me/i.npz", "i.npz"),
        ("C:\\me\\photos", "photos"),
        ("a/", "a"),
        ("/", "/"),
        (None, None),
    ],
)
def test_the_last_part_of_a_path(path, name):
    assert last(path) == name


def test_a_command_keeps_its_words():
    assert without_folders("jataug evaluate a.onnx 'my photos' -o out") == (
        "jataug evaluate a.onnx 'my photos' -o out"
    )
    assert without_folders("jataug evaluate '/x/my photos'") == "jataug evaluate 'my photos'"
    assert without_folders("jataug evaluate 'unfinished /x") == "jataug evaluate 'unfinished /x"


def test_checks_on_too_few_images_have_no_green_tick(tmp_path):
    said = f"{TOO_FEW}: 4 classified right, at least 10 are wanted; 1 against 2"
    check = Check("steps", "more steps are not weaker", "skipped", said, {})
    report = made(models=("a",))
    (model,) = report.models
    model = replace(model, sanity=Sanity("none", (check,)))
    text = text_of(replace(report, models=(model,)), tmp_path)
    assert f"{NOTHING} sanity checks: too few images to tell" in text
    assert f"{NOTHING} too few images to tell more steps are not weaker" in text
    assert "4 classified right, at least 10 are wanted" in text
    assert "✓" not in text.partition("Are the gradients masked?")[2]


def test_paths_are_shown_without_the_folders_they_lie_in(tmp_path):
    report = made(models=("a",), command="jataug evaluate /home/me/m.onnx photos/x -o 'C:\\me\\o'")
    (model,) = report.models
    model = replace(model, path="/home/me/m.onnx")
    report = replace(report, source={**report.source, "path": "/home/me/i.npz"}, models=(model,))
    for text in (text_of(report, tmp_path), markdown(report)):
        assert "/home/me" not in text
        assert "C:\\me" not in text
        assert f"{report.images} images of i.npz" in text or f"{report.images} of i.npz" in text
        assert "jataug evaluate m.onnx photos/x -o o" in text


def test_worst_cases_that_say_what_a_row_says_are_left_out():
    rate = Rate.from_counts(1, 4)
    several = ("pgd", "flow", "joint")
    given = [
        Worst("pixel", ("pgd",), rate),
        Worst("joint", several, rate),
        Worst("all", several, rate),
    ]
    assert [worst.threat for worst in distinct(given)] == ["joint"]
