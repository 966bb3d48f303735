"""OnnxModule against torch and against a plain ONNX Runtime session."""

from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from material import EFFICIENTNET_MEAN, EFFICIENTNET_STD, efficientnet_photo
from torch import Tensor, nn

from jataug.bridge import OnnxModule
from jataug.errors import ModelError
from jataug.preprocessing import Preprocessing

from . import models
from .comparing import batch_of, cotangents, gradient, in_double, relative


@pytest.mark.parametrize("net", ["tiny_net", "demo_classifier", "efficientnet_lite0"])
def test_forward_is_that_of_onnxruntime(net: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(net).path
    module = OnnxModule(path)
    images = batch_of(module, 2)
    plain = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (expected,) = plain.run(None, {plain.get_inputs()[0].name: images.numpy()})
    with torch.no_grad():
        assert relative(module(images), torch.from_numpy(expected).double()) < 1e-5
    assert relative(module(images.requires_grad_()), torch.from_numpy(expected).double()) < 1e-5


@pytest.mark.parametrize("net", ["tiny_net", "demo_classifier"])
@pytest.mark.parametrize("count", [1, 3, 7])
def test_gradient_is_that_of_torch(net: str, count: int, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(net)
    module = OnnxModule(model.path)
    images, cotangent = batch_of(module, count), cotangents(count)
    expected = in_double(model.module, images, cotangent)
    assert relative(gradient(module, images, cotangent), expected) < 1e-4


def test_gradient_of_a_real_network_at_photographs(efficientnet_lite0: Any, photos: Any) -> None:
    # Where a unit lies at the kink of its ReLU6, two correct gradients differ by 1e-3, as torch's
    # in float32 and float64 do at some photographs; a wrong one differs at all of them.
    preprocessing = Preprocessing(mean=(EFFICIENTNET_MEAN,), std=(EFFICIENTNET_STD,))
    module = OnnxModule(efficientnet_lite0.path, preprocessing)
    cotangent = cotangents(1, 1000)
    errors = []
    for name in ("chelsea.png", "astronaut.png", "china.jpg"):
        image = torch.from_numpy(efficientnet_photo(photos / name))
        seen = (image.double() - EFFICIENTNET_MEAN) / EFFICIENTNET_STD
        expected = in_double(efficientnet_lite0.module, seen, cotangent) / EFFICIENTNET_STD
        errors.append(relative(gradient(module, image, cotangent), expected))
    assert min(errors) < 1e-4
    assert max(errors) < 5e-2


def test_empty_batch(tiny: OnnxModule) -> None:
    images = torch.zeros(0, 3, 16, 16, requires_grad=True)
    logits = tiny(images)
    logits.sum().backward()
    assert logits.shape == (0, 10)
    assert images.grad is not None
    assert images.grad.shape == images.shape


@pytest.mark.parametrize("count", [1, 2, 5])
def test_fixed_batch_runs_in_chunks(tiny_net: Any, tiny: OnnxModule, count: int) -> None:
    fixed = OnnxModule(models.pair(onnx.load(tiny_net.path)))
    images, cotangent = batch_of(tiny, count), cotangents(count)
    offsets = torch.from_numpy(models.OFFSETS).repeat(3, 1)[:count]
    torch.testing.assert_close(fixed(images), tiny(images) + offsets)
    torch.testing.assert_close(
        gradient(fixed, images, cotangent), gradient(tiny, images, cotangent)
    )


class Described(nn.Module):
    """What `models.nhwc` computes of images in [0, 1], by the words of Preprocessing."""

    mean = (0.2, 0.4, 0.6)
    std = (0.5, 1.0, 2.0)

    def forward(self, images: Tensor) -> Tensor:
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (self.mean, self.std))
        seen = ((images * 2 - mean) / std).flip(1).permute(0, 2, 3, 1).to(images.dtype)
        return seen.flatten(1).sin() @ torch.from_numpy(models.WEIGHT).to(images.dtype)


DESCRIPTION = {
    "mean": Described.mean,
    "std": Described.std,
    "scale": 2,
    "layout": "nhwc",
    "channels": "bgr",
}


def test_preprocessing_is_differentiated_too() -> None:
    module = OnnxModule(models.nhwc(), Preprocessing(**DESCRIPTION))
    assert module.input_shape == (3, 4, 4)
    images, cotangent = batch_of(module, 3), cotangents(3)
    torch.testing.assert_close(module(images), Described()(images))
    expected = gradient(Described(), images.double(), cotangent)
    assert relative(gradient(module, images, cotangent), expected) < 1e-5


def test_probabilities_become_logits() -> None:
    description = Preprocessing(**DESCRIPTION, outputs="probabilities")
    module = OnnxModule(models.nhwc("y = Softmax(h)"), description)
    images = batch_of(module, 3)
    torch.testing.assert_close(module(images), Described()(images))


def test_images_in_and_probabilities_out_are_refused_until_it_is_said() -> None:
    model = models.nhwc("y = Softmax(h)")
    with pytest.raises(ModelError, match=r"Softmax.*--outputs probabilities.*--outputs logits"):
        OnnxModule(model, Preprocessing(**DESCRIPTION))
    module = OnnxModule(model, Preprocessing(**DESCRIPTION, outputs="logits"))
    torch.testing.assert_close(module(batch_of(module, 3)).sum(1), torch.ones(3))


def test_without_preprocessing_the_input_is_the_network_s_own() -> None:
    module = OnnxModule(models.nhwc("y = Softmax(h)"))
    assert module.input_shape == (4, 4, 3)
    torch.testing.assert_close(module(batch_of(module, 3)).sum(1), torch.ones(3))


def test_output_is_chosen_by_name() -> None:
    with pytest.raises(ModelError, match=r"logits.*features"):
        OnnxModule(models.two_outputs())
    module = OnnxModule(models.two_outputs(), Preprocessing(logits="features"))
    assert module.output_shape == (48,)
