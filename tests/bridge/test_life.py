"""OnnxModule as an object: processes, pickles, copies, and what torch expects of a module."""

import copy
import io
import multiprocessing
import pickle
import subprocess
import sys
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from jataug.bridge import OnnxModule, sessions
from jataug.bridge import module as bridge_module

needs_fork = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork"
)
# Python 3.12 warns of every fork of a process with threads; that it works is what is tested.
may_fork = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def module(tiny_net: Any) -> OnnxModule:
    return OnnxModule(tiny_net.path, threads=2)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def input_gradient(module: nn.Module, images: Tensor) -> Tensor:
    images = images.detach().clone().requires_grad_()
    module(images).square().sum().backward()
    assert images.grad is not None
    return images.grad


class Ascended(Dataset[tuple[Tensor, int]]):
    """Images moved by the gradient in whatever process asks; how often sessions were opened."""

    def __init__(self, module: OnnxModule, images: Tensor, opened: list[int]) -> None:
        self.module, self.images, self.opened = module, images, opened

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.images[index : index + 1]
        return (image + input_gradient(self.module, image))[0], len(self.opened)


@needs_fork
@may_fork
@pytest.mark.skipif(
    torch.version.cuda is not None,
    reason="a torch built with CUDA has no gradients in a fork of a process that computed some",
)
def test_workers_of_a_loader_open_their_own_sessions(
    tiny_net: Any, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []
    real = sessions.Sessions

    def counted(*args: Any) -> Any:
        opened.append(1)
        return real(*args)

    monkeypatch.setattr(bridge_module, "Sessions", counted)
    module = OnnxModule(tiny_net.path, threads=2)
    expected = images + input_gradient(module, images)
    loader = DataLoader(
        Ascended(module, images, opened),
        batch_size=3,
        num_workers=2,
        multiprocessing_context="fork",
        timeout=120,
    )
    moved, counts = zip(*loader, strict=True)
    torch.testing.assert_close(torch.cat(moved), expected)
    assert torch.cat(counts).tolist() == [2] * len(images)  # the parent's, and the worker's own
    assert len(opened) == 1


@pytest.mark.parametrize("as_file", [True, False])
def test_pickle_holds_the_model_and_no_session(
    tiny_net: Any, images: Tensor, as_file: bool
) -> None:
    module = OnnxModule(tiny_net.path if as_file else onnx.load(tiny_net.path))
    expected = module(images)
    stored = pickle.dumps(module)
    assert (len(stored) < 4096) == as_file
    torch.testing.assert_close(pickle.loads(stored)(images), expected)


def test_path_is_that_of_the_folder_it_was_given_in(
    tiny_net: Any, images: Tensor, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.chdir(tiny_net.path.parent)
    stored = pickle.dumps(OnnxModule(tiny_net.path.name))
    monkeypatch.chdir(tmp_path)
    assert pickle.loads(stored)(images).shape == (6, 10)


def test_deep_copy_and_torch_save(module: OnnxModule, images: Tensor) -> None:
    expected = input_gradient(module, images)
    torch.testing.assert_close(input_gradient(copy.deepcopy(module), images), expected)
    file = io.BytesIO()
    torch.save(nn.Sequential(module), file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    torch.testing.assert_close(input_gradient(loaded, images), expected)


def test_training_mode_changes_nothing(module: OnnxModule, images: Tensor) -> None:
    assert not module.training
    expected = input_gradient(module, images)
    torch.testing.assert_close(input_gradient(module.train(), images), expected)
    module.requires_grad_(True).zero_grad()
    torch.testing.assert_close(input_gradient(module, images), expected)


def test_checkpoints_neither_hold_nor_want_it(module: OnnxModule) -> None:
    assert not module.state_dict()
    whole = nn.Sequential(nn.Linear(2, 2), module)
    assert set(whole.state_dict()) == {"0.weight", "0.bias"}
    whole.load_state_dict(whole.state_dict(), strict=True)


def test_parameter_tells_the_device_and_nothing_else(module: OnnxModule) -> None:
    (marker,) = module.parameters()
    assert marker.device == torch.device("cpu")
    assert marker.numel() == 0
    assert not marker.requires_grad
    assert next(module.to("meta").parameters()).device == torch.device("meta")


def test_type_of_the_module_does_not_matter(module: OnnxModule, images: Tensor) -> None:
    expected = module(images)
    torch.testing.assert_close(module.double()(images), expected)


def test_inference_mode(module: OnnxModule, images: Tensor) -> None:
    with torch.inference_mode():
        found = module(images.clone())
    torch.testing.assert_close(found, module(images))


def test_repr_names_the_file_and_the_shapes(module: OnnxModule, tiny_net: Any) -> None:
    assert repr(module) == f"OnnxModule({str(tiny_net.path)!r}, (3, 16, 16) -> (10))"


def test_without_torch_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['torch'] = None\nimport jataug.bridge"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].startswith("jataug.errors.MissingExtra: ")
    assert "jataug[cpu,torch]" in done.stderr.splitlines()[-1]
