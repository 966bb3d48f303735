"""What the torch attack must hold, as checks: tests run them, planted faults must fail them."""

from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import jataug.warp
from jataug import AttackConfig, FlowBudget, PixelBudget
from jataug.attack import JointAttack, joint
from jataug.attack.problem import Problem, read
from jataug.attack.render import render
from jataug.config import PRESETS

COMBINATIONS = {**PRESETS, "claim-12": {**PRESETS["claim-8"], "flow_objective": "truth"}}
"""Of order, composition and objectives: the presets, and claim 12, whose flow ascends the truth."""

SLACK = 2.0**-24
"""A unit in the last place of an image near 1: what rendering T + d may round away."""


class Linear(nn.Module):
    """Logits linear in the image, summed in float64: no batch size changes a bit that matters."""

    def __init__(self, shape, classes=4, scale=0.3, seed=5):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(scale * torch.randn(classes, *shape, generator=generator))

    def forward(self, image):
        return (image.double()[:, None] * self.weight.double()).sum((2, 3, 4)).float()


def images(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def smooth(*shape, seed=0):
    """Images with structure larger than a pixel, away from 0 and 1: a small flow matters."""
    batch, channel, height, width = shape
    coarse = images(batch, channel, max(height // 4, 1), max(width // 4, 1), seed=seed)
    fine = nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")
    return (0.2 + 0.6 * fine).clamp(0, 1)


def problem(model, image, config, **options) -> Problem:
    given = {"labels": None, "indices": None, "targets": None, "seed": 0, "epoch": 0}
    radius = {"flow": options.pop("flow", None), "pixel": options.pop("pixel", None)}
    with torch.no_grad():
        return read(model, config, image, radius=radius, **(given | options))


def check_zero_state_is_identity():
    image = images(2, 3, 7, 5)
    state = {"flow": torch.zeros(2, 2, 7, 5), "pixel": torch.zeros_like(image)}
    for composition in ("spatial-pixel", "pixel-spatial"):
        assert torch.equal(render(image, state, composition), image)


def check_warp_agrees_with_numpy():
    image, flow = images(2, 3, 7, 5), 3 * images(2, 2, 7, 5, seed=1) - 1.5
    expected = jataug.warp.warp(image.double().numpy(), flow.double().numpy())
    found = render(image, {"flow": flow}, "spatial-pixel").numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def check_budgets(config):
    """Flow exactly inside; the image inside to the rounding of an image value."""
    image = images(6, 3, 9, 7)
    model = Linear((3, 9, 7))
    flow, pixel = np.linspace(0, 2.5, 6), np.linspace(8 / 255, 0, 6)
    result = JointAttack(config)(model, image, flow=flow, pixel=pixel)
    vectors = result.flow.double()
    size = vectors.abs().amax(1) if config.flow.norm == "linf" else vectors.norm(dim=1)
    assert (size.amax((1, 2)).numpy() <= flow.astype(np.float32)).all()

    delta = result.delta.double().flatten(1)
    bound = torch.from_numpy(pixel.astype(np.float32)).double()
    if config.pixel.norm == "linf":
        assert (delta.abs().amax(1) <= bound + SLACK).all()
    else:
        assert (delta.norm(dim=1) <= bound + SLACK * delta.shape[1] ** 0.5).all()
    assert (result.adversarial >= 0).all()
    assert (result.adversarial <= 1).all()


def check_state_budgets(norms):
    """Every state on the way is inside its budgets, exactly in float32."""
    config = AttackConfig(
        flow=FlowBudget(0.7, norms[0]),
        pixel=PixelBudget("8/255" if norms[1] == "linf" else 0.5, norms[1]),
        pixel_step=1.0,
        flow_step=3.0,
    )
    # Far from 0 and 1, and with values that add without rounding, only the ball is at work.
    image = (images(3, 3, 8, 8) * 16).round() / 64 + 0.375
    posed = problem(Linear((3, 8, 8)), image, config, pixel=2**-5)
    state = joint.start(posed)
    for _ in range(3):
        state, _ = joint.iterate(posed, state)
        flow, delta = state["flow"], state["pixel"]
        w = flow.abs() if norms[0] == "linf" else flow.square().sum(1, keepdim=True).sqrt()
        assert (w <= torch.tensor(0.7)).all()
        if norms[1] == "linf":
            assert (delta.abs() <= 2**-5 + SLACK).all()
        else:
            assert (delta.double().flatten(1).norm(dim=1) <= 2**-5 + SLACK * 14).all()


def check_gradient_is_of_the_sum():
    """The gradient of an image in a batch is its gradient alone: no mean over the batch."""
    image = smooth(4, 3, 8, 8)
    model, config = Linear((3, 8, 8)), AttackConfig(start="zero")
    label, target = [0, 1, 2, 3], [1, 2, 3, 0]
    whole = problem(model, image, config, labels=label, targets=target)
    together, _ = joint.ascent(whole, joint.start(whole), ("flow", "pixel"))
    for i in range(4):
        one = problem(model, image[i : i + 1], config, labels=label[i : i + 1], targets=[target[i]])
        alone, _ = joint.ascent(one, joint.start(one), ("flow", "pixel"))
        for branch in alone:
            torch.testing.assert_close(together[branch][i], alone[branch][0], rtol=1e-4, atol=1e-6)


def check_loss_is_per_image():
    image = smooth(4, 3, 8, 8)
    config = AttackConfig.preset("evaluation", steps=2)
    result = JointAttack(config)(Linear((3, 8, 8)), image, labels=[0, 1, 2, 3])
    expected = cross_entropy(result.logits, result.label, reduction="none")
    assert result.loss.shape == (4,)
    torch.testing.assert_close(result.loss, expected)


def measured(objective, logits, label, target):
    truth = cross_entropy(logits, label, reduction="none")
    towards = cross_entropy(logits, target, reduction="none")
    return {"truth": truth, "target": -towards, "margin": truth - towards}[objective]


def check_ascends(objective, radii):
    """Every image's objective is higher after the attack, whatever the attack itself reports."""
    image, model = smooth(5, 3, 12, 12), Linear((3, 12, 12), scale=0.1)
    config = AttackConfig(
        flow=FlowBudget(radii[0]),
        pixel=PixelBudget(radii[1]),
        flow_objective=objective,
        pixel_objective=objective,
        start="zero",
        steps=5,
    )
    label, target = torch.tensor([0, 1, 2, 3, 0]), torch.tensor([1, 0, 3, 2, 2])
    given = target if config.targeted else None
    result = JointAttack(config)(model, image, label, targets=given)
    with torch.no_grad():
        before = measured(objective, model(image), label, target)
        after = measured(objective, model(result.adversarial), label, target)
    assert (after > before).all()


def small(config, **options):
    """The configuration with budgets large enough to matter on a small image."""
    return replace(config, flow=FlowBudget(0.7), pixel=PixelBudget("16/255"), **options)
