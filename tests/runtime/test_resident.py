"""Sessions on arrays that stay where the runtime is: here on the CPU, with the code that runs on
CUDA, against the sessions on numpy.

From one start both make the same iterates to the bit, for the same engine makes them. They are
rendered by torch here and by numpy there, whose interpolations and l2 lengths differ in the last
bits: FLOATS. A start that is drawn by torch may differ in the last bit of a cosine, and where a
gradient is within rounding of zero its direction is then anything: their outcomes are compared.
"""

from dataclasses import fields

import numpy as np
import onnxruntime
import pytest
import torch
from same_attack import check_outcome

from jataug import AttackConfig, FlowBudget, PixelBudget, Session
from jataug.attack import noise
from jataug.attack.best_iterate import Candidate
from jataug.runtime.on_device import resident as resident_module
from jataug.runtime.on_device import tensor_calls as tensors
from jataug.runtime.onnxruntime import Engine

from .sessions import CONFIG, EVALUATION, images, levels
from .test_session_models import BUDGETS, bright_and_dark, not_finite_above
from .test_session_models import opened as odd
from .test_session_refusals import WRONG_ARGUMENTS, WRONG_IMAGES
from .test_session_results import barely_too_bright

FLOATS = 2.5e-7
EXACT = ("flow", "success", "label", "target", "failed", "reached")

TABLE = {
    "claim-1": CONFIG,
    "claim-8": AttackConfig.preset("claim-8", flow=CONFIG.flow, pixel=CONFIG.pixel, steps=3),
    "evaluation": EVALUATION,
    "best, pixels first": EVALUATION.replace(order="pixel-flow", composition="pixel-spatial"),
    "best, of steps too long": EVALUATION.replace(flow_step=1.4, pixel_step=0.06),
    "linf flow, l2 pixels": CONFIG.replace(
        flow=FlowBudget(0.7, "linf"), pixel=PixelBudget(1.0, "l2")
    ),
    "the same, warped": CONFIG.replace(
        flow=FlowBudget(0.7, "linf"), pixel=PixelBudget(1.0, "l2"), composition="pixel-spatial"
    ),
    "no flow": CONFIG.replace(flow=FlowBudget(0)),
    "no pixels": CONFIG.replace(pixel=PixelBudget(0)),
    "zero start": CONFIG.replace(start="zero"),
    "targets drawn anew": CONFIG.replace(redraw_targets=True),
    "simultaneous": CONFIG.replace(simultaneous=True),
}
GIVEN = {"indices": np.arange(20, 27), "seed": 5, "epoch": 2}


def resident(session):
    """What Session.attack hands arrays on CUDA to."""
    return session._resident()


def check(found, expected, floats=FLOATS):
    """As the module says; logits and losses follow the images."""
    for field in fields(expected):
        ours, theirs = getattr(found, field.name), getattr(expected, field.name)
        if theirs is None:
            assert ours is None, field.name
            continue
        assert isinstance(ours, torch.Tensor), field.name
        ours = ours.numpy()
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), field.name
        if field.name in EXACT:
            np.testing.assert_array_equal(ours, theirs, field.name)
        elif field.name in ("loss", "logits"):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
        elif ours.dtype == np.uint8:
            apart = np.abs(ours.astype(int) - theirs)
            assert apart.max(initial=0) <= 1
            assert (apart > 0).sum() <= 1e-3 * apart.size
        else:
            # Of 8-bit images the reported perturbation belongs to the level.
            bound = 1e-3 if field.name == "delta" and found.adversarial.dtype == torch.uint8 else 0
            apart = np.abs(ours - theirs) > floats
            assert apart.sum() <= bound * apart.size, field.name


@pytest.fixture
def opened(tiny_net, exported_attack):
    """Return (config, **export options) -> a session of batches of 3."""

    def make(config, **options):
        path = exported_attack(tiny_net.path, config, **options)
        return Session.open(path, device="cpu", batch_size=3, threads=1)

    return make


