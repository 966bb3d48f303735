import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import jataug
from jataug.attack import JointAttack
from jataug.attack.finalize import from_levels
from jataug.errors import CheckError, DataError, ModelError
from jataug.trainer import Part, TrainConfig, is_run, load_run, train
from jataug.trainer.data import load_data
from jataug.trainer.loop import _network
from jataug.trainer.processes import Processes


def lines(run) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_natural_training_learns(options) -> None:
    config = TrainConfig(
        **{**options, "mode": "natural", "epochs": 8, "lr": 0.05, "label_smoothing": 0.0, "pad": 0,
           "flip": False}
    )  # fmt: skip
    report = train(config)
    assert report.clean_accuracy > 0.9
    metrics = lines(report.output)
    assert metrics[-1]["loss"] < 0.5 * metrics[0]["loss"]
    assert [line["step"] for line in metrics] == [6 * k for k in range(1, 9)]


def test_training_against_the_attack_makes_robust(options) -> None:
    options |= {
        "lr": 0.05, "label_smoothing": 0.0, "pad": 0, "flip": False, "validation": 60,
        "evaluation_images": 60, "evaluation_steps": 1, "evaluate_every": 100,
        "model": "trainer_nets:Grouped",
        "attack": options["attack"].replace(pixel=jataug.PixelBudget("10/255")),
    }  # fmt: skip
    natural = train(TrainConfig(**{**options, "mode": "natural", "epochs": 8})).output
    options |= {"output": natural.with_name("joint"), "init": str(natural), "epochs": 20}
    joint = train(TrainConfig(**options)).output
    last = [lines(run)[-1]["robust_accuracy"] for run in (natural, joint)]
    assert last[1] > last[0] + 0.15


def test_the_folder_explains_itself(config) -> None:
    seen = []
    report = train(config, progress=seen.append)
    run = report.output
    names = {path.name for path in run.iterdir()}
    assert names == {
        "README.md", "best.safetensors", "config.json", "curves.png", "environment.json",
        "last.safetensors", "metrics.jsonl",
    }  # fmt: skip
    assert is_run(run)
    about = json.loads((run / "config.json").read_text())
    chosen = {"label_smoothing": 0.5, "milestones": (0.3, 0.45)}
    assert TrainConfig.from_dict(about["config"]) == config.replace(**chosen)
    assert about["training_images"] == 96
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    environment = json.loads((run / "environment.json").read_text())
    assert environment["torch"] == torch.__version__
    readme = (run / "README.md").read_text()
    assert "flow 0.5 px l2, pixel 0.05 linf, 1 step(s)" in readme
    assert [p.step for p in seen] == list(range(1, 13))
    assert seen[-1].steps == 12
    assert seen[0].clean_accuracy is None
    assert seen[-1].clean_accuracy == lines(run)[0]["clean_accuracy"]
    assert seen[-1].loss == lines(run)[-1]["loss"]


def test_nothing_in_a_run_is_a_pickle(config) -> None:
    run = train(config).output
    for path in run.rglob("*.safetensors"):
        load_file(path)
    assert not any(path.read_bytes()[:2] in (b"PK", b"\x80\x02") for path in run.iterdir())


def test_a_finished_run_is_left_alone(config) -> None:
    run = train(config).output
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    report = train(config)
    assert report.trained == 0
    assert "nothing to do" in report.message
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_accuracies_are_those_of_the_loaded_network(config) -> None:
    report = train(config)
    best = load_run(report.output)
    data = load_data(config)
    assert not best.module.training
    levels = data.images.take(data.validation.tolist())
    images, labels = from_levels(levels.permute(0, 2, 3, 1)), data.labels[data.validation]
    with torch.no_grad():
        right = best.module(images).argmax(1) == labels
    assert float(right.float().mean()) == pytest.approx(report.clean_accuracy)
    found = JointAttack(config.evaluation_attack)(
        best.module, images[:8], labels[:8], data.validation[:8], seed=config.seed
    )
    kept = 1 - found.success.float().mean().item()
    assert kept == pytest.approx(report.robust_accuracy)


def test_best_is_the_best_epoch(options) -> None:
    report = train(TrainConfig(**{**options, "epochs": 5, "mode": "natural", "lr": 0.05}))
    clean = [line["clean_accuracy"] for line in lines(report.output)]
    assert clean[report.best_epoch] == max(clean) == report.clean_accuracy
    assert clean.index(max(clean)) == report.best_epoch


def test_equal_seeds_give_equal_weights(options, weights) -> None:
    runs = [
        train(TrainConfig(**{**options, "output": options["output"] / name, "seed": seed})).output
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    first, second, other = map(weights, runs)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["model/head.weight"], other["model/head.weight"])


def test_the_average_is_evaluated_and_kept(options, weights) -> None:
    run = train(TrainConfig(**{**options, "ema": 0.9, "epochs": 1})).output
    held = weights(run)
    model, average = (held[f"{part}/head.weight"] for part in ("model", "average"))
    assert not torch.equal(model, average)
    assert torch.equal(load_run(run, "last").module.head.weight, average)
    assert torch.equal(load_run(run).module.head.weight, average)


