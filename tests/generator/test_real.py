"""The generator with a real session: the classifier and images that ship inside the package."""

from pathlib import Path

import pytest

import jataug
from jataug.dataset import verify
from jataug.generator import generate, preview

DEMO = Path(jataug.__file__).parent / "demo"


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    from jataug.export import export_attack

    path = tmp_path_factory.mktemp("artifact") / "attack.onnx"
    config = jataug.AttackConfig.preset("evaluation", steps=3)
    export_attack(DEMO / "classifier.onnx", config, path)
    return path


def run(artifact, destination, **options):
    options = {"device": "cpu", "batch_size": 16, "shard_size": 16, "limit": 40, **options}
    return generate(artifact, DEMO / "images.npz", destination, **options)


@pytest.mark.parametrize("format", ["folder", "npz"])
def test_a_data_set_that_lowers_the_accuracy_and_verifies(artifact, tmp_path, format):
    report = run(artifact, tmp_path / "out", format=format, save_flow=True, save_float=True)
    assert report.complete
    assert report.clean_accuracy > 0.8
    assert report.adversarial_accuracy < 0.5
    checked = verify(tmp_path / "out", model=artifact, device="cpu")
    assert checked.problems == ()
    assert checked.budget == "checked"
    assert checked.worst_flow <= 0.3
    assert checked.adversarial_accuracy == report.adversarial_accuracy
    assert checked.changed_predictions == 0


def test_another_model_at_the_artifact_is_noticed(artifact, tmp_path, monkeypatch):
    run(artifact, tmp_path / "out")
    predict = jataug.Session.predict
    monkeypatch.setattr(jataug.Session, "predict", lambda *given: -predict(*given))
    checked = verify(tmp_path / "out", model=artifact, device="cpu")
    assert checked.changed_predictions == 40
    assert "expected the recorded prediction" in checked.problems[0]


def test_workers_make_the_bytes_of_one(artifact, tmp_path, files_of):
    run(artifact, tmp_path / "one")
    for part in ("3/3", "1/3", "2/3"):
        run(artifact, tmp_path / "many", shard=part)
    assert files_of(tmp_path / "many") == files_of(tmp_path / "one")


def test_a_preview(artifact):
    with jataug.Session.open(artifact, device="cpu") as session:
        picture = preview(session, DEMO / "images.npz", 2)
    assert picture.width > 4 * 168


def test_a_session_of_another_artifact_is_refused(artifact, tmp_path):
    """The plan would name an artifact that the images were not made with."""
    from jataug.export import export_attack

    config = jataug.AttackConfig.preset("evaluation", steps=3)
    export_attack(DEMO / "classifier.onnx", config, tmp_path / "cuda.onnx", target="cuda")
    with jataug.Session.open(tmp_path / "cuda.onnx", device="cpu", batch_size=16) as session:
        with pytest.raises(jataug.DataError, match=r"session: .* another artifact than"):
            run(artifact, tmp_path / "out", session=session)
        assert not (tmp_path / "out").exists()
        run(None, tmp_path / "out", session=session)
    # The manifests of the two say the same, the graphs are others.
    with (
        jataug.Session.open(artifact, device="cpu", batch_size=16) as session,
        pytest.raises(jataug.DataError, match="another"),
    ):
        run(None, tmp_path / "out", session=session)


def test_a_session_of_another_batch_size_is_refused(artifact, tmp_path):
    for size in (3, None):
        with (
            jataug.Session.open(artifact, device="cpu", batch_size=size) as session,
            pytest.raises(jataug.DataError, match="expected batch_size=16"),
        ):
            run(artifact, tmp_path / "out", session=session)
    assert not (tmp_path / "out").exists()
