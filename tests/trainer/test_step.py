"""Training steps against the method's formulas (docs/method.md), written out here in float64.

Only the random streams and the order of the images are the library's. Faults planted in the trainer
must fail the comparison.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from jataug import AttackConfig, FlowBudget, PixelBudget, streams
from jataug.attack import joint, objective
from jataug.smoothing import Smoothing
from jataug.trainer import Part, TrainConfig, batches, load_run, loop, train
from jataug.trainer.data import epoch_order, load_data
from jataug.trainer.runtime_attack import LiveAttack

SEED, EPOCHS, STEPS, BATCH, ATTACKED = 5, 2, 2, 16, 12
RATE, GAMMA, MOMENTUM, DECAY, AMOUNT = 0.2, 0.5, 0.9, 0.05, 0.4
CLAIM_1 = ("flow-pixel", "spatial-pixel", "margin", "target")
CLAIM_8 = ("pixel-flow", "pixel-spatial", "target", "target")
CLAIM_12 = ("pixel-flow", "pixel-spatial", "truth", "target")
FLOW, PIXEL = 0.6, 0.08

Weights = dict[str, Tensor]


def logits_of(weights: Weights, images: Tensor) -> Tensor:
    """The network trainer_nets.Smooth."""
    hidden = torch.tanh(images.flatten(1) @ weights["1.weight"].T + weights["1.bias"])
    return hidden @ weights["3.weight"].T + weights["3.bias"]


def warp(images: Tensor, flow: Tensor) -> Tensor:
    """x(p + w(p)), bilinear, coordinates clamped to the image."""
    count, channels, height, width = images.shape
    column = (torch.arange(width) + flow[:, 0]).clamp(0, width - 1)
    row = (torch.arange(height)[:, None] + flow[:, 1]).clamp(0, height - 1)
    left, top = column.detach().floor().clamp(max=width - 2), row.detach().floor()
    top = top.clamp(max=height - 2)
    across, down = (column - left)[:, None], (row - top)[:, None]

    def at(rows: Tensor, columns: Tensor) -> Tensor:
        place = (rows * width + columns).long()[:, None].expand(-1, channels, -1, -1)
        return images.flatten(2).gather(2, place.flatten(2)).view(count, channels, height, width)

    upper = (1 - across) * at(top, left) + across * at(top, left + 1)
    lower = (1 - across) * at(top + 1, left) + across * at(top + 1, left + 1)
    return (1 - down) * upper + down * lower


def clip(images: Tensor) -> Tensor:
    """Into [0, 1]; gradients pass through."""
    return images + (images.clamp(0, 1) - images).detach()


def attacked(
    weights: Weights, claim: tuple[str, ...], x: Tensor, y: Tensor, indices: list[int], epoch: int
) -> Tensor:
    """Claims 1-14: two iterations, whose step sizes are the radii."""
    order, composition, *objectives = claim
    ascends = dict(zip(("flow", "pixel"), objectives, strict=True))
    named = {"epoch": epoch}
    drawn = streams.target_labels(SEED, indices, y.numpy(), 3, iteration=0, **named)
    t, shape = torch.from_numpy(drawn), x.shape[1:]
    w = [streams.flow_start(SEED, i, shape[1:], FlowBudget(FLOW), **named) for i in indices]
    d = [streams.pixel_start(SEED, i, shape, PixelBudget(PIXEL), **named) for i in indices]
    flow, delta = (torch.from_numpy(np.stack(start)).double() for start in (w, d))

    def base(flow: Tensor) -> Tensor:
        return warp(x, flow) if composition == "spatial-pixel" else x

    def render(flow: Tensor, delta: Tensor) -> Tensor:
        if composition == "spatial-pixel":
            return clip(warp(x, flow) + delta)
        return warp(clip(x + delta), flow)

    def shortened(flow: Tensor) -> Tensor:
        length = flow.norm(dim=1, keepdim=True)
        return torch.where(length <= FLOW, flow, flow * FLOW / length.clamp(min=1e-30))

    def within(delta: Tensor, flow: Tensor) -> Tensor:
        return (base(flow) + delta.clamp(-PIXEL, PIXEL)).clamp(0, 1) - base(flow)

    def gradient(branch: str) -> Tensor:
        leaves = {"flow": flow.clone().requires_grad_(), "pixel": delta.clone().requires_grad_()}
        log_p = logits_of(weights, render(leaves["flow"], leaves["pixel"])).log_softmax(1)
        towards, away = log_p.gather(1, t[:, None]).sum(), -log_p.gather(1, y[:, None]).sum()
        ascended = {"truth": away, "target": towards, "margin": away + towards}
        return torch.autograd.grad(ascended[ascends[branch]], leaves[branch])[0]

    flow = shortened(flow)
    delta = within(delta, flow)
    for _ in range(2):
        for branch in order.split("-"):
            ascent = gradient(branch)
            if branch == "flow":
                size = ascent.norm(dim=1, keepdim=True)  # 0 beyond the border in both directions
                flow = shortened(flow + FLOW * torch.where(size > 0, ascent / size, 0))
            else:
                delta = within(delta + PIXEL * ascent.sign(), flow)
    return render(flow, delta)


def smoothed(labels: Tensor, convention: str) -> Tensor:
    """Claim 19: the true class has 1 - s, each other one s / (K - 1); or torch's convention."""
    hard = torch.nn.functional.one_hot(labels, 3).double()
    if convention == "authors":
        return hard * (1 - AMOUNT) + (1 - hard) * AMOUNT / 2
    return hard * (1 - AMOUNT) + AMOUNT / 3


