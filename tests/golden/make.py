"""Make the golden files: what jataug 0.1.0 wrote, and every later version must read.

    python tests/golden/make.py FOLDER

Never over the ones of a version that was released: a new version gets a folder of its own beside
them. Needs jataug[cpu,parquet].
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import jataug
from jataug.export import export_attack
from jataug.preprocessing import Preprocessing

FORMATS = ("folder", "npz", "tar", "parquet")
CONFIG = jataug.AttackConfig(
    flow=jataug.FlowBudget(0.3), pixel=jataug.PixelBudget("4/255"), steps=3
)
SIDE, CLASSES = 8, 3


def main() -> None:
    make(Path(sys.argv[1]))


def make(root: Path) -> None:
    """Write a classifier, its attack, a source, and a data set in every format."""
    root.mkdir(parents=True)
    onnx.save(classifier(), root / "model.onnx")
    how = Preprocessing(mean=(0.5,), std=(0.25,))
    export_attack(root / "model.onnx", CONFIG, root / "attack.onnx", preprocessing=how)
    images, labels = source()
    np.savez_compressed(root / "source.npz", images=images, labels=labels)
    for form in FORMATS:
        jataug.generate(
            root / "attack.onnx", root / "source.npz", root / form, format=form, seed=7,
            batch_size=1, shard_size=1, save_flow=True, save_float=True, device="cpu", threads=1,
        )  # fmt: skip
        for name in ("index.json", "plan.json"):
            forget_the_place(root / form / name)
    text = json.dumps(contents(root / "folder"), indent=1)
    (root / "contents.json").write_text(text + "\n", encoding="utf-8")


def forget_the_place(path: Path) -> None:
    """The absolute path of the source is where it was made, and of no use to others."""
    data = json.loads(path.read_text(encoding="utf-8"))
    data["source_path"] = None
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    path.write_text(text + "\n", encoding="utf-8")


def classifier() -> onnx.ModelProto:
    """A convolution, a ReLU and a linear layer on 8 x 8 grey images."""
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(
        f"""
        <ir_version: 10, opset_import: ["" : 18]>
        golden (float[N, 1, {SIDE}, {SIDE}] image) => (float[N, {CLASSES}] logits) {{
            hidden = Conv <pads = [1, 1, 1, 1]> (image, kernel)
            active = Relu (hidden)
            flat = Flatten (active)
            logits = MatMul (flat, head)
        }}
        """
    )
    weights = {
        "kernel": rng.normal(size=(4, 1, 3, 3)) / 3,
        "head": rng.normal(size=(4 * SIDE * SIDE, CLASSES)) / 8,
    }
    for name, value in weights.items():
        tensor = onnx.numpy_helper.from_array(value.astype(np.float32), name)
        model.graph.initializer.append(tensor)
    return model


def source() -> tuple[Any, Any]:
    """Two pictures of grey blocks, (2, SIDE, SIDE) uint8, and what the classifier takes them for;
    the first withstands the attack, the second does not.
    """
    rng = np.random.default_rng(1)
    coarse = rng.integers(40, 216, (8, SIDE // 2, SIDE // 2), np.uint8)
    return coarse[[4, 7]].repeat(2, axis=1).repeat(2, axis=2), np.array([1, 2])


def contents(dataset: Path) -> list[dict[str, Any]]:
    """What a reader must find, image by image."""
    return [
        {
            "index": sample.index,
            "key": sample.key,
            "label": sample.label,
            "target": sample.target,
            "success": sample.record["success"],
            "image": hashlib.sha256(sample.image.tobytes()).hexdigest(),
            "flow": hashlib.sha256(np.ascontiguousarray(sample.flow).tobytes()).hexdigest(),
        }
        for sample in jataug.open_dataset(dataset)
    ]


if __name__ == "__main__":
    main()
