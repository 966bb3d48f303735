"""Several attacks in one run: each image is read once, and every data set is as if made alone."""

import pytest

import jataug
from jataug.data.image_folder import FolderSource
from jataug.errors import DataError
from jataug.generator import generate, generate_all

OPTIONS = {"device": "cpu", "threads": 1, "limit": 96, "batch_size": 32, "shard_size": 64}


def both(attacks):
    return [attacks / "weak.onnx", attacks / "strong.onnx"]


@pytest.mark.parametrize("workers", [1, 2])
def test_each_is_as_if_made_alone(attacks, images, tmp_path, files_of, workers):
    reports = generate_all(both(attacks), images, tmp_path / "all", workers=workers, **OPTIONS)
    assert list(reports) == ["weak", "strong"]
    for name, report in reports.items():
        alone = generate(attacks / f"{name}.onnx", images, tmp_path / name, **OPTIONS)
        assert files_of(tmp_path / "all" / name) == files_of(tmp_path / name)
        assert (report.images, report.complete) == (96, True)
        assert report.adversarial_accuracy == alone.adversarial_accuracy
    assert reports["strong"].adversarial_accuracy < reports["weak"].adversarial_accuracy


def counted(monkeypatch):
    read, whole = [], FolderSource.read

    def reading(self, index):
        read.append(index)
        return whole(self, index)

    monkeypatch.setattr(FolderSource, "read", reading)
    return read


@pytest.fixture
def sized(tmp_path):
    """Grey class folders of the shipped classifier's size."""
    from PIL import Image

    for number in range(40):
        place = tmp_path / "source" / str(number % 10)
        place.mkdir(parents=True, exist_ok=True)
        Image.new("L", (28, 28), 6 * number).save(place / f"{number}.png")
    return tmp_path / "source"


def test_every_image_is_read_once(attacks, sized, tmp_path, monkeypatch):
    read = counted(monkeypatch)
    told = []
    options = {**OPTIONS, "batch_size": 8, "shard_size": 16}
    generate_all(both(attacks), sized, tmp_path / "out", progress=told.append, **options)
    assert sorted(read) == list(range(40))
    assert (told[-1].done, told[-1].total) == (80, 80)


def test_what_is_there_is_not_made_again(attacks, sized, tmp_path, monkeypatch, files_of):
    options = {**OPTIONS, "batch_size": 8, "shard_size": 16}
    generate_all(both(attacks), sized, tmp_path / "once", **options)
    generate(attacks / "weak.onnx", sized, tmp_path / "out" / "weak", **options)
    generate(attacks / "strong.onnx", sized, tmp_path / "out" / "strong", shard="1/3", **options)
    read = counted(monkeypatch)
    reports = generate_all(both(attacks), sized, tmp_path / "out", **options)
    assert sorted(read) == list(range(16, 40))
    assert [report.generated for report in reports.values()] == [0, 24]
    assert files_of(tmp_path / "out") == files_of(tmp_path / "once")


def test_names_have_to_differ(attacks, images, tmp_path):
    with pytest.raises(DataError, match="names that differ, got 'weak' twice"):
        generate_all([attacks / "weak.onnx"] * 2, images, tmp_path / "out")
    with pytest.raises(DataError, match="names that differ, got none"):
        generate_all([], images, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_options_are_those_of_generate(attacks, images, tmp_path):
    with pytest.raises(TypeError, match="'sede'"):
        generate_all(both(attacks), images, tmp_path / "out", sede=1)
    with pytest.raises(DataError, match="session: expected none"):
        generate_all(both(attacks), images, tmp_path / "out", session=None)


def test_a_dry_run_of_several(attacks, images, tmp_path):
    reports = generate_all(both(attacks), images, tmp_path / "out", dry_run=True, **OPTIONS)
    assert all(report.estimate.missing == 96 for report in reports.values())
    assert not (tmp_path / "out").exists()


def test_the_public_name():
    assert jataug.generate_all is generate_all
