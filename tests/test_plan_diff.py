"""The message for a folder that was started with other options."""

from pathlib import Path

import pytest

from jataug.dataset.plan_diff import Difference, differing, explain_mismatch

OUT = Path("out")
SEED = Difference("--seed", 0, 1)
LIMIT = Difference("--limit", None, 3)
CROP = Difference("--crop", 32, None)
FLAG = Difference("--save-flow", True, False, flag=True)
COUNT = Difference("source count", 11, 10)


@pytest.mark.parametrize(
    ("found", "parts"),
    [
        (
            [SEED],
            ["with --seed 0,", "says --seed 1.", "Use --seed 0 to resume, or another folder."],
        ),
        ([LIMIT], ["without --limit,", "says --limit 3.", "Leave out --limit to resume"]),
        ([FLAG], ["with --save-flow,", "leaves out --save-flow.", "Use --save-flow to resume"]),
        ([COUNT], ["source count changed from 11 to 10.", "Use the same source to resume"]),
        (
            [SEED, LIMIT, CROP, COUNT],
            [
                "with --seed 0 and --crop 32 and without --limit,",
                "says --seed 1 and --limit 3 and leaves out --crop;",
                "source count changed from 11 to 10.",
                "Use --seed 0, --crop 32 and the same source without --limit to resume",
            ],
        ),
    ],
)
def test_it_names_the_folder_the_options_and_the_cure(found, parts) -> None:
    line = explain_mismatch(OUT, found)
    assert line.startswith("out/ was started ")
    assert len(line.splitlines()) == 1
    places = [line.find(part) for part in parts]
    assert -1 not in places, line
    assert places == sorted(places), line


def test_other_clauses_come_after_the_differences() -> None:
    line = explain_mismatch(OUT, [COUNT], ["'cat/a.png' is gone"])
    assert "11 to 10; 'cat/a.png' is gone." in line


def test_without_a_difference_only_another_folder_helps() -> None:
    line = explain_mismatch(OUT, [], ["its plan.json was changed"])
    assert "its plan.json was changed. Use another folder." in line


def test_a_value_that_is_cut_off_is_not_repeated_as_the_cure() -> None:
    line = explain_mismatch(OUT, differing("--attacks", "pgd:steps=50," * 9, "flow"))
    assert "Use the same --attacks to resume" in line


def test_equal_values_differ_in_nothing() -> None:
    assert differing("--seed", 1, 1) == []
