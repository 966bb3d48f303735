from types import SimpleNamespace

import attack_claims as claims
import numpy as np
import pytest
import torch

from jataug import AttackConfig, BudgetError, DataError, FlowBudget, ModelError, PixelBudget
from jataug.attack import JointAttack

IMAGE = claims.images(3, 3, 5, 4)
MODEL = claims.Linear((3, 5, 4))


def attack(images=IMAGE, labels=None, model=MODEL, config=None, **options):
    return JointAttack(config or AttackConfig(steps=1))(model, images, labels, **options)


def spoilt(value):
    images = IMAGE.clone()
    images[1, 2, 3, 0] = value
    return images


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, -1e-6, 1.0001])
def test_images_outside_the_unit_interval_are_refused(value):
    with pytest.raises(DataError, match=r"^images: expected finite values in \[0, 1\]"):
        attack(spoilt(value))


@pytest.mark.parametrize(
    "images",
    [
        IMAGE.numpy(),
        IMAGE[0],
        IMAGE[:, :0],
        (IMAGE * 255).to(torch.int32),
        None,
    ],
    ids=["numpy", "rank 3", "empty", "int32", "none"],
)
def test_other_images_are_refused(images):
    with pytest.raises(DataError, match=r"^images: expected"):
        attack(images)


@pytest.mark.parametrize("labels", [[0, 1, 4], [0, -1, 2], [2**70, 0, 0]])
@pytest.mark.parametrize("name", ["labels", "targets"])
def test_classes_out_of_range_are_refused(name, labels):
    with pytest.raises(DataError, match=rf"^{name}: expected integers in \[0, 4\), got"):
        attack(**({"labels": [3, 3, 3]} | {name: labels}))


@pytest.mark.parametrize("labels", [[0, 1], [0, 1, 2, 3], [0.0, 1.0, 2.0], [[0], [1], [2]], 1])
@pytest.mark.parametrize("name", ["labels", "targets", "indices"])
def test_other_than_one_integer_per_image_is_refused(name, labels):
    with pytest.raises(DataError, match=f"^{name}: expected 3 integers"):
        attack(**{name: labels})


def test_a_target_that_is_the_label_is_refused():
    with pytest.raises(DataError, match=r"^targets: expected another label .* at position 1"):
        attack(labels=[0, 1, 2], targets=[1, 1, 1])


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor, "int32"])
def test_labels_of_any_kind_are_taken(kind):
    labels = np.array([0, 1, 2], np.int32) if kind == "int32" else kind([0, 1, 2])
    result = attack(labels=labels)
    assert result.label.tolist() == [0, 1, 2]
    assert result.label.dtype == torch.int64


@pytest.mark.parametrize("radius", [-0.1, "x", "nan", torch.nan, [0.1, 0.1], [0.1, -1, 0], True])
@pytest.mark.parametrize("branch", ["flow", "pixel"])
def test_other_radii_are_refused(branch, radius):
    with pytest.raises(BudgetError, match=f"^{branch}"):
        attack(**{branch: radius})


@pytest.mark.parametrize(
    "radius",
    ["4/255", np.float64(4 / 255), torch.tensor(4 / 255), ["4/255"] * 3, np.full(3, 4 / 255)],
    ids=["fraction", "numpy", "torch", "list", "array"],
)
def test_radii_of_any_kind_are_taken(radius):
    expected = attack(pixel=4 / 255).adversarial
    torch.testing.assert_close(attack(pixel=radius).adversarial, expected, rtol=0, atol=1e-6)
    assert (expected - attack().adversarial).abs().max() > 0.01


@pytest.mark.parametrize(
    ("off", "radius"),
    [({"flow": FlowBudget(0)}, {"flow": 0.1}), ({"pixel": PixelBudget(0)}, {"pixel": [0, 0, 0.1]})],
)
def test_a_branch_that_the_configuration_leaves_out_takes_no_radius(off, radius):
    config = AttackConfig(steps=1, **off)
    with pytest.raises(BudgetError, match=r"leaves it out, got 0\.1"):
        attack(config=config, **radius)
    attack(config=config, **dict.fromkeys(radius, 0))


