import warnings
from collections import Counter

import numpy as np
import pytest
import torch
import trainer_nets

import jataug
from jataug.attack.finalize import from_levels
from jataug.errors import DataError
from jataug.trainer import Part, TrainConfig
from jataug.trainer.augment import augment
from jataug.trainer.batches import Batches
from jataug.trainer.data import epoch_order, load_data
from jataug.trainer.processes import Processes

ALONE = Processes(0, 1, torch.device("cpu"))


def network():
    torch.manual_seed(0)
    return trainer_nets.Normed()


def batches_of(options, mixture, processes=ALONE):
    config = TrainConfig(**{**options, "mixture": mixture})
    data = load_data(config)
    return config, data, Batches(config, data, network(), processes)


def clean_images(config, data, indices, epoch):
    levels = augment(
        data.images.take(indices), indices, seed=config.seed, epoch=epoch, pad=config.pad,
        flip=config.flip,
    )  # fmt: skip
    return from_levels(levels.permute(0, 2, 3, 1))


def test_an_epoch_sees_every_training_image_once(options) -> None:
    options |= {"pad": 0, "flip": False, "mode": "natural"}
    _, data, batches = batches_of(options, ())
    seen = [batches(3, step) for step in range(data.steps(16))]
    assert (
        torch.cat([b.labels for b in seen]).tolist()
        == data.labels[epoch_order(data, 0, 3)].tolist()
    )
    whole = torch.cat([b.images for b in seen])
    assert len(whole) == 96
    assert len({image.numpy().tobytes() for image in whole}) == 96
    held = from_levels(data.images.take(data.validation.tolist()).permute(0, 2, 3, 1))
    assert not {i.numpy().tobytes() for i in whole} & {i.numpy().tobytes() for i in held}


