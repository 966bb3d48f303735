"""What a result of the joint attack depends on, and what is measured."""

import attack_claims as claims
import numpy as np
import pytest
import torch

from jataug import AttackConfig, AttackResult, DataError, FlowBudget, PixelBudget, streams
from jataug.attack import JointAttack
from jataug.attack.finalize import from_levels
from jataug.attack.warp import warp

OFF = {"flow": FlowBudget(0), "pixel": PixelBudget(0)}


def same(first: AttackResult, second: AttackResult):
    for name in first.__dataclass_fields__:
        one, other = getattr(first, name), getattr(second, name)
        assert one is other or torch.equal(one, other), name


# What a result depends on.


@pytest.mark.parametrize("preset", ["claim-1", "claim-8", "evaluation"])
def test_same_call_same_result(model, preset):
    image, attack = claims.images(3, 3, 8, 8), JointAttack(AttackConfig.preset(preset, steps=3))
    same(attack(model, image, seed=7), attack(model, image, seed=7))


@pytest.mark.parametrize("other", [{"seed": 1}, {"epoch": 1}, {"indices": [5, 6, 7]}])
def test_seed_epoch_and_index_change_the_start(model, other):
    image, attack = claims.images(3, 3, 8, 8), JointAttack(AttackConfig(steps=0))
    found = attack(model, image, **other)
    assert not torch.equal(found.adversarial, attack(model, image).adversarial)


def test_batch_and_position_do_not_matter():
    image, model = claims.smooth(5, 3, 8, 8), claims.Linear((3, 8, 8))
    attack = JointAttack(AttackConfig(steps=4))
    indices, label = [11, 3, 8, 0, 99], torch.tensor([0, 1, 2, 3, 0])
    whole = attack(model, image, label, indices)
    for part in ([2], [4, 0], [3, 1, 2]):
        some = attack(model, image[part], label[part], [indices[i] for i in part])
        torch.testing.assert_close(some.adversarial, whole.adversarial[part], rtol=0, atol=1e-6)
        assert torch.equal(some.target, whole.target[part])


def test_radii_per_image_equal_separate_calls():
    image, model = claims.smooth(3, 3, 8, 8), claims.Linear((3, 8, 8))
    attack, label = JointAttack(claims.small(AttackConfig(), steps=4)), [0, 1, 2]
    flow, pixel = [0.1, 0.0, 0.6], np.array([2 / 255, 12 / 255, 0.0])
    whole = attack(model, image, label, flow=flow, pixel=pixel)
    for i in range(3):
        one = attack(model, image[i : i + 1], label[i : i + 1], [i], flow=flow[i], pixel=pixel[i])
        torch.testing.assert_close(one.adversarial[0], whole.adversarial[i], rtol=0, atol=1e-6)
        torch.testing.assert_close(one.flow[0], whole.flow[i], rtol=0, atol=1e-3)


def test_given_step_sizes_are_used():
    image, model = claims.images(1, 3, 6, 6) * 0.5 + 0.25, claims.Linear((3, 6, 6))
    config = AttackConfig(steps=1, start="zero", flow_step=0.125, pixel_step=0.0078125)
    result = JointAttack(config)(model, image)
    assert result.delta.abs().max().item() == pytest.approx(0.0078125, abs=claims.SLACK)
    assert result.flow.float().norm(dim=1).max().item() == pytest.approx(0.125, rel=2e-3)


@pytest.mark.parametrize("redraw", [False, True])
def test_targets_are_drawn_once_or_in_every_iteration(model, redraw):
    image, label = claims.images(12, 3, 8, 8), torch.arange(12) % 10
    config = AttackConfig(redraw_targets=redraw, steps=3)
    result = JointAttack(config)(model, image, label, seed=2, epoch=5)
    iteration = 2 if redraw else 0
    expected = streams.target_labels(2, range(12), label, 10, iteration=iteration, epoch=5)
    assert result.target.tolist() == expected.tolist()


def test_redrawn_targets_drive_their_own_iterations():
    """With a linear model and one full step an iteration, each step goes to that one's target."""
    image, model = claims.images(6, 3, 6, 6) * 0.5 + 0.25, claims.Linear((3, 6, 6))
    config = AttackConfig(
        flow=FlowBudget(0),
        pixel=PixelBudget(0.125),
        pixel_objective="margin",
        pixel_step=0.0625,
        start="zero",
        redraw_targets=True,
        steps=2,
    )
    label = torch.tensor([0, 1, 2, 3, 0, 1])
    result = JointAttack(config)(model, image, label)
    expected = torch.zeros_like(image)
    for k in range(2):
        target = torch.tensor(streams.target_labels(0, range(6), label, 4, iteration=k))
        expected += 0.0625 * (model.weight[target] - model.weight[label]).detach().sign()
    torch.testing.assert_close(result.delta, expected, rtol=0, atol=2 * claims.SLACK)


