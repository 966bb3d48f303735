"""Gradients of real classifiers: torch's; onnx-ad's and onnx2pytorch's as a third opinion."""

import warnings
from dataclasses import replace

import material
import numpy as np
import onnx
import pytest
import torch
from families import declare_operators

from jataug.export import differentiate
from jataug.export.rules import table

from .checking import on_runtime

TOLERANCE = 1e-4


def check_against_torch(model, image):
    vjp = differentiate(model.path)
    onnx.checker.check_model(vjp, full_check=True)
    leaf = torch.from_numpy(image).requires_grad_()
    logits = model.module(leaf)
    seed = np.random.default_rng(1).standard_normal(logits.shape).astype(np.float32)
    logits.backward(torch.from_numpy(seed))
    names = [value.name for value in vjp.graph.input]
    value, found = on_runtime(vjp, dict(zip(names, (image, seed), strict=True)))
    for ours, theirs in ((value, logits.detach().numpy()), (found, leaf.grad.numpy())):
        error = np.linalg.norm(ours.astype(np.float64) - theirs) / np.linalg.norm(theirs)
        assert error <= TOLERANCE, f"{error:.1e}"


def noise(*shape):
    return np.random.default_rng(0).random(shape).astype(np.float32)


def test_tiny_net(tiny_net):
    check_against_torch(tiny_net, noise(5, 3, 16, 16))


def test_resnet18(resnet18_cifar):
    check_against_torch(resnet18_cifar, noise(2, 3, 32, 32))


def test_demo_classifier_on_its_images(demo_classifier, demo_images):
    check_against_torch(demo_classifier, demo_images[0][:32, None].astype(np.float32) / 255)


def test_efficientnet_lite0_on_photographs(efficientnet_lite0, photos):
    names = ("astronaut.png", "chelsea.png")
    pixels = np.concatenate([material.efficientnet_photo(photos / name) for name in names])
    normal = (pixels - material.EFFICIENTNET_MEAN) / material.EFFICIENTNET_STD
    check_against_torch(efficientnet_lite0, normal.astype(np.float32))


def test_onnx_ad_has_the_same_gradient(tiny_net):
    onnx_ad = pytest.importorskip("onnx_ad", reason="onnx-ad, a third opinion, is not installed")
    image, seed = noise(2, 3, 16, 16), noise(2, 10) - 0.5
    # It takes no symbolic batch.
    fixed = onnx.load(tiny_net.path)
    for value in (fixed.graph.input[0], fixed.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    del fixed.graph.value_info[:]
    fixed = onnx.shape_inference.infer_shapes(fixed, data_prop=True)
    peer = onnx_ad.reverse(fixed, inputs=["image"], outputs=["logits"], layout="onnx")
    (extra,) = {value.name for value in peer.graph.input} - {"image"}
    results = [value.name for value in peer.graph.output]
    theirs = on_runtime(peer, {"image": image, extra: seed[..., None]})
    ours = on_runtime(differentiate(tiny_net.path), {"image": image, "grad_logits": seed})[1]
    (found,) = (array for array in theirs if array.size == image.size)
    error = np.linalg.norm(found.reshape(image.shape) - ours) / np.linalg.norm(ours)
    assert error <= TOLERANCE, f"{results}: {error:.1e}"


@pytest.mark.parametrize("name", ["tiny_net", "demo_classifier"])
def test_onnx2pytorch_has_the_same_gradient(request, name):
    """The file read back into torch, and differentiated there."""
    declare_operators()  # onnx2pytorch imports torchvision
    onnx2pytorch = pytest.importorskip(
        "onnx2pytorch", reason="onnx2pytorch, a third opinion, is not installed"
    )
    path = request.getfixturevalue(name).path
    image = noise(4, 3, 16, 16) if name == "tiny_net" else noise(4, 1, 28, 28)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # onnx2pytorch's
        module = onnx2pytorch.ConvertModel(onnx.load(path), experimental=True).eval()
        leaf = torch.from_numpy(image).requires_grad_()
        logits = module(leaf)
    seed = np.random.default_rng(1).standard_normal(logits.shape).astype(np.float32)
    logits.backward(torch.from_numpy(seed))
    theirs = leaf.grad.numpy()
    vjp = differentiate(path)
    names = [value.name for value in vjp.graph.input]
    ours = on_runtime(vjp, dict(zip(names, (image, seed), strict=True)))[1]
    error = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
    assert error <= TOLERANCE, f"{error:.1e}"


def test_a_gradient_off_by_a_thousandth_is_found(tiny_net, monkeypatch):
    right = table._RULES["", "Conv"][0]

    def off(*terms, **attributes):
        return right.pullback(*terms, **attributes) * 1.001

    monkeypatch.setitem(table._RULES["", "Conv"], 0, replace(right, pullback=off))
    with pytest.raises(AssertionError):
        check_against_torch(tiny_net, noise(5, 3, 16, 16))
