"""The models of on_cuda.py: with images and labels, their sessions and their torch modules."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Self

import material  # from tests/
import numpy as np
import onnx
import torch
from gradient import declare_operators

import jataug
from jataug.export import export_attack
from jataug.runtime.onnxruntime import Engine

__all__ = ["Case", "Subject", "apart", "resnet50", "shown", "sizes_of"]

TARGET = "cuda"


def resnet50() -> material.Model:
    """ResNet-50 of torchvision with random weights."""
    declare_operators()
    from torchvision.models import resnet50 as make

    torch.manual_seed(0)
    return material.exported(make().eval(), torch.zeros(2, 3, 224, 224), "resnet-50")


class Case(NamedTuple):
    """A model and the images in a batch."""

    load: Callable[[], material.Model]
    batch: int


class Subject:
    """A model with images and labels, and its sessions; close it, or use it in a with block."""

    def __init__(self, case: Case, device: str) -> None:
        self.model, self.batch, self.device = case.load(), case.batch, device
        self.proto = onnx.load(self.model.path)
        sizes = [d.dim_value for d in self.proto.graph.input[0].type.tensor_type.shape.dim[1:]]
        generator = np.random.default_rng(0)
        self.levels = generator.integers(0, 256, (self.batch, *sizes[1:], sizes[0]), np.uint8)
        self.images = (self.levels.transpose(0, 3, 1, 2) / 255).astype(np.float32)
        self.labels = np.arange(self.batch) % 10
        self._folder = tempfile.TemporaryDirectory(prefix="jataug-")
        self._artifacts = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._folder.cleanup()

    @property
    def on_card(self) -> bool:
        """Whether the device is a GPU."""
        return self.device != "cpu"

    def artifact(self, config: jataug.AttackConfig, **options: Any) -> Path:
        """Return the path of the attack, exported."""
        self._artifacts += 1
        path = Path(self._folder.name) / f"{self._artifacts}.onnx"
        export_attack(self.model.path, config, path, check=False, target=TARGET, **options)
        return path

    def session(
        self,
        config: jataug.AttackConfig,
        device: str | None = None,
        precision: Any = None,
        batch: int | None = None,
        **options: bool,
    ) -> jataug.Session:
        """Return a session on the attack."""
        path = self.artifact(config, precision=precision)
        size = batch or self.batch
        where = device or self.device
        return jataug.Session.open(path, device=where, batch_size=size, **options)

    def engine(self, proto: onnx.ModelProto, device: str) -> Engine:
        """Return a model compiled for the batch."""
        symbol = proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param
        return Engine(proto, {symbol: self.batch}, device)

    def on_torch(self) -> tuple[torch.Tensor, torch.Tensor, torch.nn.Module]:
        """Return images, labels and the module on the device."""
        module = self.model.module.eval().to(self.device)
        for parameter in module.parameters():
            parameter.requires_grad_(True)  # torchattacks reads the device from them
        tensors = (torch.from_numpy(a).to(self.device) for a in (self.images, self.labels))
        return (*tensors, module)


def sizes_of(value: onnx.ValueInfoProto, batch: int) -> list[int]:
    """Return the shape of an input or output."""
    return [d.dim_value or batch for d in value.type.tensor_type.shape.dim]


def apart(found: np.ndarray, golden: np.ndarray) -> float:
    """Return the distance relative to the golden's length."""
    return float(np.linalg.norm(found - golden) / np.linalg.norm(golden))


def shown(values: tuple[float, float, float], digits: int) -> str:
    """Return a median with its quartiles."""
    middle, low, high = values
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