def test_given_targets_are_kept(model):
    image, target = claims.images(3, 3, 8, 8), torch.tensor([1, 2, 3])
    config = AttackConfig(redraw_targets=True, steps=3)
    result = JointAttack(config)(model, image, [0, 0, 0], targets=target)
    assert torch.equal(result.target, target)


def test_two_classes(model):
    image, two = claims.smooth(4, 3, 8, 8), claims.Linear((3, 8, 8), classes=2)
    for preset in ("claim-1", "claim-8", "evaluation"):
        result = JointAttack(AttackConfig.preset(preset))(two, image)
        assert torch.equal(result.target, 1 - result.label)
        assert result.loss.isfinite().all()


# What is measured.


@pytest.mark.parametrize("levels", [False, True])
@pytest.mark.parametrize("name", claims.COMBINATIONS)
def test_everything_is_measured_on_the_returned_image(model, levels, name):
    image = claims.smooth(4, 3, 9, 8)
    if levels:
        image = (image * 255).round().byte().permute(0, 2, 3, 1).contiguous()
    config = claims.small(AttackConfig(**claims.COMBINATIONS[name]), steps=3)
    result = JointAttack(config)(model, image)
    seen = result.adversarial
    assert seen.dtype == image.dtype
    assert seen.shape == image.shape
    if levels:
        seen = torch.from_numpy(seen.numpy().astype(np.float32) / np.float32(255))
        seen = seen.permute(0, 3, 1, 2).contiguous()
        assert ((seen - result.exact).abs() <= 1.01 / 255).all()
    else:
        assert result.exact is result.adversarial
    with torch.no_grad():
        logits = model(seen)
    torch.testing.assert_close(result.logits, logits)
    assert torch.equal(result.success, logits.argmax(1) != result.label)
    objective = config.reported_objective
    expected = claims.measured(objective, logits, result.label, result.target)
    torch.testing.assert_close(result.loss, expected, rtol=1e-5, atol=1e-5)
    assert result.flow.dtype == torch.float16
    assert result.label.dtype == result.target.dtype == torch.int64
    assert torch.equal(result.prediction, logits.argmax(1))


