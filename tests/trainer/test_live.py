import pytest
import torch
import trainer_nets
from attack_claims import COMBINATIONS
from nets import settle, tiny
from same_attack import check_iteration

import jataug
from jataug.attack import joint
from jataug.attack.problem import read
from jataug.attack.render import render
from jataug.errors import ModelError
from jataug.trainer import runtime_attack as live_module
from jataug.trainer.runtime_attack import LiveAttack

CPU = torch.device("cpu")
IMAGES = torch.rand(6, 3, 12, 12, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3, 4, 5])
INDICES = [5, 9, 2, 40, 1, 7]
NAMED = {"seed": 1, "epoch": 2}


def check_live(live, model, config, images):
    """Check every iteration against the torch attack on the weights as they are; return the images,
    which must be those of the last state.
    """
    steps = []

    def recorded(problem, state):
        steps.append((problem, state, iterate(problem, state)))
        return steps[-1][2]

    iterate, live._iterate = live._iterate, recorded
    found = live(images, LABELS, INDICES, **NAMED)
    del live._iterate
    given = (images, LABELS, INDICES, None, {"flow": None, "pixel": None})
    with torch.no_grad():
        expected = read(model.eval(), config, *given, **NAMED)
        state = joint.start(expected)
        for number, (problem, before, after) in enumerate(steps):
            assert torch.equal(problem.target, expected.for_iteration(number).target)
            assert all(torch.equal(before[branch], state[branch]) for branch in state)
            check_iteration(expected.for_iteration(number), before, after)
            state = after
        torch.testing.assert_close(found, render(images, state, config.composition))
    assert len(steps) == config.steps
    return found


@pytest.mark.parametrize("claim", ["claim-1", "claim-8", "claim-12"])
def test_it_follows_the_weights(claim) -> None:
    budgets = {"flow": jataug.FlowBudget(0.7), "pixel": jataug.PixelBudget(0.03)}
    config = jataug.AttackConfig(**COMBINATIONS[claim], **budgets, steps=2)
    model = tiny()
    live = LiveAttack(model, config, (3, 12, 12), CPU)
    found = []
    for _ in range(2):
        found.append(check_live(live, model, config, IMAGES))
        torch.manual_seed(5)
        settle(model, torch.rand(8, 3, 12, 12))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    assert ((found[0] - found[1]).abs() > 0.01).float().mean() > 0.1


def test_the_weights_are_not_copied() -> None:
    model = tiny().train()
    live = LiveAttack(model, jataug.AttackConfig(steps=1), (3, 12, 12), CPU)
    bound = live._weights()
    assert bound["weights/second.weight"].data_ptr() == model.second.weight.data_ptr()
    live(IMAGES, LABELS, INDICES, **NAMED)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_torch_is_done_before_the_runtime_reads(monkeypatch) -> None:
    """The optimizer's last update, above all: on CUDA the runtime has a stream of its own."""
    seen, run = [], live_module.run_shared
    monkeypatch.setattr(live_module, "settle", lambda device: seen.append(device))

    def recorded(*given, **named):
        seen.append("run")
        run(*given, **named)

    monkeypatch.setattr(live_module, "run_shared", recorded)
    LiveAttack(tiny(), jataug.AttackConfig(steps=2), (3, 12, 12), CPU)(
        IMAGES, LABELS, INDICES, **NAMED
    )
    assert seen == [CPU, "run"] * 2


def test_weights_in_another_memory_format_are_refused() -> None:
    model = tiny()
    live = LiveAttack(model, jataug.AttackConfig(steps=1), (3, 12, 12), CPU)
    model.to(memory_format=torch.channels_last)
    with pytest.raises(ModelError, match="contiguous"):
        live(IMAGES, LABELS, INDICES, **NAMED)


def test_the_best_iterate_is_refused() -> None:
    with pytest.raises(ModelError, match="keep='last'"):
        LiveAttack(tiny(), jataug.AttackConfig(keep="best"), (3, 12, 12), CPU)


def test_group_norm_too() -> None:
    torch.manual_seed(0)
    model = trainer_nets.Grouped(classes=6)
    config = jataug.AttackConfig(flow=jataug.FlowBudget(0.5), steps=1)
    live = LiveAttack(model, config, (1, 8, 8), CPU)
    images = IMAGES[:, :1, :8, :8]
    check_live(live, model, config, images)
