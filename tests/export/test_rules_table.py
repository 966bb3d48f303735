from importlib import import_module
from pathlib import Path

import pytest

from jataug.export.rules import FLAT, has_rule, table

FAMILIES = [
    import_module(f".{path.stem}", __package__)
    for path in sorted(Path(__file__).parent.glob("test_rules_*.py"))
    if path.stem != Path(__file__).stem
]
CHECKED = {
    (case.op_type, i)
    for family in FAMILIES
    for case in getattr(family, "CASES", ())
    for i in case.active
}
CHECKED |= {key for family in FAMILIES for key in getattr(family, "ELSEWHERE", ())}
RULES = [
    (op_type, key)
    for (domain, op_type), rules in table._RULES.items()
    if not domain
    for key in rules
]


@pytest.mark.parametrize(("op_type", "key"), RULES)
def test_every_rule_has_a_case(op_type, key):
    assert (op_type, 0 if key == "*" else key) in CHECKED


def test_every_case_is_a_rule():
    assert {op_type for op_type, _ in CHECKED} == {op_type for op_type, _ in RULES}


def test_no_op_is_flat_and_has_a_rule():
    assert not FLAT & set(table._RULES)
    assert has_rule("", "Floor")
    assert has_rule("", "Conv")
    assert not has_rule("", "LSTM")
