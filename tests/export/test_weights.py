"""A network whose weights are inputs: its gradient is that of the weights as they are now."""

import numpy as np
import pytest
import torch
from nets import resnet18, settle, tiny

import jataug
from jataug.artifact import load_artifact
from jataug.errors import ArtifactError, ModelError
from jataug.export import export_attack
from jataug.export.check.gradient import gradient_graph
from jataug.export.model.load import load_model, prepare
from jataug.export.model.weights import weight_arrays, weight_names
from jataug.preprocessing import Preprocessing
from jataug.runtime.onnxruntime import Engine


def engine_of(module, images) -> Engine:
    plain = Preprocessing()
    proto = load_model(module, images, optimize=False)
    network = prepare(proto, preprocessing=plain, weights=weight_names(module))
    assert network.weights
    return Engine(gradient_graph(network, plain), {"N": len(images)}, "cpu", 1)


def both(engine, module, images, cotangent):
    """The gradient by the runtime and by torch in float64, with the weights as they are now."""
    feeds = {"image": images.numpy(), "cotangent": cotangent.numpy(), **weight_arrays(module)}
    ours = torch.from_numpy(engine.run(feeds)["gradient"])
    wide = images.double().requires_grad_()
    module.double()
    (theirs,) = torch.autograd.grad(module(wide), wide, cotangent.double())
    module.float()
    return ours, theirs


@pytest.mark.parametrize(("make", "size"), [(tiny, 16), (resnet18, 32)])
def test_changed_weights_change_the_gradient_as_torchs(make, size) -> None:
    module = make()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, size, size, generator=generator)
    cotangent = torch.randn(2, 10, generator=generator)
    engine = engine_of(module, images)
    seen = []
    for _ in range(2):
        ours, theirs = both(engine, module, images, cotangent)
        assert (ours - theirs).norm() < 1e-4 * theirs.norm()
        seen.append(ours)
        torch.manual_seed(1)
        for parameter in module.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
        settle(module, torch.rand(8, 3, size, size))
    assert (seen[0] - seen[1]).norm() > 0.1 * seen[0].norm()


def test_no_weight_is_in_the_file(tmp_path) -> None:
    module, path = resnet18(), tmp_path / "live.onnx"
    example = torch.zeros(2, 3, 32, 32)
    manifest = export_attack(
        module, jataug.AttackConfig(), path, example=example, weights="input", check=False
    )
    model, read = load_artifact(path)
    assert read.weights == manifest.weights
    assert {name.removeprefix("weights/") for name in read.weights} == set(weight_names(module))
    largest = max(np.prod(tensor.dims) for tensor in model.graph.initializer)
    assert largest < 1024  # the zeros that torch's exporter gives convolutions as their bias
    assert path.stat().st_size < 200_000


def test_the_self_check_reads_the_weights(tmp_path) -> None:
    manifest = export_attack(
        tiny(), jataug.AttackConfig(), tmp_path / "live.onnx", weights="input",
        example=torch.zeros(2, 3, 16, 16),
    )  # fmt: skip
    assert str(manifest.checked).startswith("onnxruntime")


def test_a_session_says_what_such_a_file_is_for(tmp_path) -> None:
    path = tmp_path / "live.onnx"
    example = torch.zeros(2, 3, 16, 16)
    export_attack(
        tiny(), jataug.AttackConfig(), path, weights="input", example=example, check=False
    )
    with pytest.raises(ArtifactError, match=r"weights are inputs, which jataug\.trainer binds"):
        jataug.Session.open(path)


def test_a_file_has_no_live_weights(tiny_net, tmp_path) -> None:
    with pytest.raises(ModelError, match="expected a torch module"):
        export_attack(tiny_net.path, jataug.AttackConfig(), tmp_path / "x.onnx", weights="input")
