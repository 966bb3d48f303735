"""The commands of docs/precompute.md, as they stand there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import tree_hash
from PIL import Image

PAGE = Path(__file__).parents[2] / "docs" / "precompute.md"


def commands():
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines()]


@pytest.fixture(scope="module")
def place(tmp_path_factory, attacks, images):
    root = tmp_path_factory.mktemp("precompute")
    (root / "attack.onnx").write_bytes((attacks / "strong.onnx").read_bytes())
    (root / "photos").mkdir()
    with np.load(images) as arrays:
        for number, image in enumerate(arrays["images"][:48]):
            Image.fromarray(image).save(root / "photos" / f"{number:02d}.png")
    return root


def run(line, place):
    words = shlex.split(line)
    assert words[0] == "jataug"
    command = [sys.executable, "-c", "from jataug.cli import main; main()", *words[1:]]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_commands_of_the_page(place):
    lines = [line for line in commands() if "--engine ray" not in line]
    assert len(lines) == 6
    said = [run(line, place) for line in lines]
    shown = re.search(r"^out: .*?(?=\n```)", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert shown is not None
    told = [line.split()[0] for line in said[0].splitlines()]
    assert told == [line.split()[0] for line in shown[0].splitlines()]
    assert "0 problems" in said[-1]
    assert tree_hash(place / "two") == tree_hash(place / "shared")


@pytest.mark.heavy
def test_the_command_for_ray(place):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'jataug[ray]'")
    (line,) = [line for line in commands() if "--engine ray" in line]
    run(line, place)
    run(line.replace("--engine ray --workers 2", "").replace("ray/", "plain/"), place)
    assert tree_hash(place / "ray") == tree_hash(place / "plain")
