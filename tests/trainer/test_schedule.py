import pytest

from jataug.trainer import TrainConfig
from jataug.trainer.schedule import learning_rate


def rates(**options) -> list[float]:
    config = TrainConfig(source="s", output="o", **{"lr": 0.1, "epochs": 10, **options})
    return [learning_rate(config, step, 4) for step in range(40)]


def test_step_falls_at_its_epochs() -> None:
    found = rates(schedule="step", milestones=(2, 5), gamma=0.1)
    assert found[7] == 0.1
    assert found[8] == pytest.approx(0.01)
    assert found[19] == pytest.approx(0.01)
    assert found[20] == pytest.approx(0.001)


def test_cosine_goes_from_the_rate_to_zero() -> None:
    found = rates(schedule="cosine")
    assert found[0] == 0.1
    assert found[20] == pytest.approx(0.05)
    assert found == sorted(found, reverse=True)
    assert found[-1] < 0.002


def test_warmup_grows_in_even_steps() -> None:
    found = rates(schedule="constant", warmup=2.0)
    assert found[:8] == pytest.approx([0.1 * k / 8 for k in range(1, 9)])
    assert set(found[8:]) == {0.1}


def test_milestones_may_be_parts_of_the_run() -> None:
    """The default's two falls come in a run of any length: 0.3 and 0.45 of 10 epochs."""
    parts = rates(schedule="step", milestones=(0.3, 0.45), gamma=0.1)
    assert [step for step in range(1, 40) if parts[step] < parts[step - 1]] == [12, 18]
    assert parts == rates(schedule="step", milestones=(3, 0.45), gamma=0.1)


def test_parts_of_the_recipe_are_its_epochs() -> None:
    config = TrainConfig(source="s", output="o", epochs=200, milestones=(0.3, 0.45))
    epochs = config.replace(milestones=(60, 90))
    for steps in (1, 7, 390):
        for step in range(0, 200 * steps, 5):
            assert learning_rate(config, step, steps) == learning_rate(epochs, step, steps)
