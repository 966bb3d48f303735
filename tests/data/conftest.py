"""Small images in every kind of file."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(name="encoded")
def _encoded():
    return encoded


@pytest.fixture
def images():
    """Seven images, (7, 6, 5, 3), uint8."""
    return np.random.default_rng(3).integers(0, 256, (7, 6, 5, 3), np.uint8)


@pytest.fixture
def write_tar():
    """Write {name: bytes} as a tar archive."""

    def write(path, members, **options):
        with tarfile.open(path, "w", **options) as archive:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return path

    return write


@pytest.fixture
def tars(images, write_tar, tmp_path):
    """Two shards of 4 and 3 samples, labels in .cls and in .json."""
    folder = tmp_path / "tars"
    folder.mkdir()
    members = [{}, {}]
    for number, image in enumerate(images):
        shard = members[number // 4]
        shard[f"dir/{number:03d}.png"] = encoded(image)
        if number // 4:
            shard[f"dir/{number:03d}.json"] = json.dumps({"label": number % 3}).encode()
        else:
            shard[f"dir/{number:03d}.cls"] = str(number % 3).encode()
        shard[f"dir/{number:03d}.txt"] = b"a caption"
    for number, shard in enumerate(members):
        write_tar(folder / f"s-{number}.tar", shard)
    return folder