def test_the_average_is_its_formula(options, weights) -> None:
    options |= {"ema": 0.3, "epochs": 1, "checkpoint_steps": 1}
    held, averaged, step = None, None, 0

    def progress(now) -> None:
        nonlocal held, averaged, step
        if now.step > 1:  # the checkpoint of the step before
            tensors = weights(options["output"])
            value = tensors["model/head.weight"]
            decay = min(0.3, (1 + step) / (10 + step))
            before = initial if averaged is None else averaged
            averaged = decay * before + (1 - decay) * value
            assert torch.allclose(tensors["average/head.weight"], averaged, atol=1e-6)
            step += 1
        else:
            held = weights(options["output"])["model/head.weight"]

    train(TrainConfig(**{**options, "epochs": 0}))
    initial = weights(options["output"])["model/head.weight"]
    options["output"] = options["output"].with_name("other")
    train(TrainConfig(**options), progress=progress)
    assert torch.equal(held, initial)
    assert step == 5


def test_the_gradient_is_clipped(options, weights) -> None:
    options |= {"epochs": 1, "momentum": 0.0, "weight_decay": 0.0, "lr": 1.0, "clip": 1e-4,
                "schedule": "constant", "limit": 24 + 16}  # fmt: skip
    train(TrainConfig(**{**options, "epochs": 0, "output": options["output"] / "0"}))
    train(TrainConfig(**{**options, "output": options["output"] / "1"}))
    before, after = (weights(options["output"] / name) for name in "01")
    moved = [
        (after[n] - before[n]).norm().item() ** 2
        for n in before
        if n.endswith(("weight", "bias")) and n.startswith("model/")
    ]
    assert math.sqrt(sum(moved)) == pytest.approx(1e-4, rel=1e-2)


def test_the_learning_rate_is_used(options, weights) -> None:
    """One step of plain SGD moves the weights in proportion to the rate of that step."""
    options |= {"epochs": 1, "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant",
                "limit": 24 + 16}  # fmt: skip
    train(TrainConfig(**{**options, "epochs": 0, "output": options["output"] / "0"}))
    start = weights(options["output"] / "0")["model/head.weight"]
    moved = {}
    for lr, schedule in ((0.01, "constant"), (0.02, "constant"), (0.02, "step")):
        run = options["output"] / f"{lr}-{schedule}"
        more = {"lr": lr, "schedule": schedule, "milestones": (0,), "gamma": 0.25, "output": run}
        train(TrainConfig(**{**options, **more}))
        moved[lr, schedule] = weights(run)["model/head.weight"] - start
    assert moved[0.01, "constant"].norm() > 1e-4
    for key, factor in (((0.02, "constant"), 2.0), ((0.02, "step"), 0.5)):
        assert torch.allclose(moved[key], factor * moved[0.01, "constant"], atol=1e-6)


@pytest.mark.parametrize(
    "more",
    [
        {"precision": "bf16"},
        {"schedule": "cosine", "warmup": 1.0, "nesterov": True},
        {"convention": "torch", "label_smoothing": 0.1},
        {"mode": "pixel"},
        {"mode": "flow"},
        {"mean": (0.3,), "std": (0.2,)},
        {"mixture": (Part("attack", 0.5), Part("runtime", 0.25), Part("clean", 0.25))},
        {"validation": 0},
    ],
)
def test_options_train(options, more) -> None:
    plain = train(TrainConfig(**{**options, "output": options["output"] / "plain", "epochs": 1}))
    other = train(TrainConfig(**{**options, "output": options["output"] / "other", "epochs": 1,
                                 **more}))  # fmt: skip
    assert math.isfinite(other.loss)
    assert other.loss != plain.loss or "validation" in more
    load_run(other.output)


def test_channels_last_and_compile_reach_the_network(options, monkeypatch) -> None:
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled.append(module))
    config = TrainConfig(**{**options, "channels_last": True, "compile": True})
    model = _network(config, load_data(config), Processes(0, 1, torch.device("cpu")))
    assert compiled == [model]
    inner = model.features[3].weight
    assert inner.is_contiguous(memory_format=torch.channels_last)
    assert not inner.is_contiguous()
    assert math.isfinite(train(config).loss)


def test_weights_of_another_run_are_the_start(options, weights) -> None:
    run = train(TrainConfig(**options)).output
    again = options["output"].with_name("again")
    train(TrainConfig(**{**options, "output": again, "epochs": 0, "init": str(run)}))
    best = load_file(run / "best.safetensors")
    assert torch.equal(weights(again)["model/head.weight"], best["head.weight"])


def test_tensorboard_events(options) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train(TrainConfig(**options, tensorboard=True)).output
    events = EventAccumulator(str(run / "events"))
    events.Reload()
    written = [(event.step, event.value) for event in events.Scalars("loss")]
    assert written == [(line["step"], pytest.approx(line["loss"])) for line in lines(run)]


def test_another_configuration_is_refused(options) -> None:
    run = train(TrainConfig(**options)).output
    before = (run / "last.safetensors").read_bytes()
    with pytest.raises(DataError, match=r"lr 0\.1 there, 0\.2 asked; choose another output"):
        train(TrainConfig(**{**options, "lr": 0.2}))
    assert (run / "last.safetensors").read_bytes() == before


