"""What a session's result depends on, and what it does not."""

import numpy as np
import pytest
from same_attack import check_attack, check_outcome

from jataug import FlowBudget, Session, streams
from jataug.artifact import load_artifact

from .sessions import CONFIG, EVALUATION, FIELDS, images, levels, same


def test_a_padded_batch_gives_the_same_images(path):
    with Session.open(path, device="cpu", batch_size=8) as opened:
        padded, full = opened.attack(images(5)), opened.attack(images(8))
        split = opened.attack(images(13))
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(padded, name), getattr(full, name)[:5], err_msg=name)
        np.testing.assert_array_equal(getattr(split, name)[:8], getattr(full, name), err_msg=name)


@pytest.mark.parametrize("size", [1, 3, 16])
def test_batches_of_every_size_are_attacked_alike(tiny_net, path, size):
    with Session.open(path, device="cpu", batch_size=size) as opened:
        found = check_attack(tiny_net.module, opened, CONFIG, levels(16))
        clean = opened.predict(levels(16))
    with Session.open(path, device="cpu", batch_size=4) as opened:
        expected = opened.attack(levels(16))
    check_outcome(expected, found, clean, levels(16), CONFIG)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_change_nothing_but_rounding(tiny_net, path, threads):
    with Session.open(path, device="cpu", threads=threads) as opened:
        check_attack(tiny_net.module, opened, CONFIG, images(16))


def test_the_default_batch_is_that_of_the_first_call(path):
    with Session.open(path, device="cpu") as opened:
        first = opened.attack(images(4))
        later = opened.attack(images(9))
    np.testing.assert_array_equal(later.adversarial[:4], first.adversarial)


def test_labels_default_to_the_prediction(session):
    expected = session.predict(images(6)).argmax(1)
    np.testing.assert_array_equal(session.attack(images(6)).label, expected)
    same(session.attack(images(6)), session.attack(images(6), expected))


def test_indices_default_to_positions(session):
    same(session.attack(images(6)), session.attack(images(6), indices=np.arange(6)))


def test_an_image_depends_on_its_index_not_on_its_place(tiny_net, session):
    order = np.array([3, 0, 2, 1])
    straight = session.attack(images(4), indices=[7, 8, 9, 10])
    given = {"indices": np.array([7, 8, 9, 10])[order]}
    mixed = check_attack(tiny_net.module, session, CONFIG, images(4)[order], **given)
    np.testing.assert_array_equal(mixed.target, straight.target[order])


@pytest.mark.parametrize("other", [{"seed": 1}, {"epoch": 1}, {"indices": range(100, 106)}])
def test_seed_epoch_and_index_change_start_and_target(session, other):
    base, again = (session.attack(images(6), seed=0, epoch=0) for _ in range(2))
    same(base, again)
    changed = session.attack(
        images(6),
        **{"indices": list(other.get("indices", range(6)))}
        | {name: value for name, value in other.items() if name != "indices"},
    )
    assert (changed.target != base.target).any()
    assert (changed.adversarial != base.adversarial).mean() > 0.5


def test_no_steps_is_the_start_of_the_streams(session):
    result = session.attack(images(3), indices=[5, 6, 7], steps=0, seed=2, epoch=4)
    flow = [streams.flow_start(2, i, (16, 16), FlowBudget(0.7), epoch=4) for i in (5, 6, 7)]
    np.testing.assert_allclose(result.flow, np.stack(flow), rtol=1e-3, atol=1e-6)


def test_targets_given_are_kept(session):
    label = np.arange(4)
    result = session.attack(images(4), label, targets=label + 1)
    np.testing.assert_array_equal(result.target, label + 1)


def test_radii_are_each_images_own(tiny_net, session):
    flow, pixel = [0.1, 0.7, 0.4], np.array([0, 0.01, 0.03])
    check_attack(
        tiny_net.module, session, CONFIG, images(3), labels=[0, 1, 2], flow=flow, pixel=pixel
    )


def test_radius_zero_keeps_the_image(session):
    result = session.attack(images(3), flow=0, pixel=0)
    np.testing.assert_allclose(result.adversarial, images(3), rtol=0, atol=1e-7)
    assert not result.flow.any()


def test_more_steps_are_a_stronger_attack(tiny_net, exported_attack):
    with Session.open(exported_attack(tiny_net.path, EVALUATION), device="cpu") as opened:
        loss = [opened.attack(images(16), steps=steps).loss.mean() for steps in (0, 1, 10)]
    assert loss[0] < loss[1] < loss[2]


def test_steps_of_a_whole_attack_are_fixed(tiny_net, exported_attack):
    path = exported_attack(tiny_net.path, CONFIG, form="unrolled")
    with Session.open(path, device="cpu") as opened:
        same(opened.attack(images(2), steps=3), opened.attack(images(2)))
        assert opened.attack(images(2), steps=0).loss.shape == (2,)
        with pytest.raises(ValueError, match="form unrolled with 3 steps"):
            opened.attack(images(2), steps=2)


def test_redrawn_targets_are_those_of_the_last_iteration(tiny_net, exported_attack):
    config = CONFIG.replace(redraw_targets=True, steps=4)
    label = np.zeros(40, np.int64)
    with Session.open(exported_attack(tiny_net.path, config), device="cpu") as opened:
        result = opened.attack(images(40), label, seed=3)
        kept = opened.attack(images(40), label, seed=3, targets=label + 1)
    expected = streams.target_labels(3, range(40), label, 10, iteration=3)
    np.testing.assert_array_equal(result.target, expected)
    assert (kept.target == 1).all()


def test_an_empty_batch_gives_empty_results(session):
    for empty in (images(0), levels(0)):
        result = session.attack(empty)
        assert result.adversarial.shape == empty.shape
        assert result.logits.shape == (0, 10)
        assert session.predict(empty).shape == (0, 10)


def test_the_manifest_tells_what_was_exported(path, session):
    _, manifest = load_artifact(path)
    assert session.manifest["config"]["steps"] == 3
    assert (session.config, session.classes) == (CONFIG, 10)
    assert (session.image_shape, manifest.batch) == ((3, 16, 16), "N")
    assert session.providers == ["CPUExecutionProvider"]


def test_a_closed_session_starts_again(path):
    opened = Session.open(path, device="cpu")
    before = opened.attack(images(2))
    opened.close()
    same(opened.attack(images(2)), before)
