"""The example scripts run, on the shipped classifier and on a file of one's own."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LINE = re.compile(
    r"^(\d+) images: accuracy ([\d.]+), attacked ([\d.]+); largest change ([\d.]+)/255$", re.M
)
LIBRARIES = ["torchattacks", "foolbox", "art", "autoattack"]


def run(library: str, site: Path, *arguments: str) -> list[float]:
    """The four numbers that the example prints."""
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"attack_onnx_with_{library}.py"), *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    found = LINE.search(done.stdout)
    assert found, done.stdout
    return [float(number) for number in found.groups()]


@pytest.mark.parametrize("library", LIBRARIES)
def test_example(peer_site: Callable[[str], Path], library: str) -> None:
    # At 16/255 the first attack leaves nothing to AutoAttack's slow ones.
    options = ("--count", "12", "--radius", "16/255", "--steps", "8")
    count, before, after, change = run(library, peer_site(library), *options)
    assert count == 12
    assert before > 0.7
    assert after < 0.1
    assert 8 < change <= 16.01


def test_every_example_is_tested() -> None:
    names = {path.stem for path in EXAMPLES.glob("attack_onnx_with_*.py")}
    assert names == {f"attack_onnx_with_{library}" for library in LIBRARIES}


def test_on_a_file_of_one_s_own(
    peer_site: Callable[[str], Path], resnet18_cifar: Any, tmp_path: Path
) -> None:
    data = tmp_path / "data.npz"
    levels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    np.savez(data, images=levels, labels=np.zeros(4, np.int64))
    own = (str(resnet18_cifar.path), "--data", str(data), "--mean", "0.5", "--std", "0.25")
    count, _, _, change = run("torchattacks", peer_site("torchattacks"), *own, "--steps", "2")
    assert count == 4
    assert 0 < change <= 8.01
