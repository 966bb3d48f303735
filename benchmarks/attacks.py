"""A whole attack on ResNet-18: images to adversarial images, beside other libraries, in one run.

    python benchmarks/attacks.py [--rounds 9]

The unit is one forward pass on ONNX Runtime; ten gradients are at least twenty of them, and ten
joint steps forty. All return the last iterate; Session.attack also projects it and measures what it
returns, one forward more, as every call does. The others return what they computed. What an
iteration of ours takes and what all the rest does are told apart by a run of half the steps.
Everything runs in one process, in turns; medians and quartiles are of the ratios within a round.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
PLACES = ("tests", "tests/bridge", "examples", "benchmarks")
sys.path[:0] = [str(ROOT / place) for place in PLACES]

import material  # noqa: E402  (from tests/)
from strength_peers import FLOW, PIXEL, art, foolbox_pgd, torchattacks  # noqa: E402
from timing import Row, interleaved, print_rows, ratios  # noqa: E402

import jataug  # noqa: E402
from jataug.attack import JointAttack  # noqa: E402
from jataug.export import export_attack  # noqa: E402

STEPS, BATCH = 10, 32
STEP = 2.5 * PIXEL / STEPS
LAST = jataug.AttackConfig.preset("evaluation", steps=STEPS, keep="last")
PGD = LAST.replace(flow=jataug.FlowBudget(0), pixel=jataug.PixelBudget(PIXEL))
JOINT = LAST.replace(flow=jataug.FlowBudget(FLOW), pixel=jataug.PixelBudget(PIXEL))
UNIT = "onnxruntime forward"
OURS = "jataug, Session.attack"
HALF = "jataug, half the steps"
Work = dict[str, Callable[[], object]]


def eager_pgd(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The shortest PGD in torch: nothing is measured, nothing kept."""
    delta = torch.empty_like(images).uniform_(-PIXEL, PIXEL)
    for _ in range(STEPS):
        delta.requires_grad_()
        loss = nn.functional.cross_entropy(model((images + delta).clamp(0, 1)), labels)
        (gradient,) = torch.autograd.grad(loss, delta)
        delta = (delta.detach() + STEP * gradient.sign()).clamp(-PIXEL, PIXEL)
    return (images + delta).clamp(0, 1)


def session_of(model: material.Model, config: jataug.AttackConfig, folder: Path) -> jataug.Session:
    path = folder / f"{config.flow.radius}.onnx"
    export_attack(model.path, config, path, check=False)
    return jataug.Session.open(path, device="cpu", batch_size=BATCH)


def contestants(model: material.Model, compiled: nn.Module, folder: Path) -> tuple[Work, Work]:
    torch.manual_seed(0)
    shape = onnx.load(model.path).graph.input[0].type.tensor_type.shape.dim
    images = torch.rand(BATCH, *(d.dim_value for d in shape[1:]))
    labels = torch.arange(BATCH) % 10
    arrays, module = (images.numpy(), labels.numpy()), model.module.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(True)  # as a model comes; torchattacks wants it
    peers = {
        "torchattacks": torchattacks("PGD", alpha=STEP, steps=STEPS),
        "foolbox": foolbox_pgd(STEPS),
        "ART": art(
            "ProjectedGradientDescent",
            eps=PIXEL, eps_step=STEP, max_iter=STEPS, num_random_init=1, batch_size=BATCH,
        ),
    }  # fmt: skip
    ours = {config.flow.radius: session_of(model, config, folder) for config in (PGD, JOINT)}
    unit = {UNIT: lambda: ours[0.0].predict(arrays[0])}
    pixel = {
        OURS: lambda: ours[0.0].attack(*arrays),
        HALF: lambda: ours[0.0].attack(*arrays, steps=STEPS // 2),
        "eager torch": lambda: eager_pgd(module, images, labels),
        "torch.compile": lambda: eager_pgd(compiled, images, labels),
        **{name: lambda attack=attack: attack(module, images, labels)
           for name, attack in peers.items()},
    }  # fmt: skip
    joint = {
        OURS: lambda: ours[FLOW].attack(*arrays),
        HALF: lambda: ours[FLOW].attack(*arrays, steps=STEPS // 2),
        "eager torch": lambda: JointAttack(JOINT)(module, images, labels),
        "torch.compile": lambda: JointAttack(JOINT)(compiled, images, labels),
    }
    return {**unit, **pixel}, {**unit, **joint}


def parts(seconds: Mapping[str, list[float]]) -> dict[str, list[float]]:
    """Return what an iteration of ours takes, and what all else does, in every round."""
    pairs = zip(seconds[OURS], seconds[HALF], strict=True)
    iteration = [(whole - half) / (STEPS - STEPS // 2) for whole, half in pairs]
    rest = [whole - STEPS * one for whole, one in zip(seconds[OURS], iteration, strict=True)]
    return {
        UNIT: seconds[UNIT],
        "jataug, an iteration": iteration,
        "jataug, all but the iterations": rest,
    }


def rows(rounds: int, smoke: bool = False) -> Iterator[Row]:
    """Yield the rows of benchmarks/README.md: ours in forwards, the others in ours."""
    model = material.demo_classifier() if smoke else material.resnet18_cifar()
    name = "demo classifier" if smoke else "ResNet-18"
    module = model.module.eval()
    compiled = module if smoke else torch.compile(module, fullgraph=True)
    with tempfile.TemporaryDirectory() as folder:
        for (title, most, least), work in zip(
            (("PGD", 21.5, 1.45), ("joint", 43.0, 1.6)),
            contestants(model, compiled, Path(folder)),
            strict=True,
        ):
            title = f"{name}, batch {BATCH}, {title}, {STEPS} steps"
            seconds = interleaved(work, rounds)
            forwards, ours = ratios(seconds, UNIT), ratios(seconds, OURS)
            yield Row(f"{title}: {OURS}", "forwards", *forwards[OURS], most=most)
            for part, found in ratios(parts(seconds), UNIT).items():
                if part != UNIT:
                    yield Row(f"{title}: {part}", "forwards", *found)
            for peer in work:
                if peer in (UNIT, OURS, HALF):
                    continue
                bound = 1.15 if peer == "torch.compile" else least
                yield Row(f"{title}: {peer}", OURS, *ours[peer], least=bound)


if __name__ == "__main__":
    print_rows(__doc__, rows, 9)