@pytest.mark.parametrize("make", [images, levels])
@pytest.mark.parametrize("config", TABLE.values(), ids=TABLE)
def test_from_one_start_the_results_are_those_of_numpy(opened, config, make):
    """Seven images in batches of three: two whole ones and one that is padded."""
    given = make(7)
    with opened(config) as session:
        start = session.draw(given, GIVEN["indices"], seed=5, epoch=2)
        expected = session.attack(given, **GIVEN, start=start)
        found = resident(session).attack(torch.from_numpy(given), **GIVEN, start=start)
    check(found, expected)


@pytest.mark.parametrize("form", ["loop", "unrolled"])
def test_whole_attacks_in_one_call(opened, form):
    with opened(EVALUATION.replace(keep="last"), form=form) as session:
        for steps in (None, 0):
            start = session.draw(images(4))
            expected = session.attack(images(4), start=start, steps=steps)
            found = resident(session).attack(torch.from_numpy(images(4)), start=start, steps=steps)
            check(found, expected)


@pytest.mark.parametrize("config", TABLE.values(), ids=TABLE)
def test_starts_drawn_by_torch(opened, config):
    with opened(config) as session:
        given, clean = torch.from_numpy(images(7)), session.predict(images(7))
        check(
            resident(session).attack(given, **GIVEN, steps=0),
            session.attack(images(7), **GIVEN, steps=0),
        )
        expected = session.attack(images(7), **GIVEN)
        found = resident(session).attack(given, **GIVEN)
    arrays = {n: None if v is None else v.numpy() for n, v in vars(found).items()}
    check_outcome(expected, type(expected)(**arrays), clean, images(7), config)


ARGUMENTS = {
    "labels": {"labels": np.arange(7)},
    "labels, a tensor": {"labels": torch.arange(7, dtype=torch.uint8)},
    "targets": {"labels": list(range(7)), "targets": torch.arange(7) + 1},
    "radii": {
        "flow": [0, 0.1, 0.2, 0.3, 0.5, 0.6, 0.7],
        "pixel": torch.linspace(0, 0.03, 7),
    },
    "radius zero": {"flow": 0, "pixel": "0/255"},
    "steps": {"steps": 2},
    "no steps": {"steps": 0},
    "indices": {"indices": torch.arange(7) * 3},
}


TARGETED = EVALUATION.replace(flow_objective="margin")


@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS)
@pytest.mark.parametrize("config", [CONFIG.replace(redraw_targets=True), TARGETED])
def test_arguments_of_the_call(opened, config, arguments):
    drawn = {name: arguments[name] for name in ("flow", "pixel", "indices") if name in arguments}
    with opened(config) as session:
        start = session.draw(images(7), **drawn)
        expected = session.attack(images(7), start=start, **arguments)
        found = resident(session).attack(torch.from_numpy(images(7)), start=start, **arguments)
    check(found, expected)


@pytest.mark.parametrize("preset", ["claim-1", "evaluation"])
def test_the_demo(demo_classifier, demo_images, exported_attack, preset):
    config = AttackConfig.preset(preset, steps=10)
    given = demo_images[0][:40, ..., None]
    with Session.open(
        exported_attack(demo_classifier.path, config), device="cpu", batch_size=16, threads=1
    ) as session:
        start = session.draw(given)
        expected = session.attack(given, demo_images[1][:40], start=start)
        ours = resident(session).attack(
            torch.from_numpy(given), torch.from_numpy(demo_images[1][:40]), start=start
        )
    check(ours, expected)
    assert expected.success.mean() > 0.5


@pytest.mark.parametrize("make", [images, levels])
def test_logits_are_those_of_numpy(opened, make):
    with opened(CONFIG) as session:
        found = resident(session).predict(torch.from_numpy(make(7)))
        np.testing.assert_array_equal(found.numpy(), session.predict(make(7)))


