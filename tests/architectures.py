"""Image classifiers of transformers and torchvision: small, of random weights, exported to ONNX.

A table, one line each. Every file is made once and kept in the cache folder of tests/material.py.
"""

import copy
import hashlib
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import material
import nets
import torch
from families import LIST, NEWER, OLDER
from torch import Tensor, nn

from jataug.export.check.differentiation import report
from jataug.export.gradient.differentiate import vjp
from jataug.export.model.load import load_model, prepare
from jataug.runtime.onnxruntime import Engine

__all__ = ["ARCHITECTURES", "IMAGES", "Architecture", "Measured", "measure"]


class Architecture(NamedTuple):
    """One line of the table.

    Attributes:
        name: as people call it.
        make: the module, its weights drawn from torch's generator.
        size: height and width of its images.
        exporter: "dynamo", or "older" for the one that traces.
        opset: to export at.
    """

    name: str
    make: Callable[[], nn.Module]
    size: int
    exporter: str = "dynamo"
    opset: int = 18

    @property
    def title(self) -> str:
        return f"{self.name} ({self.exporter}, opset {self.opset})"

    def module(self) -> nn.Module:
        """Eval mode, seeded; batch norms hold the statistics of random images."""
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            module = self.make()
            _spread(module)
            module = nets.settle(module, torch.rand(8, 3, self.size, self.size))
        return module.requires_grad_(False)

    def exported(self, module: nn.Module) -> Path:
        """The file of a module that `module` made."""
        digest = hashlib.sha256(f"{torch.__version__} {self[2:]}".encode())
        for key, value in module.state_dict().items():
            digest.update(key.encode() + value.numpy().tobytes())
        path = material.cache() / f"architecture-{digest.hexdigest()[:16]}.onnx"
        if not path.is_file():
            partial = path.with_name(f".{path.name}.{os.getpid()}")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the exporters' own deprecations
                _export(self, module, torch.rand(2, 3, self.size, self.size), partial)
            partial.rename(path)
        return path


class Measured(NamedTuple):
    """How the gradient of one architecture compares.

    Attributes:
        error: relative l2 error of the gradient beside torch's in float64, the best of IMAGES.
        median: the median of the same.
        nodes: of the folded model.
        total: of the model with its gradient.
        rules: how often the rule of each op was used.
    """

    error: float
    median: float
    nodes: int
    total: int
    rules: dict[str, int]


IMAGES = 10
"""In float32 a ReLU or a maximum near its kink may fall on the other side of it than in float64,
and one that does moves the gradient by far more than rounding: the best image has none of these.
"""


def measure(architecture: Architecture) -> Measured:
    """Differentiate the file of an architecture, and compare with torch on random images."""
    module = architecture.module()
    network = prepare(load_model(architecture.exported(module)))
    gradient = vjp(network)
    random = torch.Generator().manual_seed(1)
    size = architecture.size
    images = torch.rand(IMAGES, 3, size, size, generator=random)
    seeds = torch.randn(IMAGES, 10, generator=random)
    engine = Engine(gradient, {"N": IMAGES}, "cpu")
    found = engine.run({"image": images.numpy(), "grad_logits": seeds.numpy()})["grad_image"]
    exact = copy.deepcopy(module).double()
    start = images.double().requires_grad_()
    (expected,) = torch.autograd.grad((exact(start) * seeds.double()).sum(), start)
    difference = (torch.from_numpy(found).double() - expected).flatten(1).norm(dim=1)
    errors = difference / expected.flatten(1).norm(dim=1)
    said = report(network)
    return Measured(
        float(errors.min()),
        float(errors.median()),
        said.nodes,
        len(gradient.graph.node),
        said.rules,
    )


def _export(wanted: Architecture, module: nn.Module, example: Tensor, path: Path) -> None:
    if wanted.exporter == "older":
        options: dict[str, Any] = {"dynamo": False, "dynamic_axes": {"image": {0: "batch"}}}
    else:
        batch = torch.export.Dim("batch")
        options = {"dynamo": True, "dynamic_shapes": ({0: batch},), "external_data": False}
    torch.onnx.export(
        module,
        (example,),
        path,
        opset_version=wanted.opset,
        input_names=["image"],
        output_names=["logits"],
        verbose=False,
        **options,
    )


def _spread(module: nn.Module) -> None:
    """Scale initial weights up: with those of training's start the image hardly moves the logits.

    Layer scales start at 1e-5 or 0 in many families, which hides whole branches.
    """
    for name, parameter in module.named_parameters():
        last = name.rpartition(".")[2]
        with torch.no_grad():
            if parameter.ndim >= 2 and parameter[0].numel() > 1:
                least = 0.7 * parameter[0].numel() ** -0.5
                if parameter.std() < least:
                    parameter.normal_(0, least)
            elif "gamma" in name or "lambda" in name or "layer_scale" in last or "beta" in last:
                parameter.uniform_(0.3, 0.7)


ARCHITECTURES = [Architecture(*line) for line in LIST]
ARCHITECTURES += [Architecture(*x, "older", OLDER[x[0]]) for x in LIST if x[0] in OLDER]
ARCHITECTURES += [Architecture(*x, "dynamo", NEWER[x[0]]) for x in LIST if x[0] in NEWER]
