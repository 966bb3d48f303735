import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from jataug.smoothing import Smoothing

LABELS = torch.tensor([2, 0, 3])


def smooth(amount, convention, classes=5):
    return torch.from_numpy(Smoothing(amount, convention).table(classes))[LABELS]


def test_authors_convention() -> None:
    soft = smooth(0.4, "authors")
    assert soft[0].tolist() == pytest.approx([0.1, 0.1, 0.6, 0.1, 0.1])
    assert soft.argmax(1).tolist() == LABELS.tolist()


def test_torch_convention_is_torchs() -> None:
    logits = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    ours = cross_entropy(logits, smooth(0.4, "torch"))
    assert ours.item() == pytest.approx(
        cross_entropy(logits, LABELS, label_smoothing=0.4).item(), rel=1e-6
    )


def test_one_is_the_other_at_another_amount() -> None:
    amount, classes = 0.4, 5
    same = smooth(amount * classes / (classes - 1), "torch")
    assert torch.allclose(smooth(amount, "authors"), same)
    assert not torch.allclose(smooth(amount, "torch"), same)


@pytest.mark.parametrize("convention", ["authors", "torch"])
def test_a_distribution_and_at_zero_the_label(convention) -> None:
    assert torch.allclose(smooth(0.7, convention).sum(1), torch.ones(3))
    assert np.array_equal(Smoothing(0.0, convention).table(5), np.eye(5))