@pytest.mark.parametrize("make", [images, levels])
def test_no_images(opened, make):
    with opened(CONFIG) as session:
        none = torch.from_numpy(make(0))
        start = session.draw(make(0))
        for given in ({}, {"labels": [], "indices": [], "targets": none.new_zeros(0)}):
            found = resident(session).attack(none, start=start, **given)
            check(found, session.attack(make(0)), floats=0)
        assert resident(session).predict(none).shape == (0, 10)


def test_no_images_decide_no_batch_size(tiny_net, exported_attack):
    with Session.open(exported_attack(tiny_net.path, CONFIG), device="cpu") as session:
        resident(session).attack(torch.from_numpy(images(0)))
        resident(session).predict(torch.from_numpy(images(0)))
        assert session.batch_size is None


def test_targets_that_nothing_would_read_are_refused(opened):
    with opened(EVALUATION) as session, pytest.raises(ValueError, match=r"^targets: .*truth"):
        resident(session).attack(torch.from_numpy(images(1)), [0], targets=[1])


@pytest.mark.parametrize("labels", [None, [0] * 24], ids=["predicted", "given"])
def test_an_image_without_clean_logits_is_failed(tmp_path, labels):
    config = AttackConfig.preset("evaluation", **BUDGETS, steps=2)
    given = barely_too_bright(24)
    with odd(not_finite_above(0.5), config, tmp_path / "a.onnx", batch_size=16) as session:
        found = resident(session).attack(torch.from_numpy(given), labels, steps=0)
    assert found.failed.all()
    assert not found.success.any()
    np.testing.assert_array_equal(found.adversarial.numpy(), given)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensor: tensor.double(),
        lambda tensor: tensor.contiguous(memory_format=torch.channels_last),
        lambda tensor: tensor.clone().requires_grad_(),
        lambda tensor: torch.nn.Parameter(tensor),
    ],
)
def test_tensors_of_every_kind(opened, change):
    with opened(CONFIG) as session:
        expected = resident(session).attack(torch.from_numpy(images(3)))
        with torch.inference_mode():
            found = resident(session).attack(change(torch.from_numpy(images(3))))
        again = resident(session).attack(torch.from_numpy(images(3)))
    for field in fields(expected):
        for other in (found, again):
            value = getattr(other, field.name)
            assert type(value) is torch.Tensor
            assert not value.requires_grad
            assert torch.equal(value, getattr(expected, field.name)), field.name


@pytest.mark.parametrize("keep", ["last", "best"])
@pytest.mark.parametrize("eight_bit", [False, True], ids=["float", "8-bit"])
def test_images_whose_logits_are_not_finite_come_back_clean(tmp_path, keep, eight_bit):
    config = AttackConfig.preset("evaluation", **BUDGETS, steps=2, keep=keep)
    given, bad = bright_and_dark(5), np.array([True, False, True, False, True])
    if eight_bit:
        given = np.rint(255 * given).astype(np.uint8).transpose(0, 2, 3, 1).copy()
    with odd(not_finite_above(0.5), config, tmp_path / "a.onnx", batch_size=2) as session:
        start = session.draw(given)
        expected = session.attack(given, np.zeros(5, np.int64), start=start)
        found = resident(session).attack(
            torch.from_numpy(given), np.zeros(5, np.int64), start=start
        )
    check(found, expected)
    np.testing.assert_array_equal(found.failed.numpy(), bad)
    np.testing.assert_array_equal(found.adversarial.numpy()[bad], given[bad])
    assert (found.adversarial.numpy()[~bad] != given[~bad]).any((1, 2, 3)).all()


# What is refused, in the words of the sessions on numpy.


NUMBERS = {name: case for name, case in WRONG_IMAGES.items() if isinstance(case[0], np.ndarray)}


