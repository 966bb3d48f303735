"""What one may pass to OnnxModule, how autograd may use it, and what it refuses."""

import weakref
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from jataug.bridge import OnnxModule, sessions
from jataug.errors import DataError, ModelError, RuntimeUnavailable, UnsupportedOperator
from jataug.export.rules import table

from . import models
from .comparing import batch_of, cotangents, gradient, in_double, relative


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_float_types_come_back(tiny: OnnxModule, dtype: torch.dtype) -> None:
    images, cotangent = batch_of(tiny, 2).to(dtype), cotangents(2)
    assert tiny(images).dtype == dtype
    torch.testing.assert_close(tiny(images), tiny(images.float()).to(dtype))
    found = gradient(tiny, images, cotangent.to(dtype))
    assert found.dtype == dtype
    expected = gradient(tiny, images.float(), cotangent.to(dtype).float())
    assert relative(found.float(), expected.double()) < 1e-2


def test_tensors_in_any_order_of_memory(tiny: OnnxModule) -> None:
    images, cotangent = batch_of(tiny, 4), cotangents(4)
    strided = images.to(memory_format=torch.channels_last)
    assert not strided.is_contiguous()
    torch.testing.assert_close(tiny(strided), tiny(images))
    expanded = cotangent[:1].expand(4, 10)
    torch.testing.assert_close(
        gradient(tiny, strided, expanded), gradient(tiny, images, expanded.clone())
    )


@pytest.mark.parametrize(
    ("images", "got"),
    [
        (torch.zeros(2, 3, 16, 16, dtype=torch.uint8), r"got torch.uint8 \(2, 3, 16, 16\)"),
        (torch.zeros(2, 3, 16, 17), r"got torch.float32 \(2, 3, 16, 17\)"),
        (torch.zeros(3, 16, 16), r"got torch.float32 \(3, 16, 16\)"),
        (torch.zeros(()), r"got torch.float32 \(\)"),
        (np.zeros((2, 3, 16, 16), np.float32), "got ndarray"),
    ],
)
def test_other_images_are_refused(tiny: OnnxModule, images: Any, got: str) -> None:
    expected = r"^images: expected a float tensor \(batch, 3, 16, 16\), "
    with pytest.raises(DataError, match=expected + got + "$"):
        tiny(images)


def test_no_images(tiny: OnnxModule) -> None:
    images = batch_of(tiny, 2)[:0].requires_grad_()
    with torch.no_grad():
        assert tiny(images).shape == (0, 10)
    logits = tiny(images)
    logits.sum().backward()
    assert (logits.shape, images.grad.shape) == ((0, 10), images.shape)


def test_eight_threads_give_what_one_gives(tiny_net: Any, tiny: OnnxModule) -> None:
    fresh = OnnxModule(tiny_net.path, threads=1)  # it opens in all of them at once
    batches = [torch.rand(5, 3, 16, 16, generator=torch.manual_seed(k)) for k in range(8)]
    cotangent, barrier = cotangents(5), Barrier(8)

    def both(module: OnnxModule, images: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            logits = module(images)
        return logits, gradient(module, images, cotangent)

    def begun(images: Tensor) -> list[tuple[Tensor, Tensor]]:
        barrier.wait()
        return [both(fresh, images) for _ in range(3)]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(begun, batches))
    for images, made in zip(batches, found, strict=True):
        expected = both(tiny, images)
        for one in made:
            assert all(map(torch.equal, one, expected))


def test_without_gradient_only_the_forward_graph_is_opened(
    tiny_net: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def engine(model: onnx.ModelProto, *args: Any) -> Any:
        opened.append(model.graph.name)
        return real(model, *args)

    real = sessions.Engine
    monkeypatch.setattr(sessions, "Engine", engine)
    module = OnnxModule(tiny_net.path)
    images = batch_of(module, 2).requires_grad_()
    with torch.no_grad():
        assert not module(images).requires_grad
    assert not module(images.detach()).requires_grad
    assert opened == ["forward"]
    assert module(images).requires_grad
    assert opened == ["forward", "forward", "backward"]


def test_gradient_twice_from_one_forward(tiny: OnnxModule) -> None:
    images = batch_of(tiny, 2).requires_grad_()
    logits = tiny(images)
    first, second = (
        torch.autograd.grad(logits[:, k].sum(), images, retain_graph=True)[0] for k in (0, 1)
    )
    torch.testing.assert_close(first, gradient(tiny, images, torch.eye(10)[[0, 0]]))
    torch.testing.assert_close(second, gradient(tiny, images, torch.eye(10)[[1, 1]]))


def test_as_a_part_of_a_larger_function(tiny_net: Any, tiny: OnnxModule) -> None:
    class Larger(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, images: Tensor) -> Tensor:
            scale = images.square().mean((1, 2, 3), keepdim=True).flatten(1)
            return self.inner(images.flip(3)).softmax(1) * scale

    images, cotangent = batch_of(tiny, 3), cotangents(3)
    expected = in_double(Larger(tiny_net.module), images, cotangent)
    assert relative(gradient(Larger(tiny), images, cotangent), expected) < 1e-4


@pytest.mark.parametrize("backward", [True, False])
def test_what_the_forward_kept_is_freed_with_its_result(tiny: OnnxModule, backward: bool) -> None:
    images = batch_of(tiny, 2).requires_grad_()
    logits = tiny(images)
    node = weakref.ref(logits.grad_fn)
    assert node() is not None
    if backward:
        logits.sum().backward()
    del logits
    assert node() is None


def test_second_derivative_is_refused(tiny: OnnxModule) -> None:
    images = batch_of(tiny, 2).requires_grad_()
    (first,) = torch.autograd.grad(tiny(images).sum(), images, create_graph=True)
    with pytest.raises(UnsupportedOperator, match="at most one derivative"):
        first.square().sum().backward()


def test_op_without_a_rule_stops_only_the_gradient(
    tiny_net: Any, tiny: OnnxModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(table._RULES, ("", "Conv"))
    module = OnnxModule(tiny_net.path)
    images = batch_of(module, 2).requires_grad_()
    logits = module(images)
    torch.testing.assert_close(logits, tiny(images))
    with pytest.raises(UnsupportedOperator, match="Conv"):
        logits.sum().backward()


def test_output_that_ignores_the_image_has_no_gradient() -> None:
    module = OnnxModule(models.flat())
    logits = module(batch_of(module, 2).requires_grad_())
    with pytest.raises(ModelError, match=r"'logits' is 0 everywhere: Sign"):
        logits.sum().backward()


def test_missing_file_and_device(tmp_path: Any, tiny_net: Any) -> None:
    with pytest.raises(ModelError, match=r"none\.onnx"):
        OnnxModule(tmp_path / "none.onnx")
    module = OnnxModule(tiny_net.path, device="tpu")
    with pytest.raises(RuntimeUnavailable, match="'tpu'"):
        module(batch_of(module, 1))


@pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="this onnxruntime has no CUDA provider",
)
@pytest.mark.parametrize("place", ["cpu", "cuda"])
def test_cuda(tiny_net: Any, tiny: OnnxModule, place: str) -> None:
    if place == "cuda" and not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    module = OnnxModule(tiny_net.path, device="cuda")
    images, cotangent = batch_of(module, 3).to(place), cotangents(3).to(place)
    found = gradient(module, images, cotangent)
    assert found.device == images.device
    torch.testing.assert_close(module(images).cpu(), tiny(images.cpu()), rtol=1e-4, atol=1e-5)
    expected = gradient(tiny, images.cpu(), cotangent.cpu())
    assert relative(found.cpu(), expected.double()) < 1e-4
