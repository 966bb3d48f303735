"""JointAttack on one module from several threads."""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import attack_claims as claims
import torch

from jataug import AttackConfig
from jataug.attack import JointAttack
from jataug.evaluation.models.torch import TorchModel

THREADS = 8


class Dropping(torch.nn.Module):
    """A classifier that drops half of its image in training mode."""

    def __init__(self):
        super().__init__()
        self.dropout, self.linear = torch.nn.Dropout(0.5), claims.Linear((3, 8, 8))

    def forward(self, image):
        time.sleep(0.001)  # the other threads run meanwhile
        return self.linear(self.dropout(image))


def at_once(call):
    barrier = Barrier(THREADS)

    def begun(number):
        barrier.wait()
        return [call(number) for _ in range(5)]

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(begun, range(THREADS)))


def test_a_module_in_training_mode_gives_what_one_thread_gives():
    model, image = Dropping().train(), claims.smooth(3, 3, 8, 8)
    attack = JointAttack(AttackConfig(steps=2))
    expected = [attack(model, image, seed=k) for k in range(THREADS)]
    for wanted, found in zip(
        expected, at_once(lambda k: attack(model, image, seed=k)), strict=True
    ):
        for one in found:
            assert torch.equal(one.adversarial, wanted.adversarial)
            assert torch.equal(one.logits, wanted.logits)
    assert all(part.training for part in model.modules())


def test_an_evaluation_s_model_likewise():
    model, image = Dropping().train(), claims.smooth(3, 3, 8, 8).numpy()
    opened = TorchModel(model, (3, 8, 8))
    expected = opened.gradient(image, lambda logits: logits)[1]
    for found in at_once(lambda _: opened.gradient(image, lambda logits: logits)[1]):
        assert all((one == expected).all() for one in found)
    assert all(part.training for part in model.modules())