@pytest.mark.parametrize(("wrong", "message"), NUMBERS.values(), ids=NUMBERS)
def test_wrong_images(opened, wrong, message):
    with opened(CONFIG) as session:
        for ours, theirs in (
            (resident(session).attack, session.attack),
            (resident(session).predict, session.predict),
        ):
            with pytest.raises(ValueError, match=message) as expected:
                theirs(wrong)
            with pytest.raises(ValueError, match=message) as found:
                ours(torch.from_numpy(np.ascontiguousarray(wrong)))
            assert (found.type, str(found.value)) == (expected.type, str(expected.value))


@pytest.mark.parametrize("lies", [torch.as_tensor, lambda value: value], ids=["tensor", "host"])
@pytest.mark.parametrize(
    ("arguments", "error", "message"), WRONG_ARGUMENTS.values(), ids=WRONG_ARGUMENTS
)
def test_wrong_arguments(opened, arguments, error, message, lies):
    given = {
        name: lies(value) if name in ("labels", "targets") else value
        for name, value in arguments.items()
    }
    with opened(CONFIG) as session, pytest.raises(error, match=message) as found:
        resident(session).attack(torch.from_numpy(images(2)), **given)
    assert "\n" not in str(found.value)


def test_numbers_that_numpy_has_not(opened):
    with opened(CONFIG) as session, pytest.raises(ValueError, match=r"bfloat16; convert it") as one:
        resident(session).attack(torch.from_numpy(images(2)).bfloat16())
    assert "\n" not in str(one.value)


# Where things lie.


@pytest.mark.parametrize("make", [images, levels])
@pytest.mark.parametrize(
    "config", [EVALUATION, CONFIG.replace(redraw_targets=True)], ids=["best", "redrawn"]
)
def test_nothing_comes_to_the_host(opened, monkeypatch, config, make):
    def forbidden(*_, **__):
        raise AssertionError("a copy to the host")

    with opened(config) as session:
        given = torch.from_numpy(make(7))
        expected = resident(session).attack(given)
        for kind, names in (
            (torch.Tensor, ("cpu", "numpy", "tolist", "__array__", "__dlpack__")),
            (onnxruntime.OrtValue, ("numpy", "update_inplace", "ortvalue_from_numpy")),
            (Engine, ("run", "empty", "bind")),
        ):
            for name in names:
                monkeypatch.setattr(kind, name, forbidden)
        found = resident(session).attack(given)
        logits = resident(session).predict(given)
        monkeypatch.undo()
    for field in fields(expected):
        ours, theirs = getattr(found, field.name), getattr(expected, field.name)
        assert ours is theirs or torch.equal(ours, theirs), field.name
    assert logits.shape == (7, 10)


def test_addresses_stay(opened):
    with opened(EVALUATION) as session:
        here = resident(session)
        here.attack(torch.from_numpy(images(3)))
        before = [tensor.data_ptr() for tensor in fixed(here)]
        for given in (images(7), levels(2)):
            here.attack(torch.from_numpy(given), steps=2)
            assert [tensor.data_ptr() for tensor in fixed(here)] == before
    assert len(set(before)) == len(before) > 12


def test_padding_is_a_clean_image_with_a_target(opened):
    with opened(CONFIG.replace(redraw_targets=True)) as session:
        resident(session).attack(torch.from_numpy(1 - images(3)), torch.arange(3))
        resident(session).attack(torch.from_numpy(images(2)), torch.arange(2) + 5)
        held = resident(session)._stepper._inputs
    assert not held["image"][2].any()
    assert held["image"][1].any()
    assert (held["label"][2], held["target"][2]) == (0, 1)


def test_the_first_iterate_is_kept_though_the_iterations_go_on():
    """The tensors that it lies in are written to."""
    state = {"flow": torch.ones(2, 2, 4, 4)}
    held = resident_module._kept(
        None, Candidate(state, torch.tensor([True, False]), torch.tensor([5.0, 5.0]))
    )
    state["flow"].zero_()
    other = Candidate(state, torch.tensor([False, False]), torch.tensor([9.0, 9.0]))
    kept = resident_module._kept(held, other)
    assert kept.state["flow"][:, 0, 0, 0].tolist() == [1, 0]


