"""The notebooks in examples/ run, and have their outputs stored."""

import base64
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from documentation.notebooks import code_cells, execute
from documentation.pages import ROOT
from PIL import Image

SHORTER = {
    "attack_your_model": [("[:64", "[:8"), ("limit=128", "limit=8"), ("[:32]", "[:4]")],
    "train_generate_retrain": [
        ("epochs=10", "epochs=1"),
        ("epochs=15", "epochs=1"),
        ('"evaluation_images": 112', '"evaluation_images": 20'),
        ('format="npz"', 'format="npz", limit=448'),
        ('evaluate_every": 5', 'evaluate_every": 1'),
    ],
}
"""What is changed in the code, to make it short."""

RUN = (
    "import json, sys; sys.path.insert(0, sys.argv[2])\n"
    "from documentation.notebooks import execute\n"
    "print(json.dumps(execute(json.loads(open(sys.argv[1], encoding='utf-8').read()))))"
)


def notebook(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "examples" / f"{name}.ipynb").read_text(encoding="utf-8"))


def kinds(outputs: list[list[dict[str, Any]]]) -> list[list[str]]:
    return [[str(sorted(o.get("data", {"text": 0}))) for o in cell] for cell in outputs]


def test_all_are_here() -> None:
    assert {path.stem for path in (ROOT / "examples").glob("*.ipynb")} == set(SHORTER)


@pytest.mark.parametrize("name", SHORTER)
def test_it_runs(name: str, tmp_path: Path) -> None:
    held = notebook(name)
    text = json.dumps(held)
    for old, new in SHORTER[name]:
        old, new = json.dumps(old)[1:-1], json.dumps(new)[1:-1]
        assert old in text, old
        text = text.replace(old, new)
    (tmp_path / "short.json").write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", RUN, "short.json", ROOT / "tests"],
        cwd=tmp_path, capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout.splitlines()[-1])
    assert kinds(made) == kinds([cell["outputs"] for cell in code_cells(held)])


@pytest.mark.parametrize("name", SHORTER)
def test_pictures_are_stored(name: str) -> None:
    data = [o["data"] for c in code_cells(notebook(name)) for o in c["outputs"] if "data" in o]
    pictures = [base64.b64decode(d["image/png"]) for d in data if "image/png" in d]
    assert pictures
    for picture in pictures:
        with Image.open(io.BytesIO(picture)) as image:
            assert min(image.size) > 200
    assert str(ROOT) not in json.dumps(notebook(name))


def test_a_fault_in_a_cell_is_seen() -> None:
    cell = {"cell_type": "code", "source": ["1 / 0"]}
    with pytest.raises(ZeroDivisionError):
        execute({"cells": [cell]})
    shown = execute({"cells": [{"cell_type": "code", "source": ["print(1)\n", "2 + 3"]}]})
    assert [o.get("text") or o["data"]["text/plain"] for o in shown[0]] == [["1\n"], ["5"]]
