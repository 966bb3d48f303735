import sys

import numpy as np
import pytest

from jataug.budget import FlowBudget
from jataug.dataset import open_dataset
from jataug.drawing import full_scale, perturbation, picture, shown_size
from jataug.drawing.grid import Guess, Row, draw
from jataug.errors import DataError
from jataug.generator import generate, preview


def row(height, width, channels=3, flow=True, **names):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Row(
        clean=image,
        adversarial=image,
        flow=rng.normal(size=(2, height, width)) if flow else None,
        delta=rng.normal(size=(channels, height, width)) / 255,
        **{
            "label": "a",
            "before": Guess("a", 0.9, 0.9),
            "after": Guess("b", 0.8, 0.1),
            "name": "x/1",
            **names,
        },
    )


def written(monkeypatch, rows, title=""):
    """Every text that draw writes, in order."""
    found = []
    page = sys.modules["jataug.drawing.grid"]._Page  # the name is that of the function
    monkeypatch.setattr(page, "_write", lambda self, place, text, *more: found.append(text))
    draw(rows, title)
    return found


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
        logits = session.predict(dataset[index].image[None])[0].astype(np.float64)
        shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        label = ["cat", "dog", "eel"].index(shown.label) if shown.label.isalpha() else shown.label
        assert shown.after.confidence == pytest.approx(shares.max(), rel=1e-4)
        assert shown.after.label_confidence == pytest.approx(shares[int(label)], rel=1e-4)


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
    guess = Guess(long, 1.0, 1.0)
    page = np.array(draw([row(28, 28, flow=False, before=guess, after=guess, name=long)]))
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


@pytest.mark.parametrize(("channels", "flow"), [(1, True), (3, False)])
def test_the_columns_are_clean_flow_perturbation_adversarial(channels, flow):
    shown = row(28, 28, channels, flow)
    page, size = draw([shown]), (168, 168)
    columns = [
        page.crop((left, 46, left + 168, 46 + 168)) for left in range(20, page.width - 100, 182)
    ]
    assert len(columns) == 3 + flow
    changed = perturbation(shown.delta, full_scale([shown.delta]))
    for column, image in ((0, shown.clean), (-2, changed), (-1, shown.adversarial)):
        np.testing.assert_array_equal(columns[column], np.array(picture(image, size)))


def test_labels_confidences_and_scales_stand_beside_the_pictures(monkeypatch):
    shown = row(28, 28)
    texts = written(monkeypatch, [shown], "an attack")
    full = 255 * full_scale([shown.delta])
    assert texts[:2] == ["an attack", "clean"]
    assert texts[2].startswith("flow, arrows x")
    assert texts[3] == f"perturbation +-{full:.4g}/255"
    assert texts[4:8] == ["adversarial", "a", "90.0%", "x/1"]
    assert texts[-3:] == ["b", "80.0%, label 10.0%", "label: a"]


@pytest.mark.parametrize("name", ["two\nlines.png", "日本/é.png", "half\udc80.png", "a\0b"])
def test_any_file_name_is_drawn_on_one_line(name):
    plain, page = draw([row(28, 28)]), draw([row(28, 28, name=name)])
    assert page.size == plain.size
    # Only the line of the name differs.
    differs = np.flatnonzero((np.array(page) != np.array(plain)).any((1, 2)))
    top = 46 + 168 + 4 + 2 * 17
    assert top <= differs.min() <= differs.max() < top + 18
