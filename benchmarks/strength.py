"""How strong the attacks are: ours beside those of other libraries, on the same torch models.

    python benchmarks/strength.py [--smoke] [--images 1000] [--fresh]

Four small Fashion-MNIST classifiers: trained on clean images, and on images attacked on the fly by
jataug.attack.JointAttack (pixel, flow and both). A cell is a model and an attack: same images,
same budget, and where both have them the same steps. Cells are kept in results/strength.json as
they are made, so a run that was stopped goes on; models are kept in .cache. Accuracy is measured
here, on the float32 images that an attack returned, after a clip to the budget.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

ROOT = Path(__file__).resolve().parent.parent
PLACES = ("tests", "tests/bridge", "examples", "benchmarks")
sys.path[:0] = [str(ROOT / place) for place in PLACES]

import material  # noqa: E402  (from tests/)
from strength_peers import FLOW, PEERS, PIXEL  # noqa: E402
from timing import machine  # noqa: E402

from jataug.attack import JointAttack  # noqa: E402
from jataug.attack.projection import ball  # noqa: E402
from jataug.attack.warp import warp  # noqa: E402
from jataug.budget import FlowBudget, PixelBudget  # noqa: E402
from jataug.config import AttackConfig  # noqa: E402
from jataug.data import open_source  # noqa: E402
from jataug.evaluation.attacks.perturbation import Context  # noqa: E402
from jataug.evaluation.attacks.restarts import run_tries  # noqa: E402
from jataug.evaluation.attacks.suite import attacks_of  # noqa: E402
from jataug.evaluation.attacks.tries import Rows  # noqa: E402
from jataug.evaluation.models.model import Calls  # noqa: E402
from jataug.evaluation.models.torch import TorchModel  # noqa: E402
from jataug.evaluation.report.contents import Rate  # noqa: E402

RESULTS = Path(__file__).parent / "results"
SLOW = {"SpatialTransformation, grid of 63": 300}
"""Attacks that see fewer images: this one takes a second for some of them."""

KINDS = {"natural": (0.0, 0.0), "pixel": (0.0, PIXEL), "flow": (FLOW, 0.0), "joint": (FLOW, PIXEL)}
"""Flow and pixel radius of the attack in training."""


class Net(nn.Sequential):
    """Logits of grey 28x28 images; 0.6 million multiply-adds."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(1568, 128), nn.ReLU(), nn.Linear(128, 10),
        )  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """What a run is made of."""

    images: int
    training: int
    batches: int


def load(part: str, count: int) -> tuple[Tensor, Tensor]:
    folder = material.fashion_mnist()
    if folder is None:
        raise SystemExit("needs the Debian package dataset-fashion-mnist")
    source = open_source(folder / f"{part}-images-idx3-ubyte.gz")
    levels = np.stack([source.read(i) for i in range(count)])
    labels = torch.tensor([source.label(i) for i in range(count)])
    images = torch.from_numpy(levels).permute(0, 3, 1, 2).float() / 255
    return images.contiguous(), labels


def trained(kind: str, setting: Setting) -> nn.Module:
    """The classifier of a kind, from the cache where it is there."""
    path = material.cache() / f"strength-{kind}-{setting.training}-{setting.batches}.npz"
    torch.manual_seed(0)
    model = Net()
    if not path.is_file():
        train(model, kind, setting)
        np.savez(path, **{k: v.numpy() for k, v in model.state_dict().items()})
    with np.load(path, allow_pickle=False) as file:
        model.load_state_dict({name: torch.from_numpy(file[name]) for name in file.files})
    return model.eval().requires_grad_(False)


def train(model: nn.Module, kind: str, setting: Setting) -> None:
    images, labels = load("train", setting.training)
    flow, pixel = KINDS[kind]
    attack = JointAttack(
        AttackConfig(
            flow=FlowBudget(flow), pixel=PixelBudget(pixel), steps=3, flow_objective="truth",
            pixel_objective="truth",
        )
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=2e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=setting.batches)
    for number in range(setting.batches):
        chosen = torch.randint(len(images), (128,))
        x, y = images[chosen], labels[chosen]
        if kind != "natural":
            x = attack(model, x, y, chosen.numpy(), epoch=number).adversarial
        optimizer.zero_grad()
        cross_entropy(model.train()(x), y).backward()
        optimizer.step()
        schedule.step()