def test_a_changed_source_is_refused(options, source, tmp_path) -> None:
    with np.load(source) as arrays:
        held = dict(arrays)
    np.savez(tmp_path / "copy.npz", **held)
    options["source"] = tmp_path / "copy.npz"
    train(TrainConfig(**{**options, "epochs": 1}))
    np.savez(tmp_path / "copy.npz", **{**held, "images": 255 - held["images"]})
    with pytest.raises(DataError, match="the source has changed"):
        train(TrainConfig(**{**options, "epochs": 1}))


def test_a_folder_of_something_else_is_refused(options) -> None:
    options["output"].mkdir()
    (options["output"] / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match=r"holds thesis\.txt; nothing was touched"):
        train(TrainConfig(**options))
    assert [path.name for path in options["output"].iterdir()] == ["thesis.txt"]


def test_a_checkpoint_of_another_network_is_refused(options) -> None:
    run = train(TrainConfig(**{**options, "epochs": 1})).output
    tensors = load_file(run / "last.safetensors")
    del tensors["model/head.bias"]
    from jataug.trainer.run_folder.checkpoint import read_checkpoint

    _, state = read_checkpoint(run / "last.safetensors")
    save_file(tensors, run / "last.safetensors", metadata={"jataug": json.dumps(state)})
    with pytest.raises(DataError, match=r"weights of this network.*head\.bias"):
        train(TrainConfig(**{**options, "epochs": 1}))


def test_a_damaged_checkpoint_is_refused(options) -> None:
    run = train(TrainConfig(**{**options, "epochs": 1})).output
    (run / "last.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(DataError, match="damaged"):
        train(TrainConfig(**{**options, "epochs": 1}))


def test_a_loss_that_is_not_finite_stops(options) -> None:
    options |= {"model": "trainer_nets:Exploding", "checkpoint_steps": 4}
    with pytest.raises(CheckError, match="at step 6 of epoch 2; the last good checkpoint is kept"):
        train(TrainConfig(**options))
    tensors = load_file(options["output"] / "last.safetensors")
    assert all(bool(v.isfinite().all()) for v in tensors.values())
    from jataug.trainer.run_folder.checkpoint import read_checkpoint

    _, state = read_checkpoint(options["output"] / "last.safetensors")
    assert (state["epoch"], state["step"]) == (1, 4)


def test_weights_that_are_not_finite_are_not_saved(options) -> None:
    """The last step of the epoch overflows: its loss was finite, its weights are not."""
    options |= {"lr": 1e38, "weight_decay": 1e3, "epochs": 1, "limit": 24 + 16, "mode": "natural"}
    with pytest.raises(CheckError, match="expected finite weights"):
        train(TrainConfig(**options))
    tensors = load_file(options["output"] / "last.safetensors")
    assert all(bool(v.isfinite().all()) for v in tensors.values())


def test_a_network_that_names_its_logits_is_trained(options, weights) -> None:
    """As transformers' classifiers do."""
    options |= {"mixture": (Part("attack", 0.5), Part("runtime", 0.5)), "epochs": 1, "lr": 0.05}
    runs = [
        train(TrainConfig(**{**options, "output": options["output"] / name,
                             "model": f"trainer_nets:{name}"}))
        for name in ("Grouped", "Named")
    ]  # fmt: skip
    assert [run.clean_accuracy for run in runs] == [runs[0].clean_accuracy] * 2
    plain, named = (weights(run.output) for run in runs)
    assert all(torch.equal(value, named[name]) for name, value in plain.items())


def test_a_tuple_in_training_mode_is_refused(options) -> None:
    with pytest.raises(ModelError, match="in training mode, got a tuple"):
        train(TrainConfig(**{**options, "model": "trainer_nets:TwoHeadsInTraining"}))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"validation": 120}, "expected at least one batch of 16 besides 120 images"),
        ({"sync_batch_norm": True}, "sync_batch_norm: expected CUDA"),
        ({"source": "nowhere.npz"}, "got nothing there"),
        ({"init": "nowhere.safetensors"}, "nowhere.safetensors: expected a .safetensors file"),
    ],
)
def test_refusals(options, more, said) -> None:
    with pytest.raises(DataError, match=said):
        train(TrainConfig(**{**options, **more}))
    assert not options["output"].exists()


def test_unlabelled_images_are_refused(options, source, tmp_path) -> None:
    with np.load(source) as arrays:
        np.savez(tmp_path / "bare.npz", images=arrays["images"])
    with pytest.raises(DataError, match="expected a source with labels"):
        train(TrainConfig(**{**options, "source": tmp_path / "bare.npz"}))


def test_a_run_that_is_none_is_refused(tmp_path, source) -> None:
    with pytest.raises(DataError, match="expected the folder of a training run"):
        load_run(tmp_path)
    assert not is_run(source)


def test_the_callers_random_state_stays(config) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    train(config)
    assert torch.equal(torch.get_rng_state(), before)
