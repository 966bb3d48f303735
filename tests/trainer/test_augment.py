import pytest
import torch

from jataug.streams import words
from jataug.trainer.augment import AUGMENT, augment

IMAGES = torch.arange(5 * 2 * 4 * 6, dtype=torch.uint8).view(5, 2, 4, 6)
INDICES = [3, 11, 0, 7, 5]


def one(image, index, pad, flip, seed=1, epoch=2):
    """The definition, for one image."""
    u = [(int(word) >> 11) * 2.0**-53 for word in words(seed, index, AUGMENT, 3, epoch=epoch)]
    top, left = (int(v * (2 * pad + 1)) for v in u[:2])
    height, width = image.shape[1:]
    padded = torch.nn.functional.pad(image, (pad, pad, pad, pad))
    cut = padded[:, top : top + height, left : left + width]
    return cut.flip(2) if flip and u[2] < 0.5 else cut


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("pad", [0, 1, 3])
def test_crop_and_flip_are_those_of_the_stream(pad, flip) -> None:
    found = augment(IMAGES, INDICES, seed=1, epoch=2, pad=pad, flip=flip)
    wanted = [one(image, i, pad, flip) for image, i in zip(IMAGES, INDICES, strict=True)]
    assert torch.equal(found, torch.stack(wanted))
    assert found.dtype == torch.uint8


def test_a_sample_does_not_depend_on_its_batch() -> None:
    whole = augment(IMAGES, INDICES, seed=1, epoch=2, pad=2, flip=True)
    alone = augment(IMAGES[3:], INDICES[3:], seed=1, epoch=2, pad=2, flip=True)
    assert torch.equal(whole[3:], alone)
    other = augment(IMAGES, INDICES, seed=1, epoch=3, pad=2, flip=True)
    assert not torch.equal(whole, other)


def test_every_place_and_both_sides_occur() -> None:
    image = torch.zeros(1, 1, 3, 3)
    image[0, 0, 1, 1] = 1
    image[0, 0, 1, 2] = 0.5
    many = image.expand(400, 1, 3, 3)
    found = augment(many, range(400), seed=0, epoch=0, pad=1, flip=True)
    centres = {tuple((row[0] == 1).nonzero()[0].tolist()) for row in found}
    assert len(centres) == 9
    uncropped = augment(many, range(400), seed=0, epoch=0, pad=0, flip=True)
    turned = float((uncropped[:, 0, 1, 0] == 0.5).float().mean())
    assert 0.4 < turned < 0.6
