"""Attack libraries run on the module unchanged, and break the shipped classifier as they break the
torch module with its weights.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jataug.bridge import OnnxModule

RADIUS = 8 / 255
STEP = RADIUS / 4
STEPS = 10
Peer = Callable[..., list[Any]]


def torchattacks_pgd(peer: Peer, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    (library,) = peer("torchattacks", "torchattacks")
    attack = library.PGD(model, eps=RADIUS, alpha=STEP, steps=STEPS)
    assert attack.device == torch.device("cpu")
    return attack(images, labels)


def torchattacks_apgd(peer: Peer, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    (library,) = peer("torchattacks", "torchattacks")
    return library.APGD(model, eps=RADIUS, steps=STEPS, loss="dlr", seed=0)(images, labels)


def foolbox_pgd(peer: Peer, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    (library,) = peer("foolbox", "foolbox")
    attacked = library.PyTorchModel(model, bounds=(0, 1), device="cpu")
    attack = library.attacks.LinfPGD(abs_stepsize=STEP, steps=STEPS)
    return attack(attacked, images, labels, epsilons=RADIUS)[1]


def art_classifier(peer: Peer, model: nn.Module) -> Any:
    (estimators,) = peer("art", "art.estimators.classification")
    return estimators.PyTorchClassifier(
        model,
        loss=nn.CrossEntropyLoss(),
        input_shape=(1, 28, 28),
        nb_classes=10,
        clip_values=(0, 1),
        device_type="cpu",
    )


def art_pgd(peer: Peer, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    (evasion,) = peer("art", "art.attacks.evasion")
    attack = evasion.ProjectedGradientDescent(
        art_classifier(peer, model), eps=RADIUS, eps_step=STEP, max_iter=STEPS, verbose=False
    )
    return torch.from_numpy(attack.generate(images.numpy(), labels.numpy()))


def autoattack(peer: Peer, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    (library,) = peer("autoattack", "pyautoattack")
    attack = library.AutoAttack(
        model, norm="Linf", eps=RADIUS, seed=0, version="custom", attacks=["apgd-ce", "apgd-t"]
    )
    attack.apgd.n_iter = attack.apgd_targeted.n_iter = STEPS
    attack.apgd.n_restarts = 1
    return attack.run_standard_evaluation(images, labels)[0]


ATTACKS = [torchattacks_pgd, torchattacks_apgd, foolbox_pgd, art_pgd, autoattack]


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return float((model(images).argmax(1) == labels).double().mean())


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_attack_works_as_on_the_torch_module(
    peer: Peer, demo_classifier: Any, labelled: tuple[Tensor, Tensor], attack: Callable[..., Tensor]
) -> None:
    images, labels = labelled
    onnx_module = OnnxModule(demo_classifier.path)
    assert accuracy(onnx_module, images, labels) > 0.8
    reached = []
    for model in (onnx_module, demo_classifier.module):
        torch.manual_seed(0)
        adversarial = attack(peer, model, images.clone(), labels.clone())
        change = (adversarial - images).abs().max()
        assert RADIUS / 2 < change <= RADIUS + 1e-6
        assert 0 <= adversarial.min() <= adversarial.max() <= 1
        reached.append(accuracy(onnx_module, adversarial, labels))
    assert reached[0] < 0.3
    assert abs(reached[0] - reached[1]) <= 2 / len(images)


def test_gradient_free_and_minimal_attacks_of_foolbox(
    peer: Peer, demo_classifier: Any, labelled: tuple[Tensor, Tensor]
) -> None:
    (library,) = peer("foolbox", "foolbox")
    images, labels = (part[:16] for part in labelled)
    model = library.PyTorchModel(OnnxModule(demo_classifier.path), bounds=(0, 1), device="cpu")
    for attack in (library.attacks.LinfFastGradientAttack(), library.attacks.L2DeepFoolAttack()):
        *_, success = attack(model, images, labels, epsilons=1.0)
        assert success.float().mean() > 0.3


def test_class_gradients_of_art(
    peer: Peer, demo_classifier: Any, labelled: tuple[Tensor, Tensor]
) -> None:
    images = labelled[0][:4]
    ours, theirs = (
        art_classifier(peer, model).class_gradient(images.numpy())
        for model in (OnnxModule(demo_classifier.path), demo_classifier.module)
    )
    assert ours.shape == (4, 10, 1, 28, 28)
    torch.testing.assert_close(torch.from_numpy(ours), torch.from_numpy(theirs))
