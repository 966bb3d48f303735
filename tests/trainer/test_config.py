import json

import pytest

import jataug
from jataug.errors import DataError
from jataug.trainer import Part, TrainConfig


def made(**options) -> TrainConfig:
    return TrainConfig(source="s", output="o", **options)


def test_json_gives_it_back() -> None:
    config = made(
        mixture=(Part("attack", 0.5), Part("dataset", 0.5, "adv/")),
        mean=[0.5],
        crop=[32, 30],
        model_options={"width": 4},
        attack=jataug.AttackConfig.preset("claim-8", steps=3),
        mode="pixel",
        clip=1.0,
    )
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_modes_are_settings_of_the_same_attack() -> None:
    attack = jataug.AttackConfig(flow=jataug.FlowBudget(1), pixel=jataug.PixelBudget(0.1))
    assert made(mode="joint", attack=attack).training_attack == attack
    assert made(mode="pixel", attack=attack).training_attack.branches == ("pixel",)
    assert made(mode="flow", attack=attack).training_attack.branches == ("flow",)
    assert made(mode="natural").mixture == (Part("clean"),)
    measured = made(mode="flow", attack=attack).evaluation_attack
    assert (measured.keep, measured.flow_objective, measured.branches) == (
        "best",
        "truth",
        ("flow",),
    )


@pytest.mark.parametrize(
    ("ratios", "size", "counts"),
    [
        ((0.5, 0.25, 0.25), 128, (64, 32, 32)),
        ((0.5, 0.25, 0.25), 10, (5, 3, 2)),
        ((1 / 3, 1 / 3, 1 / 3), 16, (6, 5, 5)),
    ],
)
def test_a_batch_is_divided(ratios, size, counts) -> None:
    kinds = ("attack", "clean", "runtime")
    parts = tuple(Part(k, r) for k, r in zip(kinds, ratios, strict=True))
    assert made(mixture=parts, batch_size=size).counts == counts
    assert sum(counts) == size


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("attack", Part("attack")),
        ("clean=0.25", Part("clean", 0.25)),
        ("dataset:a/b=c=0.5", Part("dataset", 0.5, "a/b=c")),
        ("artifact:C:/x.onnx=1", Part("artifact", 1.0, "C:/x.onnx")),
    ],
)
def test_parts_are_read(text, part) -> None:
    assert Part.parse(text) == part


@pytest.mark.parametrize(
    "text", ["cleen=1", "attack=half", "dataset=1", "clean:x=1", "clean=0", ""]
)
def test_other_parts_are_refused(text) -> None:
    with pytest.raises(DataError, match="mixture"):
        Part.parse(text)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"class_order": "reverse"}, "class_order: expected natural or sorted"),
        ({"mode": "spatial"}, "mode: expected one of natural, pixel, flow, joint"),
        ({"batch_size": 0}, "batch_size: expected an integer >= 1"),
        ({"label_smoothing": 1.0}, "label_smoothing: expected a number >= 0 and < 1"),
        ({"lr": float("nan")}, "lr"),
        ({"clip": 0}, "clip"),
        ({"std": (0.0,)}, "std"),
        ({"std": (0.5, -0.5, 0.5)}, "std: expected numbers above 0"),
        ({"batch_size": 10**23}, "batch_size: expected at most"),
        ({"compile": True, "attack": jataug.AttackConfig(simultaneous=True)}, "compile"),
        ({"mixture": (Part("clean", 0.5),)}, "add up to 1, got 0.5"),
        ({"mixture": (Part("clean", 0.5), Part("clean", 0.5))}, "each part once"),
        ({"mode": "natural", "mixture": (Part("attack"),)}, "clean batches alone"),
        (
            {"mixture": (Part("attack", 0.999), Part("clean", 0.001)), "batch_size": 128},
            "gets no image",
        ),
        ({"milestones": (-1,)}, "milestones: expected epochs"),
        ({"milestones": (0.3, 1.5)}, "milestones: .* got 1.5"),
        (
            {"mode": "pixel", "attack": jataug.AttackConfig(pixel=jataug.PixelBudget(0))},
            "a budget above 0",
        ),
    ],
)
def test_refusals(options, said) -> None:
    with pytest.raises(DataError, match=said):
        made(**options)


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(DataError, match="unknown key 'rate'"):
        TrainConfig.from_dict({**made().to_dict(), "rate": 1})


def test_the_old_name_of_the_convention_is_deprecated() -> None:
    with pytest.deprecated_call(match="convention="):
        config = made(smoothing="torch")
    assert config == made(convention="torch")
    old = config.to_dict()
    old["smoothing"] = old.pop("convention")  # as 0.1 wrote it
    assert TrainConfig.from_dict(old) == config
