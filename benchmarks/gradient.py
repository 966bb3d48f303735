"""(forward + gradient) / forward of a classifier on ONNX Runtime, beside eager torch and onnx-ad.

    python benchmarks/gradient.py [--rounds 15] [--only resnet18]

The unit is one forward pass on ONNX Runtime. The floor is 2.0: the input gradient takes as many
multiply-adds as the forward pass. Everything runs in one process, in turns; medians and quartiles
are of the ratios within a round. Gradients are compared with torch's in float64: in float32 a ReLU
whose input is within rounding of zero may fall on the other side, in torch as well as here.
"""

import argparse
import copy
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "examples"), str(Path(__file__).parent)]

import material  # noqa: E402  (from tests/: real models)
from families import declare_operators  # noqa: E402
from timing import Row, interleaved, machine, ratios  # noqa: E402

from jataug.export import differentiate  # noqa: E402
from jataug.runtime.onnxruntime import Engine  # noqa: E402
from jataug.trainer.models import build  # noqa: E402


def wide_resnet() -> material.Model:
    """WRN-28-10 with random weights: 36.5 million parameters, 5.2 billion multiply-adds."""
    return material.exported(
        build("wrn-28-10", {}, (3, 32, 32), 10), torch.zeros(2, 3, 32, 32), "wrn-28-10"
    )


def vision_transformer() -> material.Model:
    """ViT-S/16 with random weights, of transformers."""
    declare_operators()  # transformers imports torchvision where it finds it
    from transformers import ViTConfig, ViTForImageClassification

    sizes = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536}
    torch.manual_seed(0)
    model = ViTForImageClassification(ViTConfig(num_labels=1000, **sizes))
    return material.exported(Logits(model.eval()), torch.zeros(2, 3, 224, 224), "vit-s-16")


