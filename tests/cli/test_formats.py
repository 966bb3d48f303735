"""Every format and every kind of source from the command line, on the shipped classifier."""

import io
import json
import shlex
import tarfile

import numpy as np
import pytest
from commands import refused
from PIL import Image

FORMATS = ["folder", "npz", "tar", "parquet"]


def files_of(root):
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def encoded(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def write_tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


@pytest.fixture
def shipped(images):
    with np.load(images) as arrays:
        return arrays["images"][:20], arrays["labels"][:20]


@pytest.fixture
def tars(shipped, tmp_path):
    folder = tmp_path / "tars"
    folder.mkdir()
    for number in range(2):
        members = {}
        for k in range(10 * number, 10 * number + 10):
            members[f"{k:05d}.png"] = encoded(shipped[0][k])
            members[f"{k:05d}.cls"] = str(shipped[1][k]).encode()
        write_tar(folder / f"s-{number}.tar", members)
    return folder


@pytest.mark.parametrize("format", FORMATS)
def test_generate_and_verify(run, artifact, images, tmp_path, format):
    out = tmp_path / "out"
    made = run("generate", artifact, images, out, "--format", format, "--limit", 70, "--save-flow")
    assert made.exit_code == 0, made.output
    checked = run("verify", out, "--model", artifact)
    assert checked.exit_code == 0, checked.output
    assert "70 images, 0 problems" in checked.output
    assert "0 predictions differ" in checked.output


@pytest.mark.parametrize("format", ["npz", "tar", "parquet"])
def test_a_flipped_byte_is_named_and_fails(run, artifact, images, tmp_path, format):
    out = tmp_path / "out"
    run("generate", artifact, images, out, "--format", format, "--limit", 8)
    from jataug.dataset import open_dataset

    data = open_dataset(out)._open(0).reader.data(5)
    path = out / "images" / f"shard-00000.{format}"
    whole = bytearray(path.read_bytes())
    whole[whole.index(data) + len(data) // 2] ^= 4
    path.write_bytes(whole)
    checked = run("verify", out)
    assert checked.exit_code == 1
    assert "shard-00000 00005: expected the image of the records" in checked.output
    assert "2 problems" in checked.output


def test_the_command_in_the_card_makes_the_same_bytes(run, artifact, images, tmp_path, monkeypatch):
    options = ["--format", "tar", "--seed", 3, "--limit", 20, "--batch-size", 8, "--save-flow"]
    run("generate", artifact, images, tmp_path / "first", *options)
    text = (tmp_path / "first" / "README.md").read_text("utf-8")
    script = text.split("```sh\n")[1].split("```")[0].replace("\\\n", " ").splitlines()
    export, generate = (shlex.split(line) for line in script)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images.npz").write_bytes(images.read_bytes())
    model = images.with_name("classifier.onnx")
    exported = run(*[model if word == "MODEL" else word for word in export[1:]])
    assert exported.exit_code == 0, exported.output
    assert generate[2] == "attack.onnx"
    again = run("generate", artifact, *generate[3:])
    assert again.exit_code == 0, again.output
    first, second = files_of(tmp_path / "first"), files_of(tmp_path / "out")
    names = [name for name in first if name.startswith("images/")]
    assert names
    assert {name: second[name] for name in names} == {name: first[name] for name in names}
    plans = [(tmp_path / name / "plan.json").read_text() for name in ("first", "out")]
    config = [json.loads(plan)["plan"] for plan in plans]
    assert config[0]["attack"] == config[1]["attack"]


def test_all_kinds_of_sources_give_the_same_images(run, artifact, shipped, tars, tmp_path):
    import datasets

    features = {"image": datasets.Image(), "label": datasets.Value("int64")}
    rows = datasets.Dataset.from_dict(
        {
            "image": [{"bytes": encoded(image), "path": None} for image in shipped[0]],
            "label": [int(label) for label in shipped[1]],
        },
        features=datasets.Features(features),
    )
    rows.to_parquet(tmp_path / "rows.parquet")
    rows.save_to_disk(tmp_path / "disk")
    np.savez(tmp_path / "rows.npz", images=shipped[0], labels=shipped[1])
    sources = ["rows.npz", "tars", "tars/s-{0..1}.tar", "rows.parquet", "disk"]
    images = []
    for number, source in enumerate(sources):
        out = tmp_path / f"out{number}"
        made = run("generate", artifact, tmp_path / source, out, "--format", "npz")
        assert made.exit_code == 0, made.output
        assert run("verify", out).exit_code == 0
        images.append(np.load(out / "images" / "shard-00000.npz")["images"])
    for other in images[1:]:
        np.testing.assert_array_equal(other, images[0])


def test_a_corrupt_image_in_a_tar_is_named_or_skipped(run, artifact, tars, tmp_path):
    path = tars / "s-1.tar"
    data = bytearray(path.read_bytes())
    place = [k for k in range(len(data)) if data[k : k + 4] == b"IDAT"][4]
    data[place + 20] ^= 0xFF
    path.write_bytes(data)
    stopped = run("generate", artifact, tars, tmp_path / "out")
    refused(stopped, "s-1.tar:00014.png: expected a whole image", "--on-error skip")
    skipped = run("generate", artifact, tars, tmp_path / "some", "--on-error", "skip")
    assert skipped.exit_code == 0, skipped.output
    assert "skipped: " in skipped.output
    assert "19 images made" in skipped.output


def test_a_truncated_tar(run, artifact, tars, tmp_path):
    path = tars / "s-1.tar"
    path.write_bytes(path.read_bytes()[:3000])
    refused(run("generate", artifact, tars, tmp_path / "out"), "s-1.tar", "at offset", "truncated")
    assert not (tmp_path / "out").exists()


def test_folders_that_mix(run, artifact, tars, shipped, tmp_path):
    (tars / "photo.png").write_bytes(encoded(shipped[0][0]))
    refused(run("generate", artifact, tars, tmp_path / "out"), "got tar and images (photo.png)")


def test_labels_out_of_range(run, artifact, shipped, tmp_path):
    write_tar(tmp_path / "s.tar", {"a.png": encoded(shipped[0][0]), "a.cls": b"10"})
    refused(
        run("generate", artifact, tmp_path / "s.tar", tmp_path / "out"),
        "s.tar:a.png: expected a label in [0, 10), got 10",
    )


def test_a_tar_without_images(run, artifact, tmp_path):
    write_tar(tmp_path / "s.tar", {"a.txt": b"x"})
    refused(run("generate", artifact, tmp_path / "s.tar", tmp_path / "out"), "expected jpeg, jpg")


def test_a_missing_package(run, artifact, images, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    result = run("generate", artifact, images, tmp_path / "out", "--format", "parquet")
    refused(result, 'pip install "jataug[parquet]"')
    assert not (tmp_path / "out").exists()


def test_an_adversarial_data_set_as_a_source(run, artifact, images, tmp_path):
    run("generate", artifact, images, tmp_path / "one", "--limit", 30)
    again = run("generate", artifact, tmp_path / "one", tmp_path / "two", "--format", "tar")
    assert again.exit_code == 0, again.output
    assert run("verify", tmp_path / "two", "--model", artifact).exit_code == 0
