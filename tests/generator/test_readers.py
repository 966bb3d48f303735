"""Data sets are read by other programs, in a process where jataug cannot be imported: the code of
docs/formats.md, and a closer look.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from jataug.dataset import open_dataset
from jataug.dataset.formats import FORMATS
from jataug.generator import generate

DOCS = Path(__file__).resolve().parents[2] / "docs"
BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "jataug":
            raise ImportError("jataug is not installed")

sys.meta_path.insert(0, Blocked())
try:
    import jataug
except ImportError:
    pass
else:
    raise SystemExit("jataug can be imported")
path = sys.argv[1]
"""


def without_jataug(tmp_path, code, path):
    """Run code that prints one JSON value."""
    script = tmp_path / "reader.py"
    script.write_text(BLOCKED + code, "utf-8")
    environment = {
        **os.environ,
        "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    }
    done = subprocess.run(
        [sys.executable, str(script), str(path)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else None


@pytest.fixture
def made(session, folder, tmp_path):
    (folder / "cat" / "img 0.png").rename(folder / "cat" / "img.v0.png")

    def make(format, **options):
        options = {"batch_size": 4, "shard_size": 8, "format": format, **options}
        generate(None, folder, tmp_path / format, session=session, **options)
        return tmp_path / format

    return make


def sections():
    """The Python of docs/formats.md by format; what is common comes first in each."""
    text = (DOCS / "formats.md").read_text("utf-8")
    found = {}
    for section in text.split("\n## ")[1:]:
        name = section.partition(":")[0].partition("\n")[0]
        found[name] = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    return found


@pytest.mark.parametrize("format", FORMATS)
def test_the_code_of_the_documentation(made, tmp_path, format):
    blocks = sections()
    assert len(blocks["In every format"]) == 1
    assert blocks[format]
    code = "\n".join(blocks["In every format"] + blocks[format])
    without_jataug(tmp_path, code, made(format, save_flow=True, save_float=True))


WEBDATASET = """
import glob, hashlib, json
import webdataset
shards = sorted(glob.glob(path + "/images/*.tar"))
data = webdataset.WebDataset(shards, shardshuffle=False).decode("rgb8")
found = [
    {
        "key": sample["json"]["key"],
        "label": sample["cls"],
        "image": hashlib.sha256(sample["png"].tobytes()).hexdigest(),
        "shape": sample["png"].shape,
        "flow": hashlib.sha256(sample["flow.npy"].tobytes()).hexdigest(),
        "float": hashlib.sha256(sample["float.npy"].tobytes()).hexdigest(),
        "parts": sorted(name for name in sample if not name.startswith("__")),
    }
    for sample in data
]
print(json.dumps(found))
"""


def digest(array):
    import hashlib

    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def test_webdataset(made, tmp_path):
    out = made("tar", save_flow=True, save_float=True)
    found = without_jataug(tmp_path, WEBDATASET, out)
    stored = list(open_dataset(out))
    assert [sample["key"] for sample in found] == [sample.key for sample in stored]
    assert "cat/img.v0" in [sample["key"] for sample in found]
    assert [sample["label"] for sample in found] == [sample.label for sample in stored]
    assert [sample["image"] for sample in found] == [digest(sample.image) for sample in stored]
    assert [sample["flow"] for sample in found] == [digest(sample.flow) for sample in stored]
    assert [s["float"] for s in found] == [s.record["float_sha256"] for s in stored]
    assert found[0]["parts"] == ["cls", "float.npy", "flow.npy", "json", "png"]


DATASETS = """
import hashlib, json
import numpy as np
from datasets import load_dataset
data = load_dataset(path, split="train")
name = "png" if "png" in data.features else "image"
label = "cls" if "cls" in data.features else "label"
kinds = {key: type(feature).__name__ for key, feature in data.features.items()}
found = {
    "kinds": kinds,
    "names": getattr(data.features[label], "names", None),
    "labels": list(data[label]),
    "images": [hashlib.sha256(np.array(row[name]).tobytes()).hexdigest() for row in data],
    "flows": [
        hashlib.sha256(np.array(row["flow"], np.float16).tobytes()).hexdigest()
        for row in data if "flow" in row
    ],
}
print(json.dumps(found))
"""


@pytest.mark.parametrize("format", ["folder", "tar", "parquet"])
def test_datasets(made, tmp_path, format):
    out = made(format, save_flow=True)
    found = without_jataug(tmp_path, DATASETS, out)
    stored = list(open_dataset(out))
    if format == "folder":  # in the order of the names
        stored.sort(key=lambda sample: sample.record["file"])
    assert found["images"] == [digest(sample.image) for sample in stored]
    assert found["labels"] == [sample.label for sample in stored]
    assert found["kinds"]["png" if format == "tar" else "image"] == "Image"
    if format == "parquet":
        assert found["names"] == ["cat", "dog", "eel"]
        assert found["kinds"]["adversarial_prediction"] == "ClassLabel"
        assert found["flows"] == [digest(sample.flow) for sample in stored]


PARQUET = """
import json
from datasets import load_dataset
data = load_dataset("parquet", data_files=path + "/images/*.parquet", split="train")
print(json.dumps([type(data.features["image"]).__name__, data.num_rows, list(data["key"])]))
"""


def test_datasets_on_the_files_alone(made, tmp_path):
    found = without_jataug(tmp_path, PARQUET, made("parquet"))
    assert found[:2] == ["Image", 11]
    assert "cat/img.v0" in found[2]


def test_the_records_of_npz_are_what_datasets_loads(made, tmp_path):
    code = """
import json
from datasets import load_dataset
data = load_dataset(path, split="train")
print(json.dumps([data.num_rows, list(data["key"])]))
"""
    found = without_jataug(tmp_path, code, made("npz"))
    assert found[0] == 11


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("extra", [True, False])
def test_index_and_records_are_what_the_schemas_say(made, format, extra):
    out = made(format, save_flow=extra, save_float=extra)
    schemas = {
        name: json.loads((DOCS / "schemas" / f"{name}.schema.json").read_text("utf-8"))
        for name in ("index", "record")
    }
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    index = json.loads((out / "index.json").read_text())
    jsonschema.validate(index, schemas["index"])
    lines = (out / "records" / "shard-00000.jsonl").read_text().splitlines()
    for line in lines:
        jsonschema.validate(json.loads(line), schemas["record"])
    record = json.loads(lines[0])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**record, "label": None}, schemas["record"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**index, "format_version": 2}, schemas["index"])