class Logits(torch.nn.Module):
    """The logits alone of a model of transformers."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values=image).logits


class Case(NamedTuple):
    """A model, the batch, and the bound of (forward + gradient) / forward."""

    load: Callable[[], material.Model]
    batch: int
    most: float


CASES = {
    "ResNet-18, 32x32, batch 32": Case(material.resnet18_cifar, 32, 2.2),
    "WRN-28-10, 32x32, batch 32": Case(wide_resnet, 32, 2.15),
    "EfficientNet-Lite0, 224x224, batch 1": Case(material.efficientnet_lite0, 1, 3.5),
    "EfficientNet-Lite0, 224x224, batch 8": Case(material.efficientnet_lite0, 8, 3.9),
    "EfficientNet-Lite0, 224x224, batch 32": Case(material.efficientnet_lite0, 32, 3.7),
    "ViT-S/16, 224x224, batch 1": Case(vision_transformer, 1, 2.15),
    "ViT-S/16, 224x224, batch 8": Case(vision_transformer, 8, 2.25),
}
SMOKE = {"demo classifier, batch 2": Case(material.demo_classifier, 2, np.inf)}
UNIT = "onnxruntime forward"
OURS = "jataug forward + gradient"


def onnx_ad_gradient(proto: onnx.ModelProto, feeds: dict[str, np.ndarray], seed: np.ndarray):
    """Return the peer's forward-and-gradient as a function, or why there is none."""
    try:
        import onnx_ad
    except ImportError:
        return "not installed"
    fixed = onnx.ModelProto()
    fixed.CopyFrom(proto)
    ((name, image),) = feeds.items()
    for value, size in ((fixed.graph.input[0], image.shape), (fixed.graph.output[0], seed.shape)):
        for dim, length in zip(value.type.tensor_type.shape.dim, size, strict=True):
            dim.dim_value = length
    del fixed.graph.value_info[:]
    fixed = onnx.shape_inference.infer_shapes(fixed, data_prop=True)
    output = fixed.graph.output[0].name
    try:
        adjoint = onnx_ad.reverse(fixed, inputs=[name], outputs=[output], layout="onnx")
        session = onnxruntime.InferenceSession(
            adjoint.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        extra = next(i.name for i in session.get_inputs() if i.name != name)
        everything = {**feeds, extra: seed[..., None]}
        session.run(None, everything)
    except Exception as error:
        return f"refuses: {str(error).splitlines()[0]}"
    return lambda: session.run(None, everything)


def double_gradient(module: torch.nn.Module, image: np.ndarray, seed: np.ndarray) -> np.ndarray:
    double = copy.deepcopy(module).double()
    x = torch.from_numpy(image).double().requires_grad_()
    return torch.autograd.grad(double(x), x, torch.from_numpy(seed).double())[0].numpy()


def distance(gradient: np.ndarray, exact: np.ndarray) -> float:
    return float(np.linalg.norm(gradient - exact) / np.linalg.norm(exact))


def measure(
    title: str, case: Case, rounds: int, peers: bool = True
) -> dict[str, tuple[float, float, float]]:
    """Print and return the ratios of one case; gradients that differ from torch's raise."""
    model, batch = case.load(), case.batch
    module = model.module.eval()
    proto = onnx.load(model.path)
    value = proto.graph.input[0]
    shape = [batch, *(d.dim_value for d in value.type.tensor_type.shape.dim[1:])]
    generator = np.random.default_rng(0)
    image = generator.random(shape, np.float32)
    symbol = value.type.tensor_type.shape.dim[0].dim_param
    forward = Engine(proto, {symbol: batch}, "cpu")
    gradient = Engine(differentiate(model.path), {"N": batch}, "cpu")
    seed = generator.standard_normal(forward.run({value.name: image})[forward.outputs[0]].shape)
    seed = seed.astype(np.float32)
    feeds = {value.name: image}
    both = dict(zip(gradient.inputs, (image, seed), strict=True))
    tensor, cotangent = torch.from_numpy(image), torch.from_numpy(seed)

    def torch_forward() -> None:
        with torch.no_grad():
            module(tensor)

    def torch_gradient() -> torch.Tensor:
        x = tensor.requires_grad_()
        return torch.autograd.grad(module(x), x, cotangent)[0]

    exact = double_gradient(module, image, seed)
    ours = distance(gradient.run(both)[gradient.outputs[-1]], exact)
    theirs = distance(torch_gradient().numpy(), exact)
    if ours > max(1e-2, 3 * theirs):  # a wrong rule is off by tens of percent
        raise SystemExit(f"{title}: the gradient is wrong: {ours:.1e} from torch's in float64")
    work = {UNIT: lambda: forward.run(feeds), OURS: lambda: gradient.run(both)}
    peer = onnx_ad_gradient(proto, feeds, seed) if peers else "not asked for"
    if peers:
        work |= {"torch forward": torch_forward, "torch forward + gradient": torch_gradient}
    if callable(peer):
        work["onnx-ad forward + gradient"] = peer
    found = ratios(interleaved(work, rounds), UNIT)
    print(f"\n{title}  (n = {rounds})")
    print(f"  gradient against torch in float64: jataug {ours:.1e}, torch in float32 {theirs:.1e}")
    for name, (median, low, high) in found.items():
        print(f"  {name:<28} {median:6.2f}   [{low:.2f}, {high:.2f}]", flush=True)
    if not callable(peer):
        print(f"  {'onnx-ad forward + gradient':<28} {peer}")
    return found


def rows(rounds: int, smoke: bool = False, only: str = "") -> Iterator[Row]:
    """Yield the rows of benchmarks/README.md, peers included."""
    for title, case in (SMOKE if smoke else CASES).items():
        if only.lower() not in title.lower().replace("-", ""):
            continue
        for name, found in measure(title, case, rounds).items():
            if name.endswith("gradient"):
                bound = case.most if name == OURS else None
                yield Row(f"{title}: {name}", "forwards", *found, most=bound)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="part of a case's name, without hyphens")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"{machine()}; onnxruntime {onnxruntime.__version__}, torch {torch.__version__}")
    print("in forward passes of onnxruntime: median [quartiles]")
    for _ in rows(options.rounds, only=options.only):
        pass


if __name__ == "__main__":
    main()