def fixed(here):
    stepper, meter = here._stepper, here._meter
    groups = (stepper._inputs, *stepper._states, stepper._reports, meter._inputs, meter._reports)
    return [tensor for group in groups for tensor in group.values()]


@pytest.mark.parametrize("config", [EVALUATION, TABLE["no pixels"]], ids=["best", "no pixels"])
def test_results_are_nobody_elses_memory(opened, config):
    given, label = torch.from_numpy(images(3)), torch.arange(3)
    with opened(config) as session:
        first = resident(session).attack(given, label)
        there = {name: value for name, value in vars(first).items() if value is not None}
        kept = {name: value.clone() for name, value in there.items()}
        others = [*fixed(resident(session)), given, label]
        taken = {tensor.untyped_storage().data_ptr() for tensor in others}
        for name, value in there.items():
            assert value.untyped_storage().data_ptr() not in taken, name
        resident(session).attack(1 - given, label + 1)
    assert all(torch.equal(vars(first)[name], value) for name, value in kept.items())
    np.testing.assert_array_equal(given.numpy(), images(3))


def test_torch_is_done_before_the_runtime_reads(opened, monkeypatch):
    seen = []
    run = Engine.run_bound
    monkeypatch.setattr(tensors, "settle", lambda device: seen.append("settled"))
    monkeypatch.setattr(Engine, "run_bound", lambda *given: (seen.append("run"), run(*given)))
    with opened(EVALUATION) as session:
        resident(session).attack(torch.from_numpy(images(3)))
    assert seen == ["settled", "run"] * (1 + 3 + 1 + 1)


def test_settling_waits_for_the_stream_of_the_device(monkeypatch):
    from jataug.runtime.on_device.shared import settle

    waited = []

    class Stream:
        def __init__(self, device):
            self.device = device

        def synchronize(self):
            waited.append(self.device)

    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    settle(torch.device("cpu"))
    settle(torch.device("cuda", 1))
    assert waited == [torch.device("cuda", 1)]


# Random starts.


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_noise_is_that_of_the_streams(norm, monkeypatch):
    """Uniform numbers to the bit; cosines and logarithms to the last bit of a float32."""
    from jataug import streams

    monkeypatch.setattr(noise, "_AT_ONCE", 400)  # two images at a time, of the flow
    radius, indices = [0.0, 0.2, 0.7, 1.0], [7, 2**40, 0, 2**63 + 1]
    config = AttackConfig(flow=FlowBudget(1.0, norm), pixel=PixelBudget(1.0, norm))
    own = torch.tensor(radius)
    found = noise.starts(
        (4, 3, 9, 11), indices, {"flow": own, "pixel": own}, config, seed=2**64 - 1, epoch=3
    )
    for row, index in enumerate(indices):
        flow = streams.flow_start(
            2**64 - 1, index, (9, 11), FlowBudget(float(own[row]), norm), epoch=3
        )
        pixel = streams.pixel_start(
            2**64 - 1, index, (3, 9, 11), PixelBudget(float(own[row]), norm), epoch=3
        )
        for ours, theirs in ((found["flow"][row], flow), (found["pixel"][row], pixel)):
            if norm == "linf":
                np.testing.assert_array_equal(ours.numpy(), theirs)
            else:
                np.testing.assert_array_max_ulp(ours.numpy(), theirs, 1)


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"epoch": 0.5}, {"seed": 2**64}])
def test_noise_of_no_stream(wrong):
    one = torch.ones(1)
    with pytest.raises(ValueError, match=next(iter(wrong))):
        noise.starts(
            (1, 3, 4, 4), [0], {"flow": one, "pixel": one}, CONFIG,
            **{"seed": 0, "epoch": 0, **wrong},
        )  # fmt: skip
