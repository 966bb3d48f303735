"""What the joint attack leaves of the model, its mode and its gradients."""

import attack_claims as claims
import nets
import pytest
import torch
from families import declare_operators
from torch import nn

from jataug import AttackConfig, AttackResult, Session
from jataug.attack import JointAttack
from jataug.export import export_attack


def same(first: AttackResult, second: AttackResult):
    for name in first.__dataclass_fields__:
        assert torch.equal(getattr(first, name), getattr(second, name)), name


# What happens to the model.


class Fragile(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nets.TinyNet()
        self.calls = 0

    def forward(self, image):
        self.calls += 1
        if self.calls > 3:
            raise RuntimeError("gave up")
        return self.inner(image)


def modes(model):
    return [module.training for module in model.modules()]


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was(fails):
    model = Fragile().train()
    model.calls = 0 if fails else -1000
    model.inner.norm.eval()
    model.inner.first.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    needs = [parameter.requires_grad for parameter in model.parameters()]
    expected = modes(model)
    image = claims.images(2, 3, 8, 8)
    if fails:
        with pytest.raises(RuntimeError, match="gave up"):
            JointAttack()(model, image)
    else:
        JointAttack()(model, image)
    assert modes(model) == expected
    assert [parameter.requires_grad for parameter in model.parameters()] == needs
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_model_in_training_mode_is_attacked_in_evaluation_mode():
    torch.manual_seed(1)
    model = nets.TinyNet().train()
    model(claims.images(16, 3, 8, 8))
    image, attack = claims.images(4, 3, 8, 8), JointAttack(AttackConfig(steps=2))
    during = attack(model, image)
    assert model.training
    same(during, attack(model.eval(), image))


def test_gradients_that_the_caller_has_are_kept(model):
    model.zero_grad()
    model(claims.images(2, 3, 8, 8)).sum().backward()
    before = [parameter.grad.clone() for parameter in model.parameters()]
    JointAttack(AttackConfig(steps=2))(model, claims.images(2, 3, 8, 8))
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), before, strict=True))
    model.zero_grad()


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_it_runs_where_gradients_are_off(model, context):
    image, attack = claims.images(2, 3, 8, 8), JointAttack(AttackConfig(steps=2))
    expected = attack(model, image)
    with context():
        found = attack(model, image * 1.0)
    same(found, expected)
    assert not found.adversarial.requires_grad


def test_images_that_need_a_gradient_get_none(model):
    image = claims.images(2, 3, 8, 8).requires_grad_()
    result = JointAttack(AttackConfig(steps=1))(model, image)
    assert image.grad is None
    assert not result.adversarial.requires_grad


@pytest.mark.heavy  # test_problem.py has outputs like these; transformers is large
def test_a_transformers_model_is_attacked_as_its_export(tmp_path):
    declare_operators()  # transformers imports torchvision where it finds it
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.ResNetConfig(
        embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic", num_labels=5
    )
    torch.manual_seed(0)
    module = transformers.ResNetForImageClassification(config).eval()
    image, attack = claims.smooth(4, 3, 16, 16), AttackConfig(steps=1, start="zero")
    found = JointAttack(attack)(module, image, [0, 1, 2, 3])
    export_attack(module, attack, tmp_path / "attack.onnx", example=image, check=False)
    with Session.open(tmp_path / "attack.onnx", device="cpu") as session:
        exported = session.attack(image.numpy(), [0, 1, 2, 3])
    torch.testing.assert_close(found.logits, torch.from_numpy(exported.logits), rtol=0, atol=1e-3)


def test_images_are_not_changed(model):
    image = claims.images(2, 3, 8, 8)
    kept = image.clone()
    JointAttack()(model, image)
    assert torch.equal(image, kept)
