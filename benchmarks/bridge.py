"""One attack step through OnnxModule (forward, loss, backward), beside the torch module.

    python benchmarks/bridge.py [--rounds 15] [--threads 1]

The unit is one forward pass of OnnxModule without a gradient. "repeated forward" is the other way
to build such a module: the forward graph, then the whole vector-Jacobian product, which computes
the forward pass again. Medians and quartiles are of the ratios within a round.
"""

import argparse
import sys
import warnings
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "examples"), str(Path(__file__).parent)]

import material  # noqa: E402  (from tests/: real models)
from timing import interleaved, machine, ratios  # noqa: E402

from jataug.bridge import OnnxModule  # noqa: E402
from jataug.export import differentiate  # noqa: E402
from jataug.runtime.onnxruntime import Engine  # noqa: E402

CASES = {
    "shipped classifier, 28x28, batch 64": (material.demo_classifier, 64),
    "ResNet-18, 32x32, batch 16": (material.resnet18_cifar, 16),
    "EfficientNet-Lite0, 224x224, batch 8": (material.efficientnet_lite0, 8),
}


def step(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    images = images.detach().requires_grad_()
    loss = nn.functional.cross_entropy(model(images), labels, reduction="sum")
    return torch.autograd.grad(loss, images)[0]


def measure(title: str, model: material.Model, batch: int, rounds: int, threads: int) -> None:
    bridge = OnnxModule(model.path, device="cpu", threads=threads)
    images = torch.rand(batch, *bridge.input_shape, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(batch) % 10
    whole = Engine(differentiate(model.path), {}, "cpu", threads)

    def forward() -> Tensor:
        with torch.no_grad():
            return bridge(images)

    def repeated() -> None:
        logits = forward().requires_grad_()
        loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
        (cotangent,) = torch.autograd.grad(loss, logits)
        whole.run(dict(zip(whole.inputs, (images.numpy(), cotangent.numpy()), strict=True)))

    work = {
        "OnnxModule forward": forward,
        "OnnxModule step": lambda: step(bridge, images, labels),
        "repeated forward, step": repeated,
        "torch step": lambda: step(model.module, images, labels),
    }
    print(f"\n{title}  (n = {rounds})")
    found = ratios(interleaved(work, rounds), "OnnxModule forward")
    for name, (median, low, high) in found.items():
        print(f"  {name:<24} {median:6.2f}   [{low:.2f}, {high:.2f}]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    print(f"{machine()}; onnxruntime {onnxruntime.__version__}, torch {torch.__version__}")
    print("in forward passes of OnnxModule: median [quartiles]")
    for title, (load, batch) in CASES.items():
        measure(title, load(), batch, options.rounds, options.threads)


if __name__ == "__main__":
    main()
