import pytest
import torch
import trainer_nets
from attack_claims import COMBINATIONS
from nets import tiny

import jataug
from jataug.attack import JointAttack
from jataug.trainer.torch_attack import perturb

IMAGES = torch.rand(6, 3, 12, 12, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3, 4, 5])
INDICES = [5, 9, 2, 40, 1, 7]


def config(preset, flow=0.7, pixel=0.03, steps=3):
    budgets = {"flow": jataug.FlowBudget(flow), "pixel": jataug.PixelBudget(pixel)}
    return jataug.AttackConfig(**COMBINATIONS[preset], **budgets, steps=steps)


@pytest.mark.parametrize("preset", COMBINATIONS)
@pytest.mark.parametrize(("flow", "pixel"), [(0.7, 0.03), (0.7, 0), (0, 0.03)])
def test_the_images_are_those_of_joint_attack(preset, flow, pixel) -> None:
    model, options = tiny(), {"seed": 3, "epoch": 4}
    attack = config(preset, flow, pixel)
    found = perturb(model, attack, IMAGES, LABELS, INDICES, **options)
    exact = JointAttack(attack)(model, IMAGES, LABELS, INDICES, **options).exact
    # A flow of 0.7 px moves by 5e-4 px when it is rounded to float16.
    assert (found - exact).abs().max() < 6e-4
    assert (found - IMAGES).abs().max() > 0.02


@pytest.mark.parametrize("training", [True, False])
def test_the_attack_leaves_the_model_as_it_is(training) -> None:
    torch.manual_seed(0)
    model = trainer_nets.Normed(classes=6).train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    images = IMAGES[:, :1, :8, :8]
    found = perturb(model, config("claim-1"), images, LABELS, INDICES, seed=0, epoch=0)
    assert not found.requires_grad
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(module.training == training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random)


def test_the_attacked_network_is_in_evaluation_mode() -> None:
    model, modes = tiny().train(), []
    model.register_forward_hook(lambda module, *_: modes.append(module.training))
    perturb(model, config("claim-1"), IMAGES, LABELS, INDICES, seed=0, epoch=0)
    assert modes
    assert not any(modes)
    assert model.training


def test_the_mode_comes_back_after_an_error() -> None:
    model = tiny().train()
    with pytest.raises(jataug.DataError):
        perturb(model, config("claim-1"), IMAGES * 2, LABELS, INDICES, seed=0, epoch=0)
    assert model.training


def test_no_graph_is_kept_after_its_gradient(monkeypatch) -> None:
    """A compiled network refuses it."""
    real, kept = torch.autograd.grad, []

    def grad(*words, **options):
        kept.append(options.get("retain_graph"))
        return real(*words, **options)

    monkeypatch.setattr(torch.autograd, "grad", grad)
    perturb(tiny(), config("claim-1", steps=2), IMAGES, LABELS, INDICES, seed=0, epoch=0)
    assert kept == [False] * 4
