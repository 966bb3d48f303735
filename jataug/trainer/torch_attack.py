"""The torch attack on the current weights (claims 15, 18): JointAttack's iterations, unmeasured."""

from typing import Any

import torch
from torch import Tensor, nn

from ..attack import JointAttack
from ..attack.joint import iterate, start
from ..attack.problem import read
from ..attack.render import render
from ..config import AttackConfig

__all__ = ["perturb"]


def perturb(
    model: nn.Module,
    config: AttackConfig,
    images: Tensor,
    labels: Tensor,
    indices: Any,
    *,
    seed: int,
    epoch: int,
) -> Tensor:
    """Return adversarial images: as `images`.

    They are those of `JointAttack(config)`, but for what it does after the iterations: the flow is
    not rounded to float16, and no forward pass measures the result. The model is in evaluation mode
    meanwhile, its weights are constants, and its statistics stay.

    Args:
        model: images in [0, 1] to logits; not wrapped for several processes.
        config: the attack.
        images: (batch, channel, height, width), float32 in [0, 1].
        labels: (batch,), int64.
        indices: (batch,), the samples' indices, which name the random streams.
        seed: with `epoch`, what else names them.
        epoch: see `seed`.
    """
    training = model.training
    model.eval()
    try:
        if config.keep == "best":
            attack = JointAttack(config)
            found: Tensor = attack(model, images, labels, indices, seed=seed, epoch=epoch).exact
            return found
        none: dict[Any, Any] = {"flow": None, "pixel": None}
        with torch.no_grad():
            problem = read(
                model, config, images, labels, indices, None, none, seed=seed, epoch=epoch
            )
            state = start(problem)
            for iteration in range(config.steps if config.branches else 0):
                state, _ = iterate(problem.for_iteration(iteration), state)
            return render(problem.image, state, config.composition)
    finally:
        model.train(training)
