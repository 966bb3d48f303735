"""What the graph of the attack must hold, as checks: tests run them, planted faults must fail
them.
"""

import numpy as np

from jataug import AttackConfig, FlowBudget, PixelBudget
from jataug.export.attack.body import Body, Inputs, State
from jataug.preprocessing import Preprocessing

from .building import artifact, compute, network, one_call, start

__all__ = ["check_ascends", "check_budgets", "check_image_gradients", "check_losses", "exact"]


def exact(objective, logits, label, target):
    """Return the losses (batch,) and their gradients (batch, classes), in float64."""
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    rows, one_hot = np.arange(len(logits)), np.eye(logits.shape[1])
    p, y, t = np.exp(log_p), -log_p[rows, label], -log_p[rows, target]
    return {
        "truth": (y, p - one_hot[label]),
        "target": (-t, one_hot[target] - p),
        "margin": (y - t, one_hot[target] - one_hot[label]),
    }[objective]


def check_ascends(path, objective, branch):
    """One small step of either branch, from a random state, raises the objective of every image."""
    left_out = {"flow": {"pixel": PixelBudget(0)}, "pixel": {"flow": FlowBudget(0)}}[branch]
    config = AttackConfig(
        **{"flow": FlowBudget(0.6), "pixel": PixelBudget(0.05), **left_out},
        flow_step=0.01,
        pixel_step=0.002,
        flow_objective=objective,
        pixel_objective=objective,
    )
    model, manifest = artifact(path, config)
    feeds = start(manifest, 8)
    before = one_call(model, feeds)
    moved = {name: before[f"next_{name}"] for name in ("flow", "delta") if name in feeds}
    after = one_call(model, {**feeds, **moved})
    labels = feeds["label"], feeds["target"]
    gain = exact(objective, after["logits"], *labels)[0]
    gain -= exact(objective, before["logits"], *labels)[0]
    assert (gain > 0).all()


def check_budgets(path, branch, norm, composition):
    """A step far too large ends inside the budgets and the image in [0, 1]."""
    config = AttackConfig(
        flow=FlowBudget(0.6, norm),
        pixel=PixelBudget(0.05 if norm == "linf" else 0.7, norm),
        composition=composition,
        flow_step=9,
        pixel_step=9,
    )
    model, manifest = artifact(path, config)
    found = one_call(model, start(manifest, 3))
    order, vector = (np.inf, 1) if norm == "linf" else (2, 1)
    if branch == "flow":
        size, bound = np.linalg.norm(found["next_flow"], order, axis=vector), 0.6
    else:
        flat = found["next_delta"].reshape(3, -1).astype(np.float64)
        size, bound = np.linalg.norm(flat, order, axis=1), config.pixel.radius
    assert size.max() <= bound + 1e-6
    assert size.max() > 0.5 * bound
    assert (found["adversarial"] >= 0).all()
    assert (found["adversarial"] <= 1).all()


def check_image_gradients(path, objective):
    """The gradient of an image in a batch is its gradient alone, in size too: a sum, no mean."""
    classifier = network(path)
    random = np.random.default_rng(0)
    image = random.random((4, 3, 16, 16)).astype(np.float32)
    label, target = np.array([0, 1, 2, 3]), np.array([1, 2, 3, 0])

    def gradient(image, label, target):
        def make(image, label, target):
            inputs = Inputs(image, label, target, None, None, None, None)
            body = Body(classifier, AttackConfig(), Preprocessing(), 1, 0.3)
            return body.evaluate(inputs, State(None, None)).image_gradient(objective)

        return compute(make, image=image, label=label, target=target)

    together = gradient(image, label, target)
    for i in range(4):
        one = slice(i, i + 1)
        alone = gradient(image[one], label[one], target[one])
        size = np.abs(alone).max()
        np.testing.assert_allclose(together[one], alone, rtol=0, atol=1e-5 * size)


def check_losses(path, objective):
    """The loss is per image, of the incoming state, and of the logits beside it."""
    model, manifest = artifact(path, AttackConfig(pixel_objective=objective))
    feeds = start(manifest, 5)
    found = one_call(model, feeds)
    expected, _ = exact(objective, found["logits"], feeds["label"], feeds["target"])
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-5, atol=1e-6)
