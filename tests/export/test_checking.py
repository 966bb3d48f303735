"""The checker itself: a rule that is 0.1% off must not pass."""

from dataclasses import replace

import numpy as np
import pytest

from jataug.export.rules import table

from .checking import case, check_gradient, distinct, normal

RIGHT = {
    "Conv": case("Conv", (2, 3, 5, 5), (4, 3, 3, 3), strides=[2, 2]),
    "Mul": case("Mul", (2, 3), (3,), active=(0, 1)),
    "Softmax": case("Softmax", (2, 5)),
    "MaxPool": case("MaxPool", distinct(1, 1, 5, 5), kernel_shape=[2, 2], linear=True),
    "AveragePool": case("AveragePool", (1, 1, 5, 5), kernel_shape=[2, 2], linear=True),
}


def plant(monkeypatch, op_type, fault):
    """Replace the rule for the op's first input."""
    rules = table._RULES["", op_type]
    right = rules[0]

    def wrong(*args, **attributes):
        return fault(right.pullback(*args, **attributes))

    monkeypatch.setitem(rules, 0, replace(right, pullback=wrong))


@pytest.mark.parametrize("op_type", RIGHT)
def test_passes_the_right_rule(op_type):
    check_gradient(RIGHT[op_type])


@pytest.mark.parametrize("op_type", RIGHT)
@pytest.mark.parametrize("factor", [1.001, 0.999, -1.0, 0.0])
def test_fails_a_rule_that_is_off(monkeypatch, op_type, factor):
    plant(monkeypatch, op_type, lambda g: g * factor)
    with pytest.raises(AssertionError):
        check_gradient(RIGHT[op_type])


@pytest.mark.parametrize("op_type", RIGHT)
def test_fails_a_rule_that_is_off_in_one_row(monkeypatch, op_type):
    def fault(g):
        factor = np.ones((1, *g.shape[1:]))
        factor.flat[: g.shape[-1]] = 1.01
        return g * g.graph.constant(factor, g.dtype)

    plant(monkeypatch, op_type, fault)
    with pytest.raises(AssertionError):
        check_gradient(RIGHT[op_type])


def test_an_input_left_out_stays_out():
    left_out = case("Clip", normal(3, 4), None, np.array(0.5))
    assert left_out.model(np.float64).graph.node[0].input[1] == ""
    check_gradient(left_out)