def expected(config: TrainConfig, claim: tuple[str, ...], weights: Weights) -> Weights:
    """The weights after all steps: claims 15-20, SGD with momentum and weight decay."""
    data = load_data(config)
    velocity: Weights = {}
    for epoch in range(EPOCHS):
        for step in range(STEPS):
            order = epoch_order(data, SEED, epoch)
            indices = order[step * BATCH : (step + 1) * BATCH].tolist()
            x, y = data.images.take(indices).double() / 255, data.labels[indices]
            part = slice(0, ATTACKED)
            found = attacked(weights, claim, x[part], y[part], indices[part], epoch)
            images = torch.cat([found, x[ATTACKED:]]).detach()
            leaves = {name: value.clone().requires_grad_() for name, value in weights.items()}
            log_p = logits_of(leaves, images).log_softmax(1)
            loss = -(smoothed(y, config.convention) * log_p).sum() / BATCH
            gradients = torch.autograd.grad(loss, list(leaves.values()))
            for (name, value), gradient in zip(weights.items(), gradients, strict=True):
                decayed = gradient + DECAY * value
                velocity[name] = MOMENTUM * velocity.get(name, 0) + decayed
            rate = RATE * GAMMA**epoch
            weights = {name: value - rate * velocity[name] for name, value in weights.items()}
    return weights


def check_steps(
    options: dict[str, Any],
    claim: tuple[str, ...] = CLAIM_1,
    convention: str = "authors",
    runtime: bool = False,
) -> None:
    """The weights of a run are those of the formulas, to a thousandth of what they moved by."""
    order, composition, flow, pixel = claim
    attack = AttackConfig(
        flow=FlowBudget(FLOW), pixel=PixelBudget(PIXEL), steps=2, order=order,
        composition=composition, flow_objective=flow, pixel_objective=pixel,
    )  # fmt: skip
    shares = {"attack": 8, "runtime": 4} if runtime else {"attack": ATTACKED}
    config = TrainConfig(
        source=options["source"], output=options["output"], device="cpu", seed=SEED, attack=attack,
        model="trainer_nets:Smooth", label_smoothing=AMOUNT, convention=convention, epochs=EPOCHS,
        mixture=tuple(Part(kind, n / BATCH) for kind, n in {**shares, "clean": 4}.items()),
        batch_size=BATCH, lr=RATE, momentum=MOMENTUM, weight_decay=DECAY, milestones=(1,),
        gamma=GAMMA, pad=0, flip=False, limit=42, validation=10, evaluation_images=0,
    )  # fmt: skip
    assert load_data(config).steps(BATCH) == STEPS
    untrained = config.replace(output=f"{config.output}-untrained", epochs=0, mixture=())
    before, after = weights_of(untrained), weights_of(config)
    wanted = expected(config, claim, before)
    apart, moved = (
        torch.cat([(one[name] - other[name]).flatten() for name in before]).norm()
        for one, other in ((after, wanted), (wanted, before))
    )
    assert moved > 0.1
    assert apart < 1e-3 * moved, "the weights are not those of the formulas"


def weights_of(config: TrainConfig) -> Weights:
    state = load_run(train(config).output, "last").module.state_dict()
    return {name: value.double() for name, value in state.items()}


@pytest.mark.parametrize("claim", [CLAIM_1, CLAIM_8, CLAIM_12], ids=["1", "8", "12"])
def test_steps_are_those_of_the_formulas(claim, options) -> None:
    check_steps(options, claim, runtime=True)


def test_torchs_smoothing_is_its_formula(options) -> None:
    check_steps(options, convention="torch")


def without_epoch(attack: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *given, **named: attack(*given, **{**named, "epoch": 0})


def always(convention: str) -> Callable[..., Smoothing]:
    return lambda amount, _: Smoothing(amount, convention)


def optimizer(**fixed: float) -> Callable[..., torch.optim.Optimizer]:
    kind = torch.optim.SGD
    return lambda parameters, **named: kind(parameters, **{**named, **fixed})


def downhill(*given: Any) -> Tensor:
    return -objective.cotangent(*given)


FAULTS: dict[str, tuple[Any, str, Any, dict[str, Any]]] = {
    "the epoch is missing from the attack's streams":
        (batches, "perturb", without_epoch(batches.perturb), {}),
    "the epoch is missing from the runtime part's streams":
        (LiveAttack, "__call__", without_epoch(LiveAttack.__call__), {"runtime": True}),
    "the convention is ignored": (loop, "Smoothing", always("authors"), {"convention": "torch"}),
    "the convention is torch's": (loop, "Smoothing", always("torch"), {}),
    "no momentum": (torch.optim, "SGD", optimizer(momentum=0), {}),
    "no weight decay": (torch.optim, "SGD", optimizer(weight_decay=0), {}),
    "the attack descends": (joint, "cotangent", downhill, {}),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_found(fault, options, monkeypatch) -> None:
    place, name, wrong, more = FAULTS[fault]
    monkeypatch.setattr(place, name, wrong)
    with pytest.raises(AssertionError, match="not those of the formulas"):
        check_steps(options, **more)
