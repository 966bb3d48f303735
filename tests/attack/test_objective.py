import attack_claims as claims
import pytest
import torch

from jataug.attack.objective import cotangent, loss

OBJECTIVES = ["truth", "target", "margin"]


def logits(batch=6, classes=5, scale=3.0):
    values = torch.randn(batch, classes, generator=torch.Generator().manual_seed(2))
    return (scale * values).double()


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_cotangent_is_the_gradient_up_to_a_positive_factor(objective, classes):
    z = logits(classes=classes).requires_grad_()
    label = torch.arange(6) % classes
    target = (label + 1) % classes
    (gradient,) = torch.autograd.grad(loss(objective, z, label, target).sum(), z)
    found = cotangent(objective, z.detach(), label, target)
    scale = gradient.norm(dim=1, keepdim=True) / found.norm(dim=1, keepdim=True)
    torch.testing.assert_close(found * scale, gradient)
    torch.testing.assert_close(found.abs().amax(1), torch.ones(6, dtype=torch.float64))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_loss_is_what_it_says(objective):
    z, label = logits(), torch.tensor([0, 1, 2, 3, 4, 0])
    target = (label + 2) % 5
    expected = claims.measured(objective, z, label, target)
    torch.testing.assert_close(loss(objective, z, label, target), expected)


def test_cotangent_of_a_confident_image_does_not_vanish():
    z = torch.tensor([[60.0, 0.0, 1.0]])
    zero = torch.tensor([0])
    found = cotangent("truth", z, zero, zero + 1)
    torch.testing.assert_close(found.sum(), torch.tensor(0.0), rtol=0, atol=1e-6)
    assert found[0, 0] == -1
    assert found[0, 1] > 0.2


def test_two_classes_leave_no_choice():
    z, label = logits(classes=2), torch.tensor([0, 1, 0, 1, 0, 1])
    expected = torch.where(label[:, None] == torch.arange(2), -1.0, 1.0).double()
    for objective in OBJECTIVES:
        assert torch.equal(cotangent(objective, z, label, 1 - label), expected)
