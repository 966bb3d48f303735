import sys

import numpy as np
import pytest

from jataug.budget import FlowBudget
from jataug.errors import DataError
from jataug.generator import Row, draw, generate, open_dataset, preview
from jataug.generator.panels import amplification, lengthening, perturbation, shown_size


def row(height, width, channels=3, flow=True, **names):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Row(
        clean=image,
        adversarial=image,
        flow=rng.normal(size=(2, height, width)) if flow else None,
        delta=rng.normal(size=(channels, height, width)) / 255,
        **{"label": "a", "before": "a", "after": "b", "name": "x/1", **names},
    )


def test_the_picture_is_of_the_samples_that_generate_makes(session, npz, tmp_path, monkeypatch):
    drawn = []
    module = sys.modules["jataug.generator.preview"]  # the name is that of the function
    monkeypatch.setattr(module, "draw", lambda rows, title: drawn.extend(rows))
    preview(session, npz, 5, seed=4)
    generate(None, npz, tmp_path / "out", session=session, seed=4, save_flow=True)
    dataset = open_dataset(tmp_path / "out")
    for shown, index in zip(drawn, [0, 2, 4, 6, 8], strict=True):
        np.testing.assert_array_equal(shown.adversarial, dataset[index].image)
        np.testing.assert_array_equal(shown.flow, dataset[index].flow)
        assert shown.name == dataset[index].key


def test_small_images_are_enlarged_and_large_ones_reduced():
    assert shown_size(28, 28) == (168, 168)
    assert shown_size(10, 12) == (168, 140)
    assert shown_size(224, 200) == (200, 224)
    assert shown_size(1000, 500) == (112, 224)


def test_no_change_is_mid_grey_and_the_largest_does_not_clip():
    assert np.unique(perturbation(np.zeros((1, 4, 4)), 8, (4, 4))).tolist() == [128]
    delta = np.full((1, 1, 2), 8 / 255)
    delta[0, 0, 1] *= -1
    gain = amplification([delta])
    assert gain == 16
    assert np.unique(perturbation(delta, gain, (2, 1))).tolist() == [64, 192]
    assert amplification([np.zeros((1, 1, 1))]) == 1


def test_sub_pixel_flow_is_lengthened_to_be_seen():
    flow = np.zeros((2, 28, 28))
    assert lengthening([flow]) == 1
    flow[0, 3, 3] = 0.3
    assert 1 < lengthening([flow]) * 0.3 < 2.5


@pytest.mark.parametrize(("height", "width", "channels"), [(28, 28, 1), (300, 100, 3), (1, 1, 3)])
@pytest.mark.parametrize("flow", [True, False])
def test_a_grid_has_a_column_for_each_picture(height, width, channels, flow):
    long = "a very long class name, longer than its picture is wide " * 3
    page = draw([row(height, width, channels, flow, label=long, name=long)] * 3, title="an attack")
    size = shown_size(height, width)
    assert page.width >= (4 if flow else 3) * size[0]
    assert page.height >= 3 * size[1]
    margin = np.array(page)[:, -10:]
    assert (margin == 255).all()


def test_text_does_not_run_over_the_next_column():
    long = "w" * 200
    page = np.array(draw([row(28, 28, flow=False, before=long, after=long, name=long)]))
    for column in (1, 2):
        gap = 20 + column * (168 + 14) - 10
        assert (page[:, gap : gap + 8] == 255).all()


def test_an_attack_without_flow_has_no_flow_column(new_session, npz):
    config = new_session().config.replace(flow=FlowBudget(0))
    narrow = preview(new_session(config=config), npz, 2)
    assert narrow.width < preview(new_session(), npz, 2).width


def test_nothing_to_draw_is_refused(session, npz):
    with pytest.raises(DataError, match="at least one image"):
        draw([])
    with pytest.raises(DataError, match="count: expected"):
        preview(session, npz, 0)