def test_labels_default_to_the_prediction_of_the_clean_image(model):
    image = claims.smooth(5, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(JointAttack()(model, image).label, model(image).argmax(1))


@pytest.mark.parametrize("levels", [False, True])
def test_images_whose_logits_are_not_finite_come_back_clean(levels):
    linear = claims.Linear((3, 6, 6))

    def model(image):
        bad = image[:, 0, 0, 0] > 0.9
        return torch.where(bad[:, None], torch.nan, linear(image))

    image = claims.images(3, 3, 6, 6) * 0.5
    image[1, 0] = 1.0
    if levels:
        image = (image * 255).round().byte().permute(0, 2, 3, 1).contiguous()
    result = JointAttack(AttackConfig(steps=2))(model, image, [0, 1, 2])
    assert result.failed.tolist() == [False, True, False]
    assert torch.equal(result.adversarial[1], image[1])
    assert not result.success[1]
    assert not result.flow[1].any()
    assert not result.delta[1].any()
    others = [0, 2]
    alone = JointAttack(AttackConfig(steps=2))(linear, image[others], [0, 2], others)
    torch.testing.assert_close(result.exact[others], alone.exact, rtol=0, atol=1e-6)
    assert not torch.equal(result.adversarial[0], image[0])


def test_an_image_that_only_the_attack_breaks_comes_back_clean_and_is_measured_again():
    linear, image = claims.Linear((3, 6, 6)), claims.images(3, 3, 6, 6)

    def model(picture):
        known = [any(torch.equal(one, clean) for clean in image) for one in picture]
        return torch.where(torch.tensor(known)[:, None], linear(picture), torch.inf)

    result = JointAttack(AttackConfig(steps=1))(model, image)
    assert result.failed.all()
    assert torch.equal(result.adversarial, image)
    torch.testing.assert_close(result.logits, linear(image).detach())
    assert result.loss.isfinite().all()
    assert not result.success.any()


@pytest.mark.parametrize("labels", [None, [0, 1, 2]], ids=["predicted", "given"])
@pytest.mark.parametrize("how", [torch.nan, torch.inf, -torch.inf])
def test_an_image_without_clean_logits_is_failed_whatever_the_attack_finds(labels, how):
    linear, image = claims.Linear((3, 6, 6)), claims.images(3, 3, 6, 6)

    def model(picture):
        clean = torch.tensor([torch.equal(one, image[1]) for one in picture])
        return linear(picture).masked_fill(clean[:, None], how)

    result = JointAttack(AttackConfig(steps=1))(model, image, labels)
    assert result.failed.tolist() == [False, True, False]
    assert torch.equal(result.adversarial[1], image[1])
    assert not torch.equal(result.adversarial[0], image[0])
    assert result.prediction[1] == -1
    assert not result.success[1]
    assert not result.reached[1]


def test_reached_tells_whose_target_is_predicted():
    image, model = claims.smooth(8, 3, 9, 8), claims.Linear((3, 9, 8))
    result = JointAttack(AttackConfig(steps=20))(model, image, pixel=[0.3] * 4 + [0.001] * 4)
    assert torch.equal(result.reached, result.prediction == result.target)
    assert result.reached.any()
    assert not result.reached.all()


def test_nothing_is_reached_where_no_objective_has_a_target(model):
    result = JointAttack(AttackConfig.preset("evaluation"))(model, claims.smooth(2, 3, 9, 8))
    assert result.reached is None


@pytest.mark.parametrize(
    "config",
    [
        AttackConfig.preset("evaluation"),
        AttackConfig(pixel=PixelBudget(0), flow_objective="truth"),
    ],
    ids=["evaluation", "the branch with a target is off"],
)
def test_targets_that_nothing_would_read_are_refused(model, config):
    with pytest.raises(DataError, match=r"^targets: .*truth.*leave targets out"):
        JointAttack(config)(model, claims.smooth(2, 3, 9, 8), [0, 0], targets=[1, 1])


class Reshaping(torch.nn.Module):
    """A model that takes no batch of no images."""

    def __init__(self):
        super().__init__()
        self.linear = claims.Linear((3, 9, 8))

    def forward(self, image):
        return self.linear(image.view(len(image), 3, -1).view(len(image), 3, 9, 8))


@pytest.mark.parametrize("none", [None, [], torch.zeros(0), np.zeros(0, np.int64)])
@pytest.mark.parametrize("levels", [False, True])
@pytest.mark.parametrize("preset", ["claim-1", "claim-8", "evaluation"])
def test_no_images_give_a_result_of_none(preset, levels, none):
    image = claims.smooth(2, 3, 9, 8)
    if levels:
        image = (image * 255).round().byte().permute(0, 2, 3, 1).contiguous()
    attack = JointAttack(AttackConfig.preset(preset, steps=2))
    given = {"targets": none} if preset != "evaluation" else {}
    empty = attack(Reshaping(), image[:0], none, none, flow=none, pixel=none, **given)
    some = attack(Reshaping(), image)
    for name, value in vars(some).items():
        found = getattr(empty, name)
        if value is None:
            assert found is None, name
        else:
            assert (found.dtype, tuple(found.shape)) == (value.dtype, (0, *value.shape[1:])), name


@pytest.mark.parametrize("composition", ["spatial-pixel", "pixel-spatial"])
def test_delta_of_8_bit_images_is_that_of_the_stored_image(model, composition):
    levels = (claims.smooth(3, 3, 9, 8) * 255).round().byte().permute(0, 2, 3, 1).contiguous()
    result = JointAttack(AttackConfig(composition=composition, steps=2))(model, levels)
    image = from_levels(levels)
    if composition == "spatial-pixel":
        expected = from_levels(result.adversarial) - warp(image, result.flow.float())
        torch.testing.assert_close(result.delta, expected, rtol=0, atol=1e-7)
    else:
        again = warp(image + result.delta, result.flow.float())
        torch.testing.assert_close(again, result.exact, rtol=0, atol=1e-6)


def test_a_result_shares_no_memory_with_the_images(model):
    image = claims.images(2, 3, 8, 8)
    result = JointAttack(AttackConfig(**OFF))(model, image)
    result.adversarial.zero_()
    assert image.any()
