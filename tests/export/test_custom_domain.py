"""A rule for an op of another domain, from the user's file to the gradient graph."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from jataug.errors import UnsupportedOperator
from jataug.export import differentiate, rule
from jataug.export.rules import table


class Whirl(OpRun):
    op_domain = "com.example"

    def _run(self, x, beta=None):
        return (x / (1 + np.exp(-beta * x)),)


def model():
    nodes = [
        helper.make_node("Whirl", ["image"], ["s"], domain="com.example", beta=2.0, name="mine"),
        helper.make_node("Flatten", ["s"], ["y"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.DOUBLE, ["N", 2, 3])
    inner = helper.make_tensor_value_info("s", TensorProto.DOUBLE, ["N", 2, 3])
    result = helper.make_tensor_value_info("y", TensorProto.DOUBLE, ["N", 6])
    graph = helper.make_graph(nodes, "g", [image], [result], value_info=[inner])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.example", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def test_without_a_rule_the_domain_is_named():
    with pytest.raises(UnsupportedOperator, match=r"Whirl \(domain com\.example.*'mine'"):
        differentiate(model())


def test_with_a_rule_the_gradient_runs(monkeypatch):
    monkeypatch.setattr(table, "_RULES", {key: dict(r) for key, r in table._RULES.items()})

    @rule("Whirl", "X", domain="com.example")
    def whirl(g, Y, X, *, beta=1.0):
        s = (X * beta).same("Sigmoid", X * beta)
        return g * (s + X * beta * s * (1 - s))

    vjp = differentiate(model())
    assert {o.domain: o.version for o in vjp.opset_import} == {"": 18, "com.example": 3}
    onnx.checker.check_model(vjp)
    x = np.random.default_rng(0).normal(size=(4, 2, 3))
    seed, step = np.ones((4, 6)), 1e-6
    evaluator = ReferenceEvaluator(vjp, new_ops=[Whirl])

    def value(image):
        return evaluator.run(None, {"image": image, "grad_y": seed})

    gradient = value(x)[1]
    difference = (value(x + step)[0] - value(x - step)[0]).reshape(x.shape) / (2 * step)
    np.testing.assert_allclose(gradient, difference, rtol=1e-6)
