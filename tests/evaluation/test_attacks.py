"""Each attack: inside its budget, as strong as it should be, and independent of its batch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from same_attack import check_iteration

from jataug.attack.problem import read
from jataug.budget import FlowBudget, PixelBudget
from jataug.config import AttackConfig
from jataug.evaluation.attacks import ascent
from jataug.evaluation.attacks import perturbation as state
from jataug.evaluation.attacks.ascent import Ascent
from jataug.evaluation.attacks.best_found import Best, View
from jataug.evaluation.attacks.perturbation import Context
from jataug.evaluation.attacks.restarts import Attack, run_tries
from jataug.evaluation.attacks.square import Square
from jataug.evaluation.attacks.suite import attacks_of
from jataug.evaluation.attacks.tries import Rows
from jataug.evaluation.models.model import Calls
from jataug.evaluation.models.onnx import OnnxModel
from jataug.evaluation.models.torch import TorchModel
from jataug.evaluation.runner import changes

from .conftest import FLOW, PIXEL

SHORT = [
    "noise:restarts=3", "fgsm", "pgd:steps=5", "apgd-ce:steps=6", "flow:steps=4", "joint:steps=3",
    "joint-pixel-flow:steps=3", "joint-targets:steps=3:targets=2",
    "apgd-targeted:steps=5:targets=2", "square:steps=20",
]  # fmt: skip
BUDGETED = attacks_of(SHORT, "quick")
FLOAT = 2e-7
"""What float32 images in [0, 1] may be off."""


def within(rows: Rows, found: Best, attack: Attack, radii: tuple[float, float]) -> None:
    flow, pixel = radii
    composition = getattr(attack, "composition", "spatial-pixel")
    delta, longest = changes(rows, found.view, composition)
    assert delta <= (pixel if attack.threat in ("pixel", "joint") else 0) + FLOAT
    assert longest <= (flow if attack.threat in ("flow", "joint") else 0)
    assert 0 <= found.image.min() <= found.image.max() <= 1
    assert (found.flow == found.flow.astype(np.float16)).all()


@pytest.mark.parametrize("name", SHORT)
def test_stays_in_its_budget(
    calls: Calls, batch: tuple[Rows, np.ndarray], context: Context, name: str
) -> None:
    rows, logits = batch
    found = run_tries(BUDGETED[name], calls, rows, logits, context)
    within(rows, found, BUDGETED[name], (FLOW, PIXEL))
    assert np.abs(found.image - rows.image).max() > 0.01


def test_uses_its_budget_row_by_row(
    calls: Calls, batch: tuple[Rows, np.ndarray], context: Context
) -> None:
    rows, logits = batch
    radii = np.linspace(0, 0.02, len(rows)).astype(np.float32)
    for attack in (BUDGETED["pgd:steps=5"], BUDGETED["apgd-ce:steps=6"], Square(steps=5)):
        found = run_tries(attack, calls, rows.replace(pixel=radii), logits, context)
        reached = np.abs(found.image.astype(np.float64) - rows.image).max((1, 2, 3))
        assert (reached <= radii + FLOAT).all()
        np.testing.assert_allclose(reached, radii, atol=2e-3)
    flows = np.linspace(0, 0.5, len(rows)).astype(np.float32)
    found = run_tries(BUDGETED["flow:steps=4"], calls, rows.replace(flow=flows), logits, context)
    longest = np.hypot(*found.flow.transpose(1, 0, 2, 3).astype(np.float64)).max((1, 2))
    assert (longest <= flows).all()
    assert longest[-1] > 0.4


def accuracy(calls: Calls, batch: tuple[Rows, np.ndarray], context: Context, name: str) -> float:
    (attack,) = attacks_of([name], "quick").values()
    found = run_tries(attack, calls, *batch, context)
    return float((calls.logits(found.image).argmax(1) == batch[0].label).mean())


def strength(calls: Calls, batch: tuple[Rows, np.ndarray], context: Context) -> None:
    """What has to hold between the attacks on the shipped classifier."""
    reached = {
        name: accuracy(calls, batch, context, name)
        for name in ("noise:restarts=3", "fgsm", "pgd:steps=10", "flow:steps=10", "joint:steps=10",
                     "joint-pixel-flow:steps=10")
    }  # fmt: skip
    assert reached["pgd:steps=10"] <= reached["fgsm"] - 0.1
    assert reached["fgsm"] <= reached["noise:restarts=3"] - 0.2
    assert reached["flow:steps=10"] <= reached["noise:restarts=3"] - 0.4
    for name in ("joint:steps=10", "joint-pixel-flow:steps=10"):
        assert reached[name] <= min(reached["pgd:steps=10"], reached["flow:steps=10"])


def test_strength(calls: Calls, batch: tuple[Rows, np.ndarray], context: Context) -> None:
    strength(calls, batch, context)


def budgets(calls: Calls, batch: tuple[Rows, np.ndarray], context: Context) -> None:
    for name in ("pgd:steps=5", "flow:steps=4", "joint:steps=3", "joint-pixel-flow:steps=3"):
        found = run_tries(BUDGETED[name], calls, *batch, context)
        within(batch[0], found, BUDGETED[name], (FLOW, PIXEL))


def _downhill(monkeypatch: pytest.MonkeyPatch) -> None:
    true = ascent.cotangent
    monkeypatch.setattr(ascent, "cotangent", lambda *arguments: -true(*arguments))


def _only_pixels_of_the_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    true = state.Warped.flow_gradient
    monkeypatch.setattr(state.Warped, "flow_gradient", lambda s, c: -true(s, c))


def _unprojected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "project", lambda value, *_: value)


def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    true = state.project
    monkeypatch.setattr(state, "project", lambda v, r, *rest: true(v, r * 1.001, *rest))


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        (_downhill, strength), (_only_pixels_of_the_flow, strength), (_unprojected, budgets),
        (_wide, budgets),
    ],
)  # fmt: skip
def test_a_planted_fault_is_seen(
    calls: Calls,
    batch: tuple[Rows, np.ndarray],
    context: Context,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[pytest.MonkeyPatch], None],
    check: Callable[..., None],
) -> None:
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        check(calls, batch, context)


def check_walk(
    twin: TorchModel, rows: Rows, attack: Ascent, seed: int, run: Callable[[], object]
) -> list[View]:
    """Run an attack and check its updates, until rows leave, against the torch attack on the twin;
    return the states that they began from.
    """
    moves: list[tuple[Any, View, View]] = []

    def recorded(own: state.State, branch: Any, *given: Any) -> None:
        before = own.view
        move(own, branch, *given)
        moves.append((branch, before, own.view))

    move = state.State.move
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state.State, "move", recorded)
        run()
    radii = {"flow": rows.flow, "pixel": rows.pixel}
    config = AttackConfig.preset(
        "evaluation",
        flow=FlowBudget(float(rows.flow.max()) if "flow" in attack.branches else 0),
        pixel=PixelBudget(float(rows.pixel.max()) if "pixel" in attack.branches else 0),
        steps=attack.steps,
    )
    assert config.branches == attack.branches
    given = {branch: radii[branch] if branch in config.branches else None for branch in radii}
    pair = torch.from_numpy(rows.image), torch.from_numpy(rows.label)
    began = []
    with torch.no_grad():
        posed = read(twin.module, config, *pair, rows.index, None, given, seed=seed, epoch=0)
        for branch, *views in moves:
            if len(views[0].image) < len(rows):
                break
            states = [{"flow": view.flow, "pixel": view.delta} for view in views]
            left, right = (
                {b: torch.from_numpy(v) for b, v in each.items() if v is not None}
                for each in states
            )
            # A flow is truncated to float16: that much of its largest entry.
            rounding = 5e-6 + 2.0**-10 * config.flow.radius
            check_iteration(posed, left, right, rounding, branches=(branch,))
            began.append(views[0])
    assert began
    return began


@pytest.mark.parametrize("branches", [("pixel",), ("flow",), ("flow", "pixel")])
def test_walks_as_the_torch_attack_does(
    twin: TorchModel, batch: tuple[Rows, np.ndarray], branches: tuple[Any, ...]
) -> None:
    # So small that nothing is broken and every row walks to the end.
    rows, steps = batch[0].take(np.arange(8)), 3
    flow, pixel = (np.full(8, r / len(branches), np.float32) for r in (0.02, 0.5 / 255))
    rows, attack = rows.replace(flow=flow, pixel=pixel), Ascent(branches=branches, steps=steps)
    found = []
    began = check_walk(
        twin,
        rows,
        attack,
        5,
        lambda: found.append(attack.run(Calls(twin, 8), rows, Context(seed=5))),
    )
    assert (found[0].margin < 0).all()
    assert len(began) == steps * len(branches)
    assert np.abs(found[0].image - rows.image).max() > 1e-3


@pytest.mark.parametrize("name", ["pgd:steps=4", "joint:steps=2"])
def test_a_row_does_not_see_its_neighbours(
    twin: TorchModel, calls: Calls, batch: tuple[Rows, np.ndarray], context: Context, name: str
) -> None:
    rows, logits = batch
    rows = rows.replace(flow=rows.flow / 4, pixel=rows.pixel / 8)  # the start breaks none
    (attack,) = attacks_of([name], "quick").values()
    assert isinstance(attack, Ascent)
    some, given = np.array([20, 3, 11]), (twin, rows, attack, context.seed)
    together = check_walk(*given, lambda: run_tries(attack, calls, rows, logits, context))
    given = (twin, rows.take(some), attack, context.seed)
    alone = check_walk(
        *given, lambda: run_tries(attack, calls, rows.take(some), logits[some], context)
    )
    for name in ("flow", "delta"):
        one, whole = getattr(alone[0], name), getattr(together[0], name)
        assert one is whole is None or np.array_equal(one, whole[some])


def test_a_row_of_a_random_search_does_not_see_its_neighbours(
    calls: Calls, batch: tuple[Rows, np.ndarray], context: Context
) -> None:
    """No gradient: a step is taken where it gains, and gains are far above their rounding."""
    rows, logits = batch
    some, attack = np.array([20, 3, 11]), Square(steps=10)
    together = run_tries(attack, calls, rows, logits, context)
    alone = run_tries(attack, calls, rows.take(some), logits[some], context)
    np.testing.assert_allclose(alone.image, together.image[some], rtol=0, atol=1e-6)


def test_waves_try_everything_on_what_stands(
    batch: tuple[Rows, np.ndarray], context: Context
) -> None:
    rows, logits = batch
    first, seen = int(rows.index[0]), []

    class Recorder(Square):
        targets, tries = 3, 6  # type: ignore[assignment]

        def run(self, calls: Calls, rows: Rows, context: Context) -> Best:
            entries = zip(rows.index, rows.restart, rows.target, strict=True)
            seen.extend((int(i), int(k), int(t)) for i, k, t in entries)
            best = Best(rows)
            best.margin[:] = np.where(rows.index == first, 1.0, -1.0)
            return best

    found = run_tries(Recorder(steps=1), Calls(None, 4), rows, logits, context)  # type: ignore[arg-type]
    for row, index in enumerate(rows.index):
        tried = [(k, t) for i, k, t in seen if i == index]
        ranked = np.argsort(-logits[row], kind="stable")
        rivals = [int(c) for c in ranked if c != rows.label[row]][:3]
        wanted = [(k, t) for k in (0, 1) for t in rivals]
        assert tried == (wanted[:1] if index == first else wanted)
    np.testing.assert_array_equal(found.margin > 0, rows.index == first)


def test_finished_images_cost_no_more(
    shipped: OnnxModel, batch: tuple[Rows, np.ndarray], context: Context
) -> None:
    calls = Calls(shipped, 32)
    run_tries(Ascent(branches=("pixel",), steps=20, restarts=3), calls, *batch, context)
    assert calls.gradients < 0.5 * 20 * len(batch[0])


class NoGradient:
    """Refuses to differentiate."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.image_shape, self.classes = model.image_shape, model.classes

    def logits(self, images: np.ndarray) -> np.ndarray:
        return self._model.logits(images)

    def gradient(self, *_: Any) -> Any:
        raise AssertionError("a black box was differentiated")