@pytest.mark.parametrize("steps", [-1, 1.5, True, "3"])
def test_other_step_counts_are_refused(steps):
    with pytest.raises(BudgetError, match=r"^steps: expected an integer"):
        attack(steps=steps)


@pytest.mark.parametrize(("name", "value"), [("seed", -1), ("epoch", -1), ("seed", 2**64)])
def test_seeds_that_are_no_word_are_refused(name, value):
    with pytest.raises(BudgetError, match=f"^{name}: expected an integer"):
        attack(**{name: value})


def test_a_negative_index_is_refused():
    with pytest.raises(BudgetError, match=r"^index: expected an integer"):
        attack(indices=[0, -1, 2])


@pytest.mark.parametrize(
    "model",
    [
        lambda image: image,
        lambda image: MODEL(image)[:, :1],
        lambda image: MODEL(image)[:, 0],
        lambda image: MODEL(image)[:0],
        lambda image: MODEL(image).argmax(1),
        lambda image: {"scores": MODEL(image)},
        lambda image: (MODEL(image),),
    ],
    ids=["image", "one class", "rank 1", "no images", "integers", "dict", "tuple"],
)
def test_what_is_no_classifier_is_refused(model):
    with pytest.raises(ModelError, match=r"^model: expected"):
        attack(model=model)


def test_a_model_without_a_gradient_is_refused():
    with pytest.raises(ModelError, match=r"^model: expected logits with a gradient"):
        attack(model=lambda image: MODEL(image).detach())


def test_a_model_that_ignores_the_image_leaves_the_start():
    bias = torch.nn.Parameter(torch.arange(4.0))
    model = lambda image: bias.expand(len(image), 4)  # noqa: E731
    config = AttackConfig(start="zero", steps=2)
    assert torch.equal(attack(model=model, config=config).adversarial, IMAGE)


def test_logits_in_half_precision_are_taken():
    result = attack(model=lambda image: MODEL(image).bfloat16())
    assert result.logits.dtype == torch.float32
    assert not torch.equal(result.adversarial, IMAGE)


@pytest.mark.parametrize("kind", [dict, SimpleNamespace])
def test_an_output_that_names_its_logits_is_taken(kind):
    """As transformers' classifiers return it."""
    found = attack(model=lambda image: kind(logits=MODEL(image), loss=None))
    assert torch.equal(found.adversarial, attack().adversarial)


def results(images, channels=3):
    model = claims.Linear((channels, 9, 7))
    config = AttackConfig(steps=2, start="zero", pixel_objective="truth")
    return JointAttack(config)(model, images, [0, 1])


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_levels_of_either_layout_are_attacked_alike(channels):
    levels = (claims.images(2, channels, 9, 7) * 255).byte()
    first = results(levels, channels)
    last = results(levels.permute(0, 2, 3, 1), channels)
    assert first.adversarial.shape == levels.shape
    assert first.adversarial.dtype == torch.uint8
    assert torch.equal(first.adversarial, last.adversarial.permute(0, 3, 1, 2))
    assert torch.equal(first.exact, last.exact)
    assert torch.equal(first.logits, last.logits)
    assert not torch.equal(first.adversarial, levels)


@pytest.mark.parametrize("shape", [(2, 3, 9, 3), (2, 4, 9, 1), (2, 5, 9, 7)])
def test_levels_of_a_layout_that_cannot_be_told_are_refused(shape):
    with pytest.raises(DataError, match=r"channels.* float32 in \[0, 1\]"):
        attack(torch.zeros(shape, dtype=torch.uint8))


def test_every_message_is_one_line():
    for call in (
        lambda: attack(spoilt(2)),
        lambda: attack(labels=[9, 0, 0]),
        lambda: attack(pixel=-1),
        lambda: attack(model=lambda image: image),
    ):
        with pytest.raises((DataError, BudgetError, ModelError)) as caught:
            call()
        assert "\n" not in str(caught.value)
