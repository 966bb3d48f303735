"""What the tests of the loaders share: a small world of data sets, and every framework's samples as
numpy arrays, channels last.

The tests run where only one framework is installed, too: then another process has made the world.
"""

import importlib
import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jataug
from jataug import FlowBudget, PixelBudget

__all__ = [
    "FORMATS",
    "MODULES",
    "SHAPE",
    "Attacked",
    "augment_twice",
    "batch_of",
    "load",
    "make_world",
    "native",
    "numpy_of",
    "records_of",
]

MODULES = {
    "numpy": "numpy",
    "torch": "torch",
    "tf": "tensorflow",
    "grain": "grain",
    "datasets": "datasets",
}
"""Module of jataug.loaders: the package that it needs."""

FORMATS = ("folder", "npz", "tar", "parquet")
SHAPE = (10, 12, 3)
"""Neither square nor grey: a swap of two axes shows."""
COUNT, CLASSES = 40, 3
CONFIG = jataug.AttackConfig(flow=FlowBudget(0.4), pixel=PixelBudget("8/255"), steps=2)


def load(name: str) -> Any:
    """The module jataug.loaders.<name>, or a skip where its framework is not installed."""
    package = MODULES.get(name, name)
    if importlib.util.find_spec(package) is None:
        pytest.skip(
            f"{package} is not installed here; test_fresh_installs.py runs this with it",
            allow_module_level=True,
        )
    if name == "tf":
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return importlib.import_module(f"jataug.loaders.{name}")


def make_world(root: Path) -> Path:
    """A source, an artifact, another one for the size turned round, and a set in every format."""
    from jataug.export import export_attack

    height, width, channel = SHAPE
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (COUNT, 5, 6, channel), np.uint8)
    images = coarse.repeat(2, axis=1).repeat(2, axis=2)
    np.savez(root / "source.npz", images=images, labels=np.arange(COUNT) % CLASSES)
    export_attack(_linear(height, width), CONFIG, root / "attack.onnx")
    export_attack(_linear(width, height), CONFIG, root / "turned.onnx")
    for form in FORMATS:
        jataug.generate(
            root / "attack.onnx", root / "source.npz", root / form, format=form, seed=3,
            batch_size=8, shard_size=16, device="cpu",
        )  # fmt: skip
    return root


def _linear(height: int, width: int) -> Any:
    from onnx import TensorProto, helper, numpy_helper

    size = 3 * height * width
    weights = np.random.default_rng(1).normal(size=(size, CLASSES)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        ],
        "linear",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, height, width])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(weights, "weights")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


class Attacked:
    """A collate function that attacks in the worker; a class, so that spawned workers find it."""

    def __init__(self, augmenter: Any) -> None:
        self.augmenter = augmenter

    def __call__(self, samples: list[Any]) -> dict[str, Any]:
        import torch

        batch = self.augmenter(torch.utils.data.default_collate(samples))
        return {**batch, "cuda": torch.cuda.is_initialized()}


def numpy_of(value: Any) -> Any:
    """An array of any framework, as numpy."""
    return value.numpy() if hasattr(value, "numpy") else np.asarray(value)


def records_of(name: str, data: Any) -> list[dict[str, Any]]:
    """Every sample of a framework's data set, in its order, images channels last."""
    plain = [{k: numpy_of(v) for k, v in sample.items()} for sample in data]
    if name == "torch":
        for sample in plain:
            sample["image"] = sample["image"].transpose(1, 2, 0)
    return plain


def native(name: str, images: np.ndarray) -> Any:
    """A batch, channels last, as the framework has it."""
    if name == "torch":
        import torch

        return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    if name == "tf":
        import tensorflow as tf

        return tf.constant(images)
    if name == "grain":
        import jax.numpy as jnp

        return jnp.asarray(images)
    return list(images) if name == "datasets" else images


def batch_of(name: str, images: Any) -> np.ndarray:
    """The inverse of `native`."""
    if name == "torch":
        return images.numpy().transpose(0, 2, 3, 1)
    return np.stack(images) if name == "datasets" else numpy_of(images)


def augment_twice(augmenter, found):
    """Put two augmented batches into a queue. A spawned process finds this module."""
    clean = np.full((3, *SHAPE), 128, np.uint8)
    found.put([augmenter(clean).tobytes() for _ in range(2)])
