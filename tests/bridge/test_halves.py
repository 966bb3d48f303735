"""The two graphs behind the module's derivative."""

from typing import Any

import numpy as np
import onnx
import pytest

from jataug.export import differentiate
from jataug.export.gradient.split_vjp import SplitVjp, forward_graph, row_shapes, split_vjp
from jataug.export.model.load import load_model, prepare
from jataug.runtime.onnxruntime import Engine

from . import models


@pytest.fixture(scope="module", params=["tiny_net", "demo_classifier", "resnet18_cifar"])
def net(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param).path


def of(path: Any) -> SplitVjp:
    return split_vjp(prepare(load_model(path)), None)


def run(model: onnx.ModelProto, **feeds: np.ndarray) -> dict[str, np.ndarray]:
    return Engine(model, {}, "cpu", 1).run(feeds)


def ops(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_both_are_valid(net: Any) -> None:
    found = of(net)
    for model in (found.forward, found.backward):
        onnx.checker.check_model(model, full_check=True)
    assert [v.name for v in found.forward.graph.output] == ["logits", *found.saved]
    assert [v.name for v in found.backward.graph.input] == ["cotangent", *found.saved]


def test_together_they_are_the_vector_jacobian_product(net: Any) -> None:
    found, whole = of(net), differentiate(net)
    rng = np.random.default_rng(0)
    shape, row = row_shapes(prepare(load_model(net)), None)
    image, cotangent = (rng.normal(size=(3, *s)).astype(np.float32) for s in (shape, row))
    first = run(found.forward, image=image)
    names = [value.name for value in whole.graph.input]
    logits, expected = run(whole, **dict(zip(names, (image, cotangent), strict=True))).values()
    np.testing.assert_allclose(first.pop("logits"), logits, rtol=1e-4, atol=1e-5)
    gradient = run(found.backward, cotangent=cotangent, **first)["gradient"]
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_nothing_is_computed_twice(net: Any) -> None:
    network = prepare(load_model(net))
    found = split_vjp(network, None)
    convolutions = ops(forward_graph(network, None)).count("Conv")
    assert ops(found.forward).count("Conv") == convolutions
    backward = ops(found.backward)
    assert backward.count("Conv") + backward.count("ConvTranspose") <= convolutions
    assert "Relu" not in backward


def test_names_of_the_model_do_not_collide() -> None:
    text = models.two_outputs()
    for node in text.graph.node:
        node.input[:] = [{"features": "saved_0", "x": "cotangent"}.get(n, n) for n in node.input]
        node.output[:] = [{"features": "saved_0", "logits": "image"}.get(n, n) for n in node.output]
    text.graph.input[0].name = "cotangent"
    text.graph.output[0].name, text.graph.output[1].name = "image", "saved_0"
    network = prepare(text, of="image")
    found = split_vjp(network, None)
    image = np.random.default_rng(1).normal(size=(2, 3, 4, 4)).astype(np.float32)
    kept = run(found.forward, image=image)
    np.testing.assert_allclose(
        kept.pop("logits"), image.reshape(2, 48) @ models.WEIGHT, rtol=1e-4, atol=1e-5
    )
    gradient = run(found.backward, cotangent=np.eye(10, dtype=np.float32)[:2], **kept)["gradient"]
    np.testing.assert_allclose(gradient.reshape(2, 48), models.WEIGHT.T[:2], rtol=1e-5)
