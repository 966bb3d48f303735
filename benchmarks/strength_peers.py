"""The attacks of other libraries that benchmarks/strength.py compares with, each as a function of
model, images and labels that returns images.
"""

import contextlib
import io
from collections.abc import Callable
from typing import Any

import peers
import torch
from torch import Tensor, nn

__all__ = ["FLOW", "PEERS", "PIXEL"]

FLOW, PIXEL, STEPS = 0.3, 8 / 255, 20
STEP = 2.5 * PIXEL / STEPS
Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]


def quiet(attack: Attack) -> Attack:
    def run(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        with contextlib.redirect_stdout(io.StringIO()), torch.enable_grad():
            return attack(model, images, labels)

    return run


def torchattacks(name: str, **options: Any) -> Attack:
    def run(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        (library,) = peers.imported("torchattacks", "torchattacks")
        # It reads the device from the parameters, and wants one that has a gradient.
        return getattr(library, name)(model, eps=PIXEL, **options)(images, labels)

    return quiet(run)


def foolbox_model(model: nn.Module) -> tuple[Any, Any]:
    (library,) = peers.imported("foolbox", "foolbox")
    return library, library.PyTorchModel(model, bounds=(0, 1), device="cpu")


def foolbox_pgd(steps: int = STEPS) -> Attack:
    def run(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        library, attacked = foolbox_model(model)
        attack = library.attacks.LinfPGD(abs_stepsize=2.5 * PIXEL / steps, steps=steps)
        return attack(attacked, images, labels, epsilons=PIXEL)[1]

    return quiet(run)


def foolbox_spatial(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    library, attacked = foolbox_model(model)
    attack = library.attacks.SpatialAttack(
        max_translation=3, max_rotation=30, num_translations=3, num_rotations=7
    )
    return attack(attacked, images, library.criteria.Misclassification(labels))[0]


def art_classifier(model: nn.Module, shape: tuple[int, ...]) -> Any:
    (estimators,) = peers.imported("art", "art.estimators.classification")
    return estimators.PyTorchClassifier(
        model, loss=nn.CrossEntropyLoss(), input_shape=shape, nb_classes=10,
        clip_values=(0, 1), device_type="cpu",
    )  # fmt: skip


def art(name: str, **options: Any) -> Attack:
    def run(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        (evasion,) = peers.imported("art", "art.attacks.evasion")
        classifier = art_classifier(model, tuple(images.shape[1:]))
        attack = getattr(evasion, name)(classifier, verbose=False, **options)
        return torch.from_numpy(attack.generate(images.numpy(), labels.numpy()))

    return quiet(run)


def autoattack(*names: str) -> Attack:
    def run(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        (library,) = peers.imported("autoattack", "pyautoattack")
        attack = library.AutoAttack(model, eps=PIXEL, seed=0, version="custom", attacks=list(names))
        attack.apgd.n_iter = attack.apgd_targeted.n_iter = STEPS
        attack.apgd.n_restarts = attack.apgd_targeted.n_restarts = 1
        return attack.run_standard_evaluation(images, labels)[0]

    return quiet(run)


PEERS: dict[str, dict[str, tuple[str, Attack]]] = {
    "torchattacks": {
        "FGSM": ("pixel", torchattacks("FGSM")),
        "PGD, 20 steps": ("pixel", torchattacks("PGD", alpha=STEP, steps=STEPS)),
        "APGD (CE), 20 steps": ("pixel", torchattacks("APGD", steps=STEPS)),
        "APGDT, 9 x 20 steps": ("pixel", torchattacks("APGDT", steps=STEPS)),
    },
    "foolbox": {
        "LinfPGD, 20 steps": ("pixel", foolbox_pgd()),
        "SpatialAttack, grid of 63": ("rotation", quiet(foolbox_spatial)),
    },
    "ART": {
        "PGD, 20 steps": (
            "pixel",
            art("ProjectedGradientDescent", eps=PIXEL, eps_step=STEP, max_iter=STEPS,
                num_random_init=1),
        ),
        "AutoPGD (CE), 20 steps": (
            "pixel",
            art("AutoProjectedGradientDescent", eps=PIXEL, eps_step=2 * PIXEL, max_iter=STEPS,
                nb_random_init=1, loss_type="cross_entropy"),
        ),
        "SpatialTransformation, grid of 63": (
            "rotation",
            art("SpatialTransformation", max_translation=100 * 3 / 28, num_translations=3,
                max_rotation=30, num_rotations=7),
        ),
    },
    "AutoAttack": {
        "apgd-ce, 20 steps": ("pixel", autoattack("apgd-ce")),
        "apgd-t, 9 x 20 steps": ("pixel", autoattack("apgd-t")),
    },
}  # fmt: skip
