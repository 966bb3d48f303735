"""The checks flag models whose gradients are masked, each in another way, and no other."""

import math
from pathlib import Path
from typing import Any

import material
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from jataug.evaluation import evaluate
from jataug.evaluation.report.contents import ModelReport
from jataug.evaluation.report.wording import verdict
from jataug.evaluation.sanity import compared
from jataug.preprocessing import Preprocessing


class Wrapped(nn.Module):
    """The shipped classifier behind something that spoils its gradient."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner


class Rounded(Wrapped):
    """Eight levels: the gradient is zero."""

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(torch.round(images * 7) / 7)


class Saturated(Wrapped):
    """Probabilities passed off as logits, after a scale at which float32 has only 0 and 1."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.softmax(100 * self.inner(images), 1)


class Shattered(Wrapped):
    """A fine ripple on every pixel: gradients that say nothing about the next 1/255."""

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(images + 0.004 * torch.sin(5000 * images))


class Turned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        return images.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


class Backwards(Wrapped):
    """A custom gradient with the wrong sign."""

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(Turned.apply(images))


def checked(model: Any, source: Path, **options: Any) -> ModelReport:
    report = evaluate(model, source, attacks=["fgsm"], curves=False, batch_size=24, **options)
    return report.models[0]


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        (Rounded, {"gradient", "unbounded"}),
        (Saturated, {"gradient", "unbounded"}),
        (Shattered, {"gradient"}),
        (Backwards, {"gradient", "unbounded"}),
    ],
)
def test_masked_gradients_are_flagged(
    demo_classifier: material.Model, source: Path, kind: type[Wrapped], named: set[str]
) -> None:
    found = checked(kind(demo_classifier.module), source)
    assert found.clean_accuracy.value > 0.6
    assert found.sanity.verdict == "suspect"
    failed = {check.name for check in found.sanity.checks if check.verdict == "fail"}
    assert named <= failed
    assert any("may be masked" in warning for warning in found.warnings)


def test_black_box_beats_a_masked_model(demo_classifier: material.Model, source: Path) -> None:
    found = checked(Rounded(demo_classifier.module), source, pixel="24/255")
    (check,) = (check for check in found.sanity.checks if check.name == "black-box")
    assert check.verdict == "fail"
    assert check.numbers["only_weaker"] > 6


def test_the_shipped_classifier_is_not_flagged(
    demo_classifier: material.Model, source: Path
) -> None:
    found = checked(demo_classifier.path, source, device="cpu")
    assert found.sanity.verdict == "pass"
    assert {c.name: c.verdict for c in found.sanity.checks} == {
        **dict.fromkeys(("gradient", "unbounded", "steps", "one-step", "random"), "pass"),
        "black-box": "pass",
        "transfer": "skipped",
    }


def test_a_pass_on_too_few_images_is_no_pass(demo_classifier: material.Model, source: Path) -> None:
    found = checked(demo_classifier.path, source, device="cpu", limit=4)
    assert found.sanity.verdict == "none"
    assert {check.verdict for check in found.sanity.checks} == {"skipped"}
    (check,) = (check for check in found.sanity.checks if check.name == "steps")
    assert check.detail.startswith("too few images to tell: 4 classified right, at least 10 are")
    assert verdict(found.sanity) == "few"


def test_transfer_from_a_better_gradient_is_seen(
    demo_classifier: material.Model, source: Path
) -> None:
    masked = Rounded(demo_classifier.module)
    found = checked(masked, source, transfer=[demo_classifier.module], pixel="24/255")
    (check,) = (check for check in found.sanity.checks if check.name == "transfer")
    assert check.verdict == "fail"
    (transfer,) = found.transfer
    assert (transfer.target, transfer.attack) == ("DemoClassifier", "fgsm")
    assert transfer.clean.correct >= transfer.accuracy.correct


@pytest.mark.heavy
def test_efficientnet_is_not_flagged(efficientnet_lite0: material.Model, photos: Path) -> None:
    wanted = Preprocessing(mean=(material.EFFICIENTNET_MEAN,), std=(material.EFFICIENTNET_STD,))
    found = checked(
        efficientnet_lite0.path, photos, preprocessing=wanted, labels="predicted", resize=256,
        crop=224, device="cpu",
    )  # fmt: skip
    assert found.sanity.verdict == "pass"


class Renamed(Wrapped):
    """Every class is called by the name of the next one."""

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(images).roll(1, 1)


def test_models_that_disagree_do_not_transfer(
    demo_classifier: material.Model, source: Path
) -> None:
    # Each has its own prediction for a label; the change from one to the other is no attack.
    one = demo_classifier.module
    found = checked(one, source, transfer=[Renamed(one)], labels="predicted", pixel="1/2550")
    (check,) = (check for check in found.sanity.checks if check.name == "transfer")
    assert check.verdict == "pass"
    assert check.numbers["weaker"] <= 2


def test_paired_comparison() -> None:
    a = np.array([True] * 9 + [False] * 11)
    same = compared(a, a)
    assert (same.only_weaker, same.only_stronger, same.chance) == (0, 0, 1.0)
    b = ~a
    found = compared(a, b)
    assert (found.only_weaker, found.only_stronger) == (9, 11)
    assert found.chance == pytest.approx(sum(math.comb(20, k) for k in range(9, 21)) / 2**20)
    alone = compared(a, np.zeros(20, bool))
    assert alone.chance == pytest.approx(2.0**-9)