OURS = {
    "fgsm": ("pixel", "fgsm"),
    "pgd, 20 steps": ("pixel", "pgd:steps=20"),
    "apgd-ce, 20 steps": ("pixel", "apgd-ce:steps=20"),
    "apgd-targeted, 9 x 20 steps": ("pixel", "apgd-targeted:steps=20:targets=9"),
    "flow, 10 steps": ("flow", "flow:steps=10"),
    "flow, 20 steps": ("flow", "flow:steps=20"),
    "flow, 100 steps": ("flow", "flow:steps=100"),
    "joint, 10 steps": ("joint", "joint:steps=10"),
    "joint, 20 steps": ("joint", "joint:steps=20"),
    "joint-pixel-flow, 20 steps": ("joint", "joint-pixel-flow:steps=20"),
    "joint-targets, 3 x 20 steps": ("joint", "joint-targets:steps=20:targets=3"),
    "rotate-grid, 63": ("rotation", "rotate-grid:angles=7:shifts=3:border=zero"),
}


def ours(text: str, radii: tuple[float, float]) -> Callable[..., Tensor]:
    (attack,) = attacks_of([text], "quick").values()

    def run(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        subject = TorchModel(model, (1, 28, 28))
        rows = Rows.first_tries(images.numpy(), labels.numpy(), np.arange(len(images)), *radii)
        calls = Calls(subject, 128)
        logits = calls.logits(rows.image)
        return torch.from_numpy(run_tries(attack, calls, rows, logits, Context()).image)

    return run


def adam_flow(steps: int, rate: float) -> Callable[..., Tensor]:
    """stAdv with a hard bound: Adam on the flow, projected after every step; the best kept."""

    def run(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return warp(images, best_flow(model, images, labels, steps, rate))

    return run


def best_flow(model: nn.Module, images: Tensor, labels: Tensor, steps: int, rate: float) -> Tensor:
    flow = torch.zeros(len(images), 2, *images.shape[2:], requires_grad=True)
    optimizer = torch.optim.Adam([flow], rate)
    radius, held = torch.full((len(images),), FLOW), torch.zeros_like(flow)
    best = torch.full((len(images),), -torch.inf)
    for step in range(steps + 1):
        logits = model(warp(images, flow))
        loss = cross_entropy(logits, labels, reduction="none")
        with torch.no_grad():
            rank = loss + 1e6 * (logits.argmax(1) != labels)
            wins = rank > best
            held[wins], best[wins] = flow[wins], rank[wins]
        if step < steps:
            optimizer.zero_grad()
            (-loss.sum()).backward()
            optimizer.step()
            with torch.no_grad():
                flow.copy_(ball("flow", flow, radius, "l2"))
    return held.detach()


def in_sequence(steps: int, rate: float) -> Callable[..., Tensor]:
    """A flow by Adam first, then a perturbation by PGD on the warped image: each its own budget."""

    def run(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        moved = warp(images, best_flow(model, images, labels, steps, rate))
        config = AttackConfig.preset(
            "evaluation", flow=FlowBudget(0), pixel=PixelBudget(PIXEL), steps=steps
        )
        return JointAttack(config)(model, moved.clamp(0, 1), labels).exact

    return run


BASELINES: dict[str, tuple[str, Callable[..., Tensor]]] = {
    **{f"stAdv (Adam {rate}), {steps} steps": ("flow", adam_flow(steps, rate))
       for steps, rate in ((20, 0.02), (20, 0.1), (100, 0.02))},
    **{f"stAdv then PGD (Adam {rate}), 20 + 20 steps": ("joint", in_sequence(20, rate))
       for rate in (0.02, 0.1)},
}  # fmt: skip


def attacks() -> dict[str, dict[str, tuple[str, Callable[..., Tensor]]]]:
    radii = {"pixel": (0.0, PIXEL), "flow": (FLOW, 0.0), "joint": (FLOW, PIXEL),
             "rotation": (0.0, 0.0)}  # fmt: skip
    made = {name: (threat, ours(text, radii[threat])) for name, (threat, text) in OURS.items()}
    return {"jataug": made, "baseline": BASELINES, **PEERS}


def measure(
    model: nn.Module, images: Tensor, labels: Tensor, threat: str, attack: Callable[..., Tensor]
) -> dict[str, Any]:
    attack(model, images[:2].clone(), labels[:2].clone())  # what is imported is not timed
    torch.manual_seed(0)
    began = time.perf_counter()
    found = attack(model, images.clone(), labels.clone()).detach().float()
    seconds = time.perf_counter() - began
    largest = float((found - images).abs().max()) if threat == "pixel" else None
    if threat == "pixel":
        found = images + (found - images).clamp(-PIXEL, PIXEL)
    with torch.no_grad():
        right = model(found.clamp(0, 1)).argmax(1) == labels
    rate = Rate.from_counts(int(right.sum()), len(right))
    return {
        "accuracy": rate.value, "low": rate.low, "high": rate.high, "n": rate.total,
        "seconds": seconds, "largest": largest,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--batches", type=int, default=600, help="of training, 128 images each")
    parser.add_argument("--smoke", action="store_true", help="few images and batches, one model")
    parser.add_argument("--fresh", action="store_true", help="make every cell again")
    options = parser.parse_args()
    setting = Setting(options.images, 20_000, options.batches)
    kinds = list(KINDS)
    if options.smoke:
        setting, kinds = Setting(16, 4000, 60), ["joint"]
    file = RESULTS / ("strength-smoke.json" if options.smoke else "strength.json")
    cells = {} if options.fresh or not file.is_file() else json.loads(file.read_text())
    images, labels = load("t10k", setting.images)
    state = f"{setting.images} images, {setting.batches} batches"
    for kind in kinds:
        model = trained(kind, setting)
        todo = {"none": {"clean": ("none", lambda _, x, __: x)}, **attacks()}
        for library, made in todo.items():
            for name, (threat, attack) in made.items():
                key = f"{state} | {kind} | {library} | {name}"
                if key not in cells:
                    few = slice(SLOW.get(name))
                    try:
                        cells[key] = measure(model, images[few], labels[few], threat, attack)
                    except material.UnavailableError as error:
                        cells[key] = {"error": str(error)}
                    cells[key] |= {"model": kind, "library": library, "attack": name,
                                   "threat": threat}  # fmt: skip
                    RESULTS.mkdir(exist_ok=True)
                    file.write_text(json.dumps(cells, indent=1) + "\n")
                print(key, cells[key].get("accuracy"), flush=True)
    rows = [cell for key, cell in cells.items() if key.startswith(state)]
    text = table(rows, setting)
    print(text)
    if not options.smoke:
        (RESULTS / "strength.md").write_text(text, encoding="utf-8")
    else:
        file.unlink()


def table(cells: list[dict[str, Any]], setting: Setting) -> str:
    """The accuracies in percent, with the seconds of each cell, as Markdown."""
    kinds = list(dict.fromkeys(cell["model"] for cell in cells))
    lines = [
        "# Strength of the attacks", "",
        f"`python benchmarks/strength.py --images {setting.images} --batches {setting.batches}`: "
        f"the first {setting.images} Fashion-MNIST test images, pixel radius 8/255 (linf), flow "
        f"radius {FLOW} px (l2), rotations up to 30 degrees with shifts up to 3 px, black outside. "
        "Models by what they were trained on. Accuracy in percent (lower is stronger); one "
        f"image is {100 / setting.images:.2f} points. Seconds of one run a cell. "
        f"{machine()}", "",
        f"| may change | library | attack | {' | '.join(kinds)} |",
        f"|---|---|---|{'---|' * len(kinds)}",
    ]  # fmt: skip
    for threat in ("none", "pixel", "flow", "joint", "rotation"):
        names = dict.fromkeys((c["library"], c["attack"]) for c in cells if c["threat"] == threat)
        for library, name in names:
            found = {c["model"]: c for c in cells if (c["library"], c["attack"]) == (library, name)}
            shown = [_cell(found.get(kind, {}), setting.images) for kind in kinds]
            lines.append(f"| {threat} | {library} | {name} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def _cell(cell: dict[str, Any], images: int) -> str:
    if "accuracy" not in cell:
        return "-"
    few = f", n = {cell['n']}" if cell["n"] != images else ""
    return f"{100 * cell['accuracy']:.1f} ({cell['seconds']:.1f} s{few})"


if __name__ == "__main__":
    main()
