"""Rotation and translation: as SciPy samples, over the stated range, the worst kept."""

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from jataug.errors import BudgetError
from jataug.evaluation.attacks.perturbation import Context
from jataug.evaluation.attacks.restarts import run_tries
from jataug.evaluation.attacks.rotation import Rotation, turned
from jataug.evaluation.attacks.tries import Rows
from jataug.evaluation.models.model import Calls

IMAGE = np.random.default_rng(0).random((2, 3, 9, 12)).astype(np.float32)


@pytest.mark.parametrize(("border", "mode"), [("edge", "nearest"), ("zero", "grid-constant")])
def test_agrees_with_scipy(border: str, mode: str) -> None:
    angle, shift = np.array([0.4, -1.1]), np.array([[1.3, -0.6], [0.0, 2.25]])
    found = turned(IMAGE, angle, shift, border)
    for k in range(2):
        x, y = np.meshgrid(np.arange(12) - 5.5, np.arange(9) - 4.0)
        cos, sin = np.cos(angle[k]), np.sin(angle[k])
        places = [sin * x + cos * y + 4.0 + shift[k, 1], cos * x - sin * y + 5.5 + shift[k, 0]]
        for channel in range(3):
            expected = map_coordinates(IMAGE[k, channel], places, order=1, mode=mode)
            np.testing.assert_allclose(found[k, channel], expected, atol=2e-6)


def test_nothing_is_the_identity_and_a_quarter_is_exact() -> None:
    nothing = np.zeros(2), np.zeros((2, 2))
    for border in ("edge", "zero"):
        np.testing.assert_array_equal(turned(IMAGE, *nothing, border), IMAGE)
    square = IMAGE[:, :, :9, :9]
    quarter = turned(square, np.full(2, np.pi / 2), np.zeros((2, 2)))
    np.testing.assert_allclose(quarter, np.rot90(square, 1, (2, 3)), atol=1e-5)


def test_shift_is_in_pixels() -> None:
    found = turned(IMAGE, np.zeros(2), np.array([[2.0, 0.0], [0.0, -1.0]]))
    np.testing.assert_array_equal(found[0, :, :, :-2], IMAGE[0, :, :, 2:])
    np.testing.assert_array_equal(found[1, :, 1:], IMAGE[1, :, :-1])


class Recorder:
    """Logits that say how dark the image is; the labels are never the answer."""

    classes, image_shape = 2, (1, 8, 8)

    def logits(self, images: np.ndarray) -> np.ndarray:
        dark = -images.mean((1, 2, 3))
        return np.stack([dark, np.ones_like(dark)], 1)


def test_every_try_of_the_grid_is_another(calls: Calls) -> None:
    image = np.random.default_rng(1).random((1, 1, 8, 8)).astype(np.float32)
    rows = Rows.first_tries(image, np.array([1]), np.array([0]), 0.0, 0.0)
    attack = Rotation(angles=3, shifts=3, degrees=90, pixels=2)
    assert attack.tries == 27
    tries = rows.take(np.zeros(27, int)).replace(restart=np.arange(27))
    angle, shift = attack._grid(tries)
    assert len({(a, *s) for a, s in zip(angle, map(tuple, shift), strict=True)}) == 27
    assert (np.abs(angle).max(), np.abs(shift).max()) == (90, 2)
    worst = min(
        Recorder().logits(turned(image, np.deg2rad(angle[[k]]), shift[[k]]))[0, 1]
        - Recorder().logits(turned(image, np.deg2rad(angle[[k]]), shift[[k]]))[0, 0]
        for k in range(27)
    )
    found = run_tries(attack, Calls(Recorder(), 8), rows, np.zeros((1, 2)), Context())
    assert found.margin[0] == pytest.approx(-worst, abs=1e-6)


def test_breaks_images_each_in_its_own_way(
    calls: Calls, batch: tuple[Rows, np.ndarray], context: Context
) -> None:
    rows, logits = batch
    one, ten = (run_tries(Rotation(draws=k), calls, rows, logits, context) for k in (1, 10))
    assert (ten.margin >= one.margin).all()
    assert (ten.margin > 0).sum() > max(5, (one.margin > 0).sum())
    grid = run_tries(Rotation(angles=5, shifts=3), calls, rows, logits, context)
    assert (grid.margin > 0).sum() >= 5


def test_an_unknown_border_is_refused() -> None:
    with pytest.raises(BudgetError, match="edge or zero"):
        Rotation(border="mirror")
