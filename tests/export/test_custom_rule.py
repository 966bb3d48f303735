import numpy as np
import onnx_ir as ir
import pytest

from jataug.errors import UnsupportedOperator
from jataug.export import rule
from jataug.export.rules import find_rule, table

from .building import compute
from .checking import normal


def test_a_rule_of_ones_own(monkeypatch):
    monkeypatch.setattr(table, "_RULES", {key: dict(r) for key, r in table._RULES.items()})

    @rule("Swish", "X", domain="com.example")
    def swish(g, Y, X, *, beta=1.0):
        s = (X * beta).same("Sigmoid", X * beta)
        return g * (s + X * beta * s * (1 - s))

    def derivative(x, g):
        node = ir.node("Swish", [x.value], {"beta": 2.0}, domain="com.example", num_outputs=1)
        return find_rule(node, 0, 1)(g, x, node, [x], 0)

    x, seed = normal(2, 3), normal(2, 3, seed=1)
    found = compute(derivative, x=x.astype(np.float32), g=seed.astype(np.float32))
    s = 1 / (1 + np.exp(-2 * x))
    np.testing.assert_allclose(found, seed * (s + 2 * x * s * (1 - s)), rtol=1e-5)
    with pytest.raises(UnsupportedOperator, match=r"domain com\.example, opset 1"):
        find_rule(ir.node("Swash", [], domain="com.example"), 0, 1)


def test_an_attribute_that_the_rule_does_not_name_is_refused():
    def derivative(x):
        node = ir.node("Relu", [x.value], {"slope": 0.5}, name="odd one")
        return find_rule(node, 0, 18)(x, x, node, [x], 0)

    message = r"Relu \(node 'odd one'\): attribute slope has no derivative rule"
    with pytest.raises(UnsupportedOperator, match=message):
        compute(derivative, x=np.ones((1, 2), np.float32))