@pytest.mark.parametrize("kind", ["attack", "runtime", "artifact"])
def test_attacked_batches_stay_in_their_budget_and_raise_the_loss(kind, options, artifact) -> None:
    path = str(artifact) if kind == "artifact" else None
    options["attack"] = options["attack"].replace(flow=jataug.FlowBudget(0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the artifact has a flow budget
        config, data, batches = batches_of(options, (Part(kind, 1.0, path),))
    images, labels = batches(1, 2)
    indices = epoch_order(data, config.seed, 1)[32:48].tolist()
    clean = clean_images(config, data, indices, 1)
    assert labels.tolist() == data.labels[indices].tolist()
    moved = (images - clean).abs()
    assert moved.max() > 0.01
    if kind != "artifact":
        assert moved.max() < 0.05 + 1e-6
        model = network().eval()
        assert (model(images).argmax(1) == labels).sum() <= (model(clean).argmax(1) == labels).sum()


def test_runtime_and_torch_attack_alike(options) -> None:
    found = [batches_of(options, (Part(kind),))[2](0, 1).images for kind in ("attack", "runtime")]
    assert (found[0] - found[1]).abs().max() < 1e-3


def test_an_artifact_gives_what_its_session_gives(options, artifact) -> None:
    config, data, batches = batches_of(options, (Part("artifact", 1.0, str(artifact)),))
    indices = epoch_order(data, config.seed, 2)[:16].tolist()
    with jataug.Session.open(artifact, device="cpu") as session:
        wanted = session.attack(
            clean_images(config, data, indices, 2).numpy(), data.labels[indices].numpy(), indices,
            seed=config.seed, epoch=2,
        )  # fmt: skip
    assert torch.equal(batches(2, 0).images, torch.from_numpy(wanted.exact))


def test_pregenerated_batches_come_from_the_set_without_validation(options, dataset) -> None:
    options |= {"pad": 0, "flip": False}
    _, data, batches = batches_of(options, (Part("dataset", 1.0, str(dataset)),))
    stored = {s.image.tobytes(): s for s in jataug.open_dataset(dataset)}
    seen = [batches(0, step) for step in range(6)]
    levels = (torch.cat([b.images for b in seen]) * 255).round().to(torch.uint8).numpy()
    samples = [stored[image.transpose(1, 2, 0).tobytes()] for image in levels]
    assert [s.label for s in samples] == torch.cat([b.labels for b in seen]).tolist()
    assert sorted(s.index for s in samples) == data.train.tolist()
    again = batches(1, 0).images
    assert not torch.equal(again, seen[0].images)


def test_a_mixture_has_its_shares(options, artifact, dataset) -> None:
    options |= {"pad": 0, "flip": False}
    mixture = (
        Part("attack", 0.5), Part("dataset", 0.25, str(dataset)), Part("clean", 0.25)
    )  # fmt: skip
    _, data, batches = batches_of(options, mixture)
    stored = {s.image.tobytes() for s in jataug.open_dataset(dataset)}
    clean = {data.images.take([i])[0].numpy().tobytes() for i in range(120)}

    def kind(image: np.ndarray) -> str:
        levels = np.rint(image * 255).astype(np.uint8)
        if levels.transpose(1, 2, 0).tobytes() in stored:
            return "dataset"
        return "clean" if levels.tobytes() in clean else "attack"

    images, labels = batches(0, 0)
    assert Counter(map(kind, images.numpy())) == {"attack": 8, "dataset": 4, "clean": 4}
    assert len(labels) == 16


def test_processes_share_a_batch(options, dataset) -> None:
    mixture = (Part("clean", 0.5), Part("dataset", 0.5, str(dataset)))
    whole = batches_of(options, mixture)[2](1, 3)
    parts = [
        batches_of(options, mixture, Processes(rank, 2, torch.device("cpu")))[2](1, 3)
        for rank in range(2)
    ]
    assert [len(part.labels) for part in parts] == [8, 8]
    together = Counter(i.numpy().tobytes() for part in parts for i in part.images)
    assert together == Counter(i.numpy().tobytes() for i in whole.images)


@pytest.mark.parametrize("kind", ["clean", "attack", "runtime", "artifact", "dataset"])
def test_a_part_smaller_than_the_number_of_processes(kind, options, artifact, dataset) -> None:
    """One image of a batch: only one of four processes gets it."""
    rest = "attack" if kind == "clean" else "clean"
    path = {"artifact": str(artifact), "dataset": str(dataset)}.get(kind)
    mixture = (Part(rest, 15 / 16), Part(kind, 1 / 16, path))
    whole = batches_of(options, mixture)[2](1, 3)
    parts = [
        batches_of(options, mixture, Processes(rank, 4, torch.device("cpu")))[2](1, 3)
        for rank in range(4)
    ]
    assert [len(part.labels) for part in parts] == [4] * 4
    assert torch.equal(torch.cat([part.images[-1:] for part in parts]), whole.images[12:])
    assert torch.equal(torch.cat([part.labels[-1:] for part in parts]), whole.labels[12:])


def test_other_classes_are_refused(options, source, dataset, artifact, tmp_path) -> None:
    with np.load(source) as arrays:
        np.savez(tmp_path / "four.npz", images=arrays["images"], labels=arrays["labels"] + 1)
    options["source"] = tmp_path / "four.npz"
    options["model"], options["model_options"] = "trainer_nets:Normed", {"classes": 4}
    for part in (Part("dataset", 1.0, str(dataset)), Part("artifact", 1.0, str(artifact))):
        with pytest.raises(DataError, match=r"expected 4 classes, as .*four\.npz has, got .* 3"):
            batches_of(options, (part,))


def test_other_images_are_refused(options, source, dataset, artifact, tmp_path) -> None:
    with np.load(source) as arrays:
        np.savez(
            tmp_path / "small.npz", images=arrays["images"][:, :7, :7], labels=arrays["labels"]
        )
    options["source"] = tmp_path / "small.npz"
    for part in (Part("dataset", 1.0, str(dataset)), Part("artifact", 1.0, str(artifact))):
        with pytest.raises(DataError, match=r"expected images \(1, 7, 7\).* got \(1, 8, 8\)"):
            batches_of(options, (part,))


def test_other_budgets_are_said_with_both(options, dataset, artifact) -> None:
    options["attack"] = options["attack"].replace(pixel=jataug.PixelBudget(0.1))
    for part in (Part("dataset", 1.0, str(dataset)), Part("artifact", 1.0, str(artifact))):
        with pytest.warns(UserWarning, match="its pixel budget is 0.05 linf, the run's 0.1 linf"):
            batches_of(options, (part,))


def test_a_set_of_another_source_is_said(options, source, dataset, tmp_path) -> None:
    with np.load(source) as arrays:
        np.savez(tmp_path / "copy.npz", images=arrays["images"], labels=arrays["labels"])
    options["source"] = tmp_path / "copy.npz"
    with (
        pytest.warns(UserWarning, match="made of another source"),
        pytest.warns(UserWarning, match="without their names"),
    ):
        batches_of(options, (Part("dataset", 1.0, str(dataset)),))


def test_images_that_do_not_fit_into_memory_are_read_ahead(
    options, tmp_path, monkeypatch, source
) -> None:
    from PIL import Image

    with np.load(source) as arrays:
        for number, (image, label) in enumerate(
            zip(arrays["images"], arrays["labels"], strict=True)
        ):
            folder = tmp_path / "folders" / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{number:03d}.png")
    options |= {"source": tmp_path / "folders", "mode": "natural"}
    _, data, held = batches_of(options, ())
    expected = [held(0, step) for step in range(data.steps(16))]
    monkeypatch.setattr("jataug.trainer.data.IN_MEMORY", 100)
    _, lazy, reading = batches_of(options, ())
    assert lazy.images._levels is None
    found = [reading(0, step) for step in range(6)]
    assert all(torch.equal(a.images, b.images) for a, b in zip(found, expected, strict=True))
