"""Which arrays a session takes on their device, and whose arrays it gives back.

There is no CUDA here: arrays say that they lie on it, and engines that they run there, while both
are on the CPU.
"""

import subprocess
import sys
from dataclasses import fields
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from jataug import DataError, MissingExtra, Session
from jataug.runtime.on_device import devices, foreign
from jataug.runtime.onnxruntime import Engine

from .sessions import images, levels


class Claiming(torch.Tensor):
    """A tensor that says that it lies on CUDA device 0."""

    number = 0

    def __dlpack_device__(self):
        return (2, self.number)


class ClaimingOne(Claiming):
    number = 1


class Array:
    """An array of another library: it holds a tensor, says that it lies on CUDA device 0, and
    cannot hold truth values.
    """

    def __init__(self, tensor):
        assert tensor.dtype != torch.bool
        self.tensor = tensor

    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, **_):
        return self.tensor.__dlpack__()

    def __array_namespace__(self):
        return SimpleNamespace(from_dlpack=Array)

    def __ne__(self, other):
        compared = Array(self.tensor)
        compared.tensor = self.tensor != other
        return compared


class Elsewhere:
    """An array whose library takes none in."""

    def __dlpack_device__(self):
        return (2, 0)


class CudaEngine(Engine):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.device = "cuda"


@pytest.fixture
def on_cuda(path, monkeypatch):
    """A session whose engines say that they are on CUDA device 0."""
    monkeypatch.setattr("jataug.runtime.session.engine_type", lambda *_: CudaEngine)
    with Session.open(path, device="cpu", batch_size=3) as opened:
        yield opened


@pytest.mark.parametrize("make", [images, levels])
def test_tensors_on_the_device_go_in_and_out(session, on_cuda, make):
    arguments = {"labels": np.arange(5), "indices": range(3, 8), "seed": 4, "epoch": 1, "steps": 2}
    arguments |= {"targets": np.arange(5) + 1, "flow": 0.3, "pixel": "4/255"}
    arguments["start"] = session.draw(
        make(5), range(3, 8), seed=4, epoch=1, flow=0.3, pixel="4/255"
    )
    expected = session.attack(make(5), **arguments)
    given = torch.from_numpy(make(5)).as_subclass(Claiming)
    found = on_cuda.attack(given, **arguments)
    for field in fields(expected):
        ours = getattr(found, field.name)
        assert type(ours) is torch.Tensor
        difference = np.abs(ours.numpy() - getattr(expected, field.name).astype(float))
        assert difference.max() <= (0 if field.name == "flow" else 1e-5), field.name
    assert torch.equal(on_cuda.predict(given), torch.from_numpy(on_cuda.predict(make(5))))


def test_arrays_of_another_library_go_in_and_out(on_cuda, monkeypatch):
    # torch's own asks CUDA for its stream.
    monkeypatch.setattr(foreign, "from_dlpack", lambda array: array.tensor)
    given = torch.from_numpy(images(4))
    expected = on_cuda.attack(given.as_subclass(Claiming), torch.arange(4), pixel=[0.01] * 4)
    found = on_cuda.attack(
        Array(given), Array(torch.arange(4)), Array(torch.arange(4)),
        pixel=Array(torch.full((4,), 0.01, dtype=torch.float64)),
    )  # fmt: skip
    for field in fields(expected):
        ours = getattr(found, field.name)
        assert type(ours) is Array
        assert torch.equal(ours.tensor, getattr(expected, field.name)), field.name
    assert type(on_cuda.predict(Array(given))) is Array


def test_a_module_of_the_arrays_name_will_do(monkeypatch):
    """As of cupy's arrays, which have no namespace in every version."""
    monkeypatch.setitem(sys.modules, "elsewhere", SimpleNamespace(from_dlpack=Array))
    monkeypatch.setattr(Elsewhere, "__module__", "elsewhere.core")
    assert type(foreign.library_of(Elsewhere())(torch.ones(1))) is Array


def refused(call, *args):
    with pytest.raises(DataError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_images_on_cuda_and_a_session_on_the_cpu(session):
    given = torch.from_numpy(images(2)).as_subclass(Claiming)
    for call in (session.attack, session.predict):
        assert refused(call, given) == (
            "images: expected an array on cpu, where the session computes, got one on cuda:0; "
            "open the session with device='cuda:0', or bring the images to cpu"
        )


def test_images_on_another_device_of_the_same_kind(on_cuda):
    given = torch.from_numpy(images(2)).as_subclass(ClaimingOne)
    said = refused(on_cuda.attack, given)
    assert "expected an array on cuda:0" in said
    assert "open the session with device='cuda:1'" in said


def test_a_library_that_takes_no_arrays_in(on_cuda):
    said = refused(on_cuda.attack, Elsewhere())
    assert "got Elsewhere, whose library has no from_dlpack; make a torch tensor of it" in said


@pytest.mark.skipif(torch.cuda.is_available(), reason="this torch has CUDA")
def test_a_torch_without_cuda(on_cuda):
    said = refused(on_cuda.attack, Array(torch.from_numpy(images(2))))
    assert said.startswith(f"images: expected an array that torch {torch.__version__} can read")


def test_without_torch(on_cuda, monkeypatch):
    for name in ("resident", "foreign", "tensor_calls"):
        monkeypatch.delitem(sys.modules, f"jataug.runtime.on_device.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    given = torch.from_numpy(images(2)).as_subclass(Claiming)
    with pytest.raises(MissingExtra, match=r"pip install 'jataug\[torch\]', or give the images"):
        on_cuda.attack(given)


def test_arrays_on_the_cpu_need_no_torch(path):
    code = (
        "import sys, numpy as np, jataug\n"
        f"with jataug.Session.open({str(path)!r}, device='cpu') as session:\n"
        "    session.attack(np.zeros((1, 16, 16, 3), np.uint8))\n"
        "print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_places():
    assert devices.place_of(np.zeros(1)) == ("cpu", 0)
    assert devices.place_of(Elsewhere()) == ("cuda", 0)
    for nowhere in ([1], None, "photo.png", torch.empty(1, device="meta")):
        assert devices.place_of(nowhere) is None
        assert not devices.is_on_cuda(nowhere)
    assert not devices.is_on_cuda(torch.zeros(1))
    assert devices.is_on_cuda(torch.zeros(1).as_subclass(Claiming))


def test_closing_lets_go(on_cuda):
    on_cuda.predict(torch.from_numpy(images(2)).as_subclass(Claiming))
    first = on_cuda._resident()
    on_cuda.close()
    assert on_cuda._resident() is not first
