"""Integers are checked in one way everywhere, and canonical JSON has one hash."""

import pytest

from jataug import AttackConfig
from jataug.checks import canonical, check_integer, digest
from jataug.data import Geometry, read_classes
from jataug.errors import BudgetError, DataError
from jataug.runtime.limits import check_count


@pytest.mark.parametrize("value", [True, 1.0, "1", None, 0])
@pytest.mark.parametrize("error", [BudgetError, DataError])
def test_what_is_no_integer_in_the_range_is_refused(value, error):
    with pytest.raises(error, match=r"^threads: expected an integer >= 1, got "):
        check_integer("threads", value, 1, error=error)


def test_the_largest_integer_passes_and_the_next_is_refused():
    check_integer("seed", 2**64 - 1, 0, 2**64 - 1)
    with pytest.raises(DataError, match=f"^seed: expected at most {2**64 - 1}, got {2**64}"):
        check_integer("seed", 2**64, 0, 2**64 - 1)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda value: check_count("threads", value), BudgetError),
        (lambda value: AttackConfig(steps=value), BudgetError),
        (lambda value: Geometry(resize=value), DataError),
        (lambda value: Geometry(crop=(value, 1)), DataError),
        (lambda value: read_classes({"cat": value}), DataError),
    ],
)
@pytest.mark.parametrize("value", [True, 2**31])
def test_a_bool_and_a_number_beyond_32_bits_are_no_counts(call, error, value):
    with pytest.raises(error, match=r"expected (an integer >= |at most )"):
        call(value)


def test_canonical_json_and_its_hash():
    value = {"b": [1, 0.1, None], "a": "\N{LATIN SMALL LETTER E WITH ACUTE}"}
    assert canonical(value) == r'{"a":"\u00e9","b":[1,0.1,null]}'
    assert digest(value) == ("abab9c6f3fb5d7fa7bcb396505bbaff04b45dde37a9e21fd6f4a6217fc3ca6a2")
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest(float("nan"))
