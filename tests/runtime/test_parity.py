"""The torch attack and the exported one are the same attack: every option, step by step."""

import os
from dataclasses import fields

import numpy as np
import onnxruntime
import pytest
import torch
from same_attack import check_attack, check_gradients, check_outcome

from jataug import AttackConfig, FlowBudget, PixelBudget, Session
from jataug.attack import JointAttack, joint
from jataug.attack.problem import read
from jataug.config import PRESETS
from jataug.export.attack.body import Body, Inputs, State
from jataug.export.attack.warp import reach_of
from jataug.export.graph.builder import Graph, as_model
from jataug.export.model.load import load_model, prepare
from jataug.preprocessing import Preprocessing
from jataug.runtime.onnxruntime import Engine

BASE = {"flow": FlowBudget(0.7), "pixel": PixelBudget("8/255"), "steps": 5}
TABLE = {
    **{name: dict(options) for name, options in PRESETS.items()},
    "claim-12": {**PRESETS["claim-8"], "flow_objective": "truth"},
    "one step": {"steps": 1},
    "no step": {"steps": 0},
    "no flow": {"flow": FlowBudget(0)},
    "no pixels": {"pixel": PixelBudget(0)},
    "no flow, pixels first": {"flow": FlowBudget(0), **PRESETS["claim-8"]},
    "linf flow": {"flow": FlowBudget(0.7, "linf")},
    "l2 pixels": {"pixel": PixelBudget(1.0, "l2")},
    "l2 pixels, warped": {"pixel": PixelBudget(1.0, "l2"), "composition": "pixel-spatial"},
    "flow beyond a pixel": {"flow": FlowBudget(1.6)},
    "flow by gathers": {"flow": FlowBudget(3.5), "steps": 2},
    "flow by gathers, warped": {
        "flow": FlowBudget(3.5),
        "steps": 2,
        "composition": "pixel-spatial",
    },
    "flow step": {"flow_step": 0.11},
    "pixel step": {"pixel_step": 0.004},
    "pixels first": {"order": "pixel-flow"},
    "warped": {"composition": "pixel-spatial"},
    "flow away from the truth": {"flow_objective": "truth"},
    "flow to the target": {"flow_objective": "target"},
    "pixels away from the truth": {"pixel_objective": "truth"},
    "pixels by the margin": {"pixel_objective": "margin"},
    "zero start": {"start": "zero"},
    "best": {"keep": "best"},
    "best, pixels first": {"keep": "best", "order": "pixel-flow", "flow_objective": "truth"},
    "simultaneous": {"simultaneous": True},
    "simultaneous, pixels first": {"simultaneous": True, **PRESETS["claim-8"]},
    "targets drawn anew": {"redraw_targets": True},
}


THREADS = int(os.environ.get("OMP_NUM_THREADS", "1"))


def test_every_option_is_in_the_table():
    assert {name for options in TABLE.values() for name in options} == {
        field.name for field in fields(AttackConfig)
    }


@pytest.fixture(scope="module", autouse=True)
def _threads():
    """Small models: more threads would only wait for each other, but for test_kernels."""
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


class Subject:
    """A model twice, with images that touch 0 and 1."""

    def __init__(self, model, images):
        self.path, self.module = model
        self.images = images
        self.network = prepare(load_model(self.path), preprocessing=Preprocessing())


@pytest.fixture(scope="module")
def tiny(tiny_net):
    random = np.random.default_rng(0).uniform(-0.1, 1.1, (6, 3, 16, 16))
    return Subject(tiny_net, random.clip(0, 1).astype(np.float32))


@pytest.fixture(scope="module")
def demo(demo_classifier, demo_images):
    levels = demo_images[0][:4, None].astype(np.float32)
    return Subject(demo_classifier, levels / np.float32(255))


def configured(options):
    return AttackConfig(**{**BASE, **options})


def check(subject, config, path, images=None, **given):
    """Check every iteration of a session, and its result, against the torch attack of `config`."""
    images = subject.images if images is None else images
    with Session.open(path, device="cpu", threads=THREADS) as session:
        found = check_attack(subject.module, session, config, images, **given)
        clean = session.predict(images)
    expected = JointAttack(config)(subject.module, torch.from_numpy(images), **given)
    arrays = {name: np.asarray(value) for name, value in vars(expected).items()}
    radius = {name: given.get(name) for name in ("flow", "pixel")}
    check_outcome(type(found)(**arrays), found, clean, images, config, **radius)


@pytest.mark.parametrize("options", TABLE.values(), ids=TABLE)
def test_same_attack(tiny, exported_attack, options):
    config = configured(options)
    given = {"seed": 3, "epoch": 1, "indices": list(range(10, 16))}
    check(tiny, config, exported_attack(tiny.path, config), **given)


@pytest.mark.parametrize(
    "options",
    [
        {"order": "pixel-flow"},
        {"composition": "pixel-spatial"},
        {"flow_objective": "truth"},
        {"pixel_objective": "margin"},
        {"simultaneous": True},
        {"redraw_targets": True},
        {"flow": FlowBudget(0.7, "linf")},
        {"pixel": PixelBudget("8/255", "l2")},
        {"steps": 4},
        {"flow_step": 0.3},
        {"pixel_step": 0.015},
        {"start": "zero"},
    ],
    ids=lambda options: "+".join(options),
)
def test_another_option_is_another_attack(tiny, exported_attack, options):
    """The comparison finds an option that one of the two does not know."""
    path = exported_attack(tiny.path, configured({}))
    with pytest.raises(AssertionError):
        check(tiny, configured(options), path)