def test_square_needs_no_gradient(
    shipped: OnnxModel, batch: tuple[Rows, np.ndarray], context: Context
) -> None:
    calls = Calls(NoGradient(shipped), 32)
    few, many = (
        float((run_tries(Square(steps=s), calls, *batch, context).margin <= 0).mean())
        for s in (5, 80)
    )
    assert many < few <= 1
    assert many < 0.8
    assert calls.gradients == 0


def test_radius_zero_changes_nothing(
    calls: Calls, batch: tuple[Rows, np.ndarray], context: Context
) -> None:
    rows, logits = batch
    still = rows.replace(flow=np.zeros_like(rows.flow), pixel=np.zeros_like(rows.pixel))
    for name, attack in BUDGETED.items():
        found = run_tries(attack, calls, still, logits, context)
        np.testing.assert_array_equal(found.image, rows.image, err_msg=name)


@pytest.mark.parametrize("composition", ["spatial-pixel", "pixel-spatial"])
def test_an_l2_step_uses_the_whole_radius(composition: Any) -> None:
    """Where the image is black or white, half of a step leaves [0, 1]."""
    random = np.random.default_rng(0)
    image = random.random((3, 1, 12, 12)).round().astype(np.float32)
    rows = Rows.first_tries(image, np.zeros(3, np.int64), np.arange(3), flow=0.3, pixel=1.5)
    held = state.State(rows, Context(pixel_norm="l2"), ("flow", "pixel"), composition)
    held.randomize()
    for _ in range(2):
        gradient = random.standard_normal(image.shape).astype(np.float32)
        held.move("pixel", gradient, np.full(3, 3, np.float32))
    view = held.view
    assert view.delta is not None
    length = np.sqrt(np.square(view.delta.astype(np.float64)).sum((1, 2, 3)))
    assert (length <= 1.5 + 1e-6).all()
    assert (length >= 1.5 * 0.999).all()
    assert 0 <= view.image.min() <= view.image.max() <= 1
