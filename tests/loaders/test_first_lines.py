"""The line for each framework in docs/loaders.md."""

import re
from pathlib import Path

import pytest
from loading import MODULES, load

PAGE = Path(__file__).resolve().parents[2] / "docs" / "loaders.md"
LINES = dict(re.findall(r"`(from jataug\.loaders\.(\w+) import [^`]+)`", PAGE.read_text("utf-8")))


def test_every_framework_has_a_line():
    assert sorted(LINES.values()) == sorted(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_it_works(name, world, tmp_path, monkeypatch):
    load(name)
    (tmp_path / "adversarial").symlink_to(world / "folder", target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    (line,) = [line for line, module in LINES.items() if module == name]
    names = {}
    exec(line, names)
    first = next(iter(names["samples"]))
    assert {"image", "label", "index"} <= set(first)
