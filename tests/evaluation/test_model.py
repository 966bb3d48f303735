"""The two backends: one face, the same numbers, nothing left behind."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from bridge import models
from torch import nn

from jataug.errors import ModelError, UnsupportedOperator
from jataug.evaluation.attacks.tries import Rows
from jataug.evaluation.models.model import Calls, parts
from jataug.evaluation.models.onnx import OnnxModel
from jataug.evaluation.models.torch import TorchModel
from jataug.preprocessing import Preprocessing


def seed(logits: np.ndarray) -> np.ndarray:
    """A cotangent that depends on the logits and differs from row to row."""
    return np.cos(logits) + np.arange(logits.shape[1], dtype=np.float32)


def test_backends_agree(
    shipped: OnnxModel, twin: TorchModel, batch: tuple[Rows, np.ndarray]
) -> None:
    images = batch[0].image[:5]
    found = (model.gradient(images, seed) for model in (shipped, twin))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(shipped.logits(images), twin.logits(images), rtol=1e-4, atol=1e-4)
    assert (shipped.image_shape, shipped.classes) == (twin.image_shape, twin.classes)


def test_padding_changes_no_row(shipped: OnnxModel, batch: tuple[Rows, np.ndarray]) -> None:
    images = batch[0].image
    logits, gradient = shipped.gradient(images, seed)
    for count in (1, 7, 9):  # each padded to another size
        part = shipped.gradient(images[:count], seed)
        np.testing.assert_allclose(part[0], logits[:count], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(part[1], gradient[:count], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(shipped.logits(images[:count]), logits[:count], atol=1e-4)


def fixed_batch(model: onnx.ModelProto, size: int) -> onnx.ModelProto:
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in (*fixed.graph.input, *fixed.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = size
    return fixed


def test_a_fixed_batch_is_padded() -> None:
    free = models.nhwc()
    wanted = Preprocessing(layout="nhwc")
    pair = OnnxModel(models.pair(free), wanted, device="cpu", threads=1)
    images = np.random.default_rng(0).random((5, 3, 4, 4)).astype(np.float32)
    logits, gradient = pair.gradient(images, np.ones_like)
    assert pair.logits(images[:3]).shape == (3, 10)
    open_, wide = (
        OnnxModel(model, wanted, device="cpu", threads=1) for model in (free, fixed_batch(free, 4))
    )
    np.testing.assert_allclose(gradient, open_.gradient(images, np.ones_like)[1], atol=1e-5)
    np.testing.assert_allclose(wide.gradient(images, np.ones_like)[1], gradient, atol=1e-5)
    offsets = models.OFFSETS[np.arange(5) % 2]
    np.testing.assert_allclose(logits, open_.logits(images) + offsets, atol=1e-4)


def test_preprocessing_is_part_of_the_gradient(demo_classifier: Any, twin: TorchModel) -> None:
    wanted = Preprocessing(mean=(0.3,), std=(0.5,))
    model = OnnxModel(demo_classifier.path, wanted, device="cpu", threads=1)
    images = np.random.default_rng(0).random((2, 1, 28, 28)).astype(np.float32)
    inside = twin.gradient((images - np.float32(0.3)) / np.float32(0.5), np.ones_like)[1]
    np.testing.assert_allclose(
        model.gradient(images, np.ones_like)[1], 2 * inside, rtol=1e-3, atol=1e-4
    )


def test_a_model_without_gradient_still_predicts() -> None:
    model = OnnxModel(models.flat(), device="cpu", threads=1)
    images = np.zeros((2, 3, 4, 4), np.float32)
    assert model.logits(images).shape == (2, 10)
    with pytest.raises(ModelError, match="is 0 everywhere: Sign"):
        model.gradient(images, np.ones_like)
    two = OnnxModel(models.two_outputs(), Preprocessing(logits="logits"), device="cpu")
    assert two.classes == 10
    with pytest.raises(ModelError):
        OnnxModel(Path("missing.onnx"))


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop = nn.BatchNorm2d(1), nn.Dropout(0.5)
        self.head = nn.Linear(16, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(self.norm(images)).flatten(1))


def test_a_torch_module_is_left_as_it_was() -> None:
    module = Odd().train()
    module.drop.eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    model = TorchModel(module, (1, 4, 4))
    images = np.random.default_rng(0).random((6, 1, 4, 4)).astype(np.float32)
    first, second = (model.gradient(images, np.ones_like)[1] for _ in range(2))
    np.testing.assert_array_equal(first, second)  # no dropout: evaluation mode
    assert [part.training for part in module.modules()] == [True, True, False, True]
    assert all(parameter.grad is None for parameter in module.parameters())
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_torch_module_works_where_gradients_are_off() -> None:
    model = TorchModel(Odd(), (1, 4, 4))
    images = np.ones((2, 1, 4, 4), np.float32)
    with torch.no_grad():
        assert model.gradient(images, np.ones_like)[1].any()
    with torch.inference_mode():
        assert model.gradient(images, np.ones_like)[1].any()


class Constant(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(images), 3)


def test_modules_that_are_no_classifier_are_refused() -> None:
    with pytest.raises(ModelError, match="logits with a gradient"):
        TorchModel(Constant(), (1, 4, 4)).gradient(np.ones((1, 1, 4, 4), np.float32), np.ones_like)
    with pytest.raises(ModelError, match=r"expected logits \(batch, classes\)"):
        TorchModel(nn.Identity(), (1, 4, 4))


class Named(nn.Module):
    """Its output is as that of transformers' classifiers."""

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": images.flatten(1)[:, :3]}


def test_an_output_that_names_its_logits_is_taken() -> None:
    model, images = TorchModel(Named(), (1, 4, 4)), np.ones((2, 1, 4, 4), np.float32)
    logits, gradient = model.gradient(images, np.ones_like)
    assert logits.tolist() == [[1, 1, 1]] * 2
    assert gradient.sum() == 6


def test_calls_cut_count_and_clean(shipped: OnnxModel, batch: tuple[Rows, np.ndarray]) -> None:
    images, seen = batch[0].image[:7], []
    calls = Calls(shipped, 3)

    def told(logits: np.ndarray, rows: slice) -> np.ndarray:
        seen.append((rows, len(logits)))
        return np.ones_like(logits)

    logits, _ = calls.gradient(images, told)
    np.testing.assert_allclose(logits, shipped.logits(images), rtol=1e-4, atol=1e-4)
    assert seen == [(slice(0, 3), 3), (slice(3, 6), 3), (slice(6, 7), 1)]
    assert (calls.gradients, calls.forwards) == (7, 0)
    assert parts(0, 3) == []

    class Wild:
        classes = 2

        def gradient(self, images: np.ndarray, seed: Any) -> tuple[np.ndarray, np.ndarray]:
            return np.zeros((len(images), 2), np.float32), np.array([[np.nan, np.inf, 1]])

    found = Calls(Wild(), 4).gradient(np.zeros((1, 3), np.float32), told)[1]
    np.testing.assert_array_equal(found, [[0, 0, 1]])


def test_an_operator_without_a_rule_is_named() -> None:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 18]>
        agraph (float[N, 1, 4, 4] x) => (float[N, 16] y) {
            d = Det(x)
            f = Flatten(x)
            y = Add(f, d)
        }""")
    opened = OnnxModel(model, device="cpu", threads=1)
    with pytest.raises(UnsupportedOperator, match="Det"):
        opened.gradient(np.ones((1, 1, 4, 4), np.float32), np.ones_like)
