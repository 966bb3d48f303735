"""Random graphs: the gradient against central differences in float64."""

import re
from collections import Counter

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from jataug.errors import ModelError
from jataug.export import differentiate

from .evaluators import EVALUATORS
from .random_graphs import STEPS, random_graph

EACH = 20
QUICK, ALL = 200, 10_000


def check(seed):
    """Tell whether the output depends on the input, and assert that the gradient is right."""
    model, x = random_graph(seed)
    before = ReferenceEvaluator(model, new_ops=EVALUATORS)
    name = model.graph.output[0].name
    with np.errstate(all="ignore"):
        value = before.run(None, {"x": x})[0]
    random = np.random.default_rng(seed)
    try:
        vjp = differentiate(model)
    except ModelError as error:
        if not re.search("do not depend on the image|is 0 everywhere", str(error)):
            raise AssertionError(f"seed {seed}: {error}") from error
        return False
    cotangent, direction = random.standard_normal(value.shape), random.standard_normal(x.shape)
    with np.errstate(all="ignore"):
        after = ReferenceEvaluator(vjp, new_ops=EVALUATORS)
        forward, gradient = after.run(None, {"x": x, f"grad_{name}": cotangent})
        changes = []
        for step in (1e-6, 1e-5, 1e-4):
            ahead, behind = (before.run(None, {"x": x + h * direction})[0] for h in (step, -step))
            changes.append(float(((ahead - behind) * cotangent).sum() / (2 * step)))
    np.testing.assert_allclose(forward, value, rtol=1e-9, atol=1e-9, err_msg=f"seed {seed}")
    assert gradient.shape == x.shape
    if not np.isfinite(value).all():
        return False  # where there is no value there is no derivative
    expected = float((gradient * direction).sum())
    size = max(float(np.abs(gradient * direction).max()), abs(expected), 1e-6)
    if np.abs(value).max(initial=0) > 1e9 * size:
        return False  # the differences drown
    error = min(abs(change - expected) for change in changes) / size
    assert error < 1e-4, f"seed {seed}: {expected} but differences give {changes}"
    return True


@pytest.mark.parametrize("first", range(0, QUICK, EACH))
def test_graphs(first):
    checked = [check(seed) for seed in range(first, first + EACH)]
    assert sum(checked) >= EACH * 0.6


@pytest.mark.heavy
@pytest.mark.parametrize("first", range(QUICK, ALL, 100))
def test_many_graphs(first):
    checked = [check(seed) for seed in range(first, first + 100)]
    assert sum(checked) >= 60


def test_the_graphs_are_of_every_kind():
    graphs = [random_graph(seed)[0].graph for seed in range(QUICK)]
    ops = Counter(node.op_type for graph in graphs for node in graph.node)
    assert len(ops) >= 60, ops
    assert {len(graph.node) for graph in graphs} >= set(range(2, 21))
    assert len(STEPS) >= 20
    shared = [Counter(name for node in graph.node for name in node.input) for graph in graphs]
    assert sum(max(uses.values()) > 1 for uses in shared) > QUICK / 2


def test_a_wrong_rule_is_found(monkeypatch):
    from dataclasses import replace

    from jataug.export.rules import table

    right = table._RULES["", "Mul"][1]
    wrong = replace(right, pullback=lambda *a, **k: right.pullback(*a, **k) * 1.01)
    monkeypatch.setitem(table._RULES["", "Mul"], 1, wrong)
    failed = 0
    for seed in range(60):
        try:
            check(seed)
        except AssertionError:
            failed += 1
    assert failed >= 3
