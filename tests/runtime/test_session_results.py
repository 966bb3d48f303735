"""What a result of a session says: of logits that are not finite, of targets, of no images, and of
calls from several threads.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from threading import Barrier, Event, Thread

import numpy as np
import pytest

from jataug import AttackConfig, DataError, Session
from jataug.runtime.measurement import finished

from .sessions import CONFIG, EVALUATION, images, levels, same
from .test_session_models import BUDGETS, not_finite_above
from .test_session_models import opened as odd

PIXELS = AttackConfig.preset("evaluation", **BUDGETS, steps=2)


def barely_too_bright(count):
    """Images a little brighter than 0.5, that any random start may darken to less."""
    noise = np.random.default_rng(1).uniform(-0.1, 0.1, (count, 3, 6, 6))
    noise -= noise.mean((1, 2, 3), keepdims=True)
    return (0.5005 + noise).astype(np.float32)


@pytest.mark.parametrize("labels", [None, 0], ids=["predicted", "given"])
@pytest.mark.parametrize("eight_bit", [False, True], ids=["float", "8-bit"])
def test_an_image_without_clean_logits_is_failed_whatever_the_attack_finds(
    tmp_path, labels, eight_bit
):
    taken = barely_too_bright(24)
    if eight_bit:
        taken = np.ceil(255 * taken).astype(np.uint8).transpose(0, 2, 3, 1)
    given = None if labels is None else np.zeros(24, np.int64)
    with odd(not_finite_above(0.5), PIXELS, tmp_path / "a.onnx", batch_size=16) as session:
        assert not np.isfinite(session.predict(taken)).any()
        result = session.attack(taken, given, steps=0)
        again = session.attack(np.concatenate([taken, 0 * taken]), steps=0)
    assert result.failed.all()
    assert not result.success.any()
    assert (result.prediction == -1).all()
    np.testing.assert_array_equal(result.adversarial, taken)
    np.testing.assert_array_equal(again.failed, np.arange(48) < 24)


def test_reached_tells_whose_target_is_predicted(session):
    result = session.attack(images(16), pixel="8/255", steps=40)
    np.testing.assert_array_equal(result.reached, result.prediction == result.target)
    assert result.reached.any()
    assert not (result.reached & ~result.success).any()


def test_nothing_is_reached_where_no_objective_has_a_target(tiny_net, exported_attack):
    with Session.open(exported_attack(tiny_net.path, EVALUATION), device="cpu") as opened:
        assert opened.attack(images(5)).reached is None
        assert opened.attack(images(0)).reached is None


@pytest.mark.parametrize("form", ["step", "unrolled"])
def test_targets_that_nothing_would_read_are_refused(tiny_net, exported_attack, form):
    path = exported_attack(tiny_net.path, EVALUATION, form=form)
    refused = pytest.raises(DataError, match=r"^targets: .*truth.*leave targets out")
    with Session.open(path, device="cpu") as opened, refused:
        opened.attack(images(2), [0, 0], targets=[1, 1])


def test_targets_of_one_branch_are_enough(tiny_net, exported_attack):
    config = CONFIG.replace(pixel_objective="truth")
    with Session.open(exported_attack(tiny_net.path, config), device="cpu") as opened:
        result = opened.attack(images(2), [0, 0], targets=[1, 1])
    assert result.reached.shape == (2,)


NOTHING = [[], (), np.zeros(0, np.int64), np.zeros(0)]


@pytest.mark.parametrize("none", NOTHING, ids=["list", "tuple", "integers", "floats"])
@pytest.mark.parametrize("make", [images, levels])
def test_no_images_decide_nothing(path, make, none):
    with Session.open(path, device="cpu") as opened:
        logits = opened.predict(make(0))
        start = opened.draw(make(0), none, flow=none, pixel=none)
        for given in ({}, {"targets": none, "start": start, "flow": none, "pixel": none}):
            result = opened.attack(make(0), none, none, **given)
        assert opened.batch_size is None
        some = opened.attack(make(3))
        assert opened.batch_size == 3
    assert (logits.shape, logits.dtype) == ((0, 10), np.float32)
    for field in fields(some):
        one, other = getattr(result, field.name), getattr(some, field.name)
        assert (one.shape, one.dtype) == ((0, *other.shape[1:]), other.dtype), field.name


@pytest.mark.parametrize("name", ["labels", "targets", "indices"])
def test_nothing_for_some_images_is_refused(session, name):
    with pytest.raises(DataError, match=f"^{name}: expected 2 integers"):
        session.attack(images(2), **({"labels": [0, 1]} | {name: []}))


def at_once(calls):
    """Return what calls give that begin together, each in a thread of its own."""
    barrier = Barrier(len(calls))

    def call(one):
        barrier.wait()
        return one()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(call, calls))


@pytest.mark.parametrize("form", ["step", "loop"])
def test_eight_threads_give_what_one_gives(tiny_net, exported_attack, form):
    path = exported_attack(tiny_net.path, CONFIG, form=form)
    batches = [images(5, seed) for seed in range(8)]
    with Session.open(path, device="cpu", batch_size=4, threads=1) as session:

        def everything(k):
            start = session.draw(batches[k], seed=k)
            found = session.attack(batches[k], seed=k, start=start)
            if k == 3:
                session.close()
            return found, session.predict(batches[k])

        expected = [everything(k) for k in range(8)]
        for _ in range(3):
            found = at_once([lambda k=k: everything(k) for k in range(8)])
            for (ours, logits), (theirs, others) in zip(found, expected, strict=True):
                same(ours, theirs)
                np.testing.assert_array_equal(logits, others)


def test_close_waits_for_the_attack_of_another_thread(path, monkeypatch):
    with Session.open(path, device="cpu") as session:
        expected = session.attack(images(3))
        began, go_on, order = Event(), Event(), []

        def slowly(*args, **options):
            began.set()
            assert go_on.wait(60)
            order.append("attacked")
            return finished(*args, **options)

        monkeypatch.setattr("jataug.runtime.session.finished", slowly)

        def close():
            session.close()
            order.append("closed")

        with ThreadPoolExecutor(1) as pool:
            found = pool.submit(session.attack, images(3))
            assert began.wait(60)
            closing = Thread(target=close)
            closing.start()
            closing.join(0.2)
            assert closing.is_alive()
            session.draw(images(3))  # needs no runtime, and waits for nothing
            go_on.set()
            closing.join(60)
            same(found.result(), expected)
        assert order == ["attacked", "closed"]
