import numpy as np
import pytest

from jataug.drawing import arrow_list, full_scale, lengthening, perturbation, shown_size


def test_small_images_are_enlarged_and_large_ones_reduced():
    assert shown_size(28, 28) == (168, 168)
    assert shown_size(10, 12) == (168, 140)
    assert shown_size(224, 200) == (200, 224)
    assert shown_size(1000, 500) == (112, 224)


def test_no_change_is_mid_grey_and_the_scale_goes_from_black_to_white():
    assert np.unique(perturbation(np.zeros((1, 4, 4)), 0.1)).tolist() == [128]
    assert np.unique(perturbation(np.zeros((1, 4, 4)), 0.0)).tolist() == [128]
    delta = np.array([[[-8.0, 4.0], [0.0, 8.0]]]) / 255
    assert full_scale([delta, delta / 2]) == 8 / 255
    assert full_scale([]) == 0
    np.testing.assert_array_equal(
        perturbation(delta, 8 / 255)[:, :, 0], [[0, 191], [128, 255]]
    )  # fmt: skip
    assert perturbation(np.zeros((3, 4, 5)), 1.0).shape == (4, 5, 3)


def test_a_perturbation_keeps_its_sign():
    delta = np.zeros((3, 1, 2))
    delta[0, 0, 0], delta[2, 0, 1] = 0.1, -0.1
    shown = perturbation(delta, 0.1)
    assert shown[0].tolist() == [[255, 128, 128], [128, 128, 0]]


def test_sub_pixel_flow_is_lengthened_to_be_seen():
    flow = np.zeros((2, 28, 28))
    assert lengthening([flow]) == 1
    flow[0, 3, 3] = 0.3
    assert 1 < lengthening([flow]) * 0.3 < 2.5


@pytest.mark.parametrize("size", [(28, 28), (224, 100), (1, 3)])
def test_arrows_are_the_flow_where_they_start(size):
    flow = np.random.default_rng(0).normal(size=(2, *size)).astype(np.float16)
    arrows = arrow_list(flow, 3.0)
    assert 1 <= len(arrows) <= 15 * 15
    for arrow in arrows:
        x, y = int(arrow.x), int(arrow.y)
        assert (arrow.x, arrow.y) == (x + 0.5, y + 0.5)
        assert (arrow.dx, arrow.dy) == pytest.approx(3 * flow[:, y, x].astype(float))
