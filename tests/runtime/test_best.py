"""Which iterate is kept where every iteration has targets of its own."""

import numpy as np
import pytest
import torch

from jataug import AttackConfig, FlowBudget, PixelBudget, Session
from jataug.attack import JointAttack

from .sessions import images
from .test_resident import resident

STEPS = 6
CONFIG = AttackConfig(
    flow=FlowBudget(0),
    pixel=PixelBudget("8/255"),
    pixel_step=0.02,
    steps=STEPS,
    redraw_targets=True,
    keep="best",
)
IMAGES, LABELS = images(40), np.arange(40) % 10


def ranks(result):
    """Misclassified, and the cross entropy of the label, from the logits: (batch,) each."""
    logits = np.asarray(result.logits, np.float64)
    shifted = logits - logits.max(1, keepdims=True)
    entropy = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(LABELS)), LABELS]
    return np.asarray(result.success), entropy


def on_device(session, **options):
    return resident(session).attack(torch.from_numpy(IMAGES), torch.from_numpy(LABELS), **options)


def on_host(session, **options):
    return session.attack(IMAGES, LABELS, **options)


def check(attack):
    """No iterate ranks above the one that is kept: targets differ, so only the label counts."""
    wrong, entropy = ranks(attack(CONFIG, STEPS))
    iterates = [ranks(attack(CONFIG.replace(keep="last"), k)) for k in range(STEPS + 1)]
    every = np.array([w for w, _ in iterates]), np.array([e for _, e in iterates])
    assert np.array_equal(wrong, every[0].any(0))
    most = np.where(every[0] == wrong, every[1], -np.inf).max(0)
    np.testing.assert_allclose(entropy, most, rtol=0, atol=1e-3)
    assert (entropy > every[1][-1] + 0.01).any()  # else the last iterate would do


@pytest.mark.parametrize("objective", ["target", "margin"])
@pytest.mark.parametrize("how", [on_host, on_device])
def test_a_session_ranks_by_the_label(tiny_net, exported_attack, how, objective):
    def attack(config, steps):
        path = exported_attack(tiny_net.path, config.replace(pixel_objective=objective))
        with Session.open(path, device="cpu", threads=1) as session:
            return how(session, steps=steps)

    check(attack)


@pytest.mark.parametrize("objective", ["target", "margin"])
def test_the_torch_attack_ranks_by_the_label(tiny_net, objective):
    def attack(config, steps):
        held = JointAttack(config.replace(pixel_objective=objective))
        return held(tiny_net.module, torch.from_numpy(IMAGES), LABELS, steps=steps)

    check(attack)