@pytest.mark.parametrize("preset", PRESETS)
def test_same_attack_on_a_trained_model(demo, exported_attack, preset):
    config = AttackConfig.preset(preset, **BASE)
    check(demo, config, exported_attack(demo.path, config))


@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED"])
def test_same_attack_by_other_kernels_of_the_runtime(tiny, exported_attack, monkeypatch, level):
    """ONNX Runtime takes no variable for them; convolutions in blocks of channels come with the
    last level of its optimisation, fused nodes with the one before.
    """

    class Options(onnxruntime.SessionOptions):
        def __init__(self):
            super().__init__()
            self.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)

    monkeypatch.setattr(onnxruntime, "SessionOptions", Options)
    for preset in PRESETS:
        config = AttackConfig.preset(preset, **BASE)
        check(tiny, config, exported_attack(tiny.path, config))


@pytest.mark.parametrize("preset", PRESETS)
def test_same_attack_on_8_bit_images(tiny, exported_attack, preset):
    config = AttackConfig.preset(preset, **BASE)
    levels = np.rint(255 * tiny.images).astype(np.uint8).transpose(0, 2, 3, 1)
    check(tiny, config, exported_attack(tiny.path, config), levels.copy())


@pytest.mark.parametrize(
    "arguments",
    [
        {"labels": [0, 1, 2, 3, 4, 5]},
        {"labels": [0, 1, 2, 3, 4, 5], "targets": [9, 8, 7, 6, 5, 4]},
        {"flow": [0, 0.1, 0.2, 0.3, 0.5, 0.7], "pixel": "4/255"},
        {"pixel": [0, 0.01, 0.02, 0.03, 0.01, 0]},
        {"steps": 2},
        {"steps": 0},
    ],
    ids=lambda arguments: "+".join(arguments),
)
@pytest.mark.parametrize("preset", ["claim-1", "claim-8"])
def test_same_attack_for_arguments_of_the_call(tiny, exported_attack, preset, arguments):
    config = AttackConfig.preset(preset, **BASE, redraw_targets=True)
    check(tiny, config, exported_attack(tiny.path, config), **arguments)


def gradients(subject, config):
    """Return a function from torch's problem and state to the exported gradients by branch."""
    count, (_, *sizes) = len(subject.images), subject.images.shape
    graph = Graph()
    terms = {
        "image": graph.input("image", np.float32, ("N", *sizes)),
        "label": graph.input("label", np.int64, ("N",)),
        "target": graph.input("target", np.int64, ("N",)),
    }
    inputs = Inputs(*terms.values(), None, None, None, None)
    on = config.branches
    if "flow" in on:
        terms["flow"] = graph.input("flow", np.float32, ("N", 2, *sizes[1:]))
    if "pixel" in on:
        terms["delta"] = graph.input("delta", np.float32, ("N", *sizes))
    reach = reach_of(config.flow.radius)
    body = Body(subject.network, config, Preprocessing(), reach, config.flow.radius)
    at = body.evaluate(inputs, State(terms.get("flow"), terms.get("delta")))
    outputs = {
        "flow": at.flow_gradient(config.flow_objective) if "flow" in on else None,
        "pixel": at.pixel_gradient(config.pixel_objective) if "pixel" in on else None,
    }
    made = {f"by_{name}": term for name, term in outputs.items() if term is not None}
    finished = graph.finish(terms.values(), made, "gradients", opsets={"": 18})
    engine = Engine(as_model(finished), {"N": count}, "cpu", THREADS)

    def run(problem, state):
        feeds = {"image": problem.image, "label": problem.label, "target": problem.target}
        feeds |= {"flow": state.get("flow"), "delta": state.get("pixel")}
        found = engine.run({n: np.asarray(v) for n, v in feeds.items() if v is not None})
        return {name.removeprefix("by_"): value for name, value in found.items()}

    return run


def check_all_gradients(subject, config):
    """Every gradient of every iteration, at the states that the torch attack passes through."""
    exported = gradients(subject, config)
    with torch.no_grad():
        image, radius = torch.from_numpy(subject.images), {"flow": None, "pixel": None}
        problem = read(subject.module, config, image, None, None, None, radius, seed=0, epoch=0)
        state = joint.start(problem)
        for iteration in range(max(config.steps, 1)):
            problem = problem.for_iteration(iteration)
            found = exported(problem, state)
            assert found.keys() == set(config.branches)
            check_gradients(problem, state, {b: torch.from_numpy(v) for b, v in found.items()})
            state, _ = joint.iterate(problem, state)


@pytest.mark.parametrize("options", TABLE.values(), ids=TABLE)
def test_same_gradients(tiny, options):
    check_all_gradients(tiny, configured(options))


@pytest.mark.parametrize("preset", PRESETS)
def test_same_gradients_on_a_trained_model(demo, preset):
    check_all_gradients(demo, AttackConfig.preset(preset, **{**BASE, "steps": 3}))
