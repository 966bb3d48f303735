"""Each attack: inside its budget, as strong as it should be, and independent of its batch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from jataug.attack import JointAttack
from jataug.budget import FlowBudget, PixelBudget
from jataug.config import AttackConfig
from jataug.evaluation.attacks import ascent
from jataug.evaluation.attacks import perturbation as state
from jataug.evaluation.attacks.ascent import Ascent
from jataug.evaluation.attacks.best_found import Best
from jataug.evaluation.attacks.perturbation import Context
from jataug.evaluation.attacks.restarts import Attack, drive
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
    found = drive(BUDGETED[name], calls, rows, logits, context)
    within(rows, found, BUDGETED[name], (FLOW, PIXEL))
    assert np.abs(found.image - rows.image).max() > 0.01


def test_uses_its_budget_row_by_row(
    calls: Calls, batch: tuple[Rows, np.ndarray], context: Context
) -> None:
    rows, logits = batch
    radii = np.linspace(0, 0.02, len(rows)).astype(np.float32)
    for attack in (BUDGETED["pgd:steps=5"], BUDGETED["apgd-ce:steps=6"], Square(steps=5)):
        found = drive(attack, calls, rows.replace(pixel=radii), logits, context)
        reached = np.abs(found.image.astype(np.float64) - rows.image).max((1, 2, 3))
        assert (reached <= radii + FLOAT).all()
        np.testing.assert_allclose(reached, radii, atol=2e-3)
    flows = np.linspace(0, 0.5, len(rows)).astype(np.float32)
    found = drive(BUDGETED["flow:steps=4"], calls, rows.replace(flow=flows), logits, context)
    longest = np.hypot(*found.flow.transpose(1, 0, 2, 3).astype(np.float64)).max((1, 2))
    assert (longest <= flows).all()
    assert longest[-1] > 0.4


def accuracy(calls: Calls, batch: tuple[Rows, np.ndarray], context: Context, name: str) -> float:
    (attack,) = attacks_of([name], "quick").values()
    found = drive(attack, calls, *batch, context)
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
        found = drive(BUDGETED[name], calls, *batch, context)
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


@pytest.mark.parametrize("branch", ["pixel", "flow"])
def test_walks_as_the_torch_attack_does(
    twin: TorchModel, batch: tuple[Rows, np.ndarray], branch: str
) -> None:
    # So small that nothing is broken and every row walks to the end.
    rows, steps = batch[0].take(np.arange(8)), 2  # later iterates may rank otherwise
    flow, pixel = (0.02, 0.0) if branch == "flow" else (0.0, 0.5 / 255)
    rows = rows.replace(flow=np.full(8, flow, np.float32), pixel=np.full(8, pixel, np.float32))
    found = Ascent(branches=(branch,), steps=steps).run(Calls(twin, 8), rows, Context(seed=5))
    assert (found.margin < 0).all()
    config = AttackConfig.preset(
        "evaluation", flow=FlowBudget(flow), pixel=PixelBudget(pixel), steps=steps
    )
    result = JointAttack(config)(
        twin.module, *(torch.from_numpy(a) for a in (rows.image, rows.label)), rows.index, seed=5
    )
    moved = np.abs(result.exact.numpy() - rows.image).max()
    off = np.abs(found.image - result.exact.numpy())
    assert (off > 1e-3 * moved).mean() < 0.01
    assert moved > 1e-3


@pytest.mark.parametrize("name", ["pgd:steps=4", "joint:steps=2", "square:steps=10"])
def test_a_row_does_not_see_its_neighbours(
    calls: Calls, batch: tuple[Rows, np.ndarray], context: Context, name: str
) -> None:
    rows, logits = batch
    (attack,) = attacks_of([name], "quick").values()
    together = drive(attack, calls, rows, logits, context)
    some = np.array([20, 3, 11])
    alone = drive(attack, calls, rows.take(some), logits[some], context)
    # Signs may flip where a gradient is all but zero; see docs/method on batch sizes.
    assert (np.abs(alone.image - together.image[some]) > 1e-4).mean() < 0.02


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

    found = drive(Recorder(steps=1), Calls(None, 4), rows, logits, context)  # type: ignore[arg-type]
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
    drive(Ascent(branches=("pixel",), steps=20, restarts=3), calls, *batch, context)
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
        float((drive(Square(steps=s), calls, *batch, context).margin <= 0).mean()) for s in (5, 80)
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
        found = drive(attack, calls, still, logits, context)
        np.testing.assert_array_equal(found.image, rows.image, err_msg=name)
