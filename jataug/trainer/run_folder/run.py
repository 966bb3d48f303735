"""A run's folder: what it is, how far it is, and its network."""

import json
import os
import platform
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ... import __version__
from ...atomic import hash_file, is_temporary, remove_stale, replace_file
from ...errors import DataError
from ..data import TrainData
from ..defaults import unsaid
from ..models import build, code_hash
from ..processes import Processes
from ..train_config import TrainConfig
from .checkpoint import load_weights, read_checkpoint, read_weights
from .run_readme import notes

__all__ = [
    "BEST",
    "LAST",
    "METRICS",
    "TrainedRun",
    "initial_weights",
    "is_run",
    "load_run",
    "open_run",
    "resumed",
]

CONFIG, ENVIRONMENT, METRICS = "config.json", "environment.json", "metrics.jsonl"
LAST, BEST = "last.safetensors", "best.safetensors"
_KIND, _FORMAT_VERSION = "jataug training run", 1

_FREE = {"source", "output", "device", "workers", "checkpoint_steps", "tensorboard"}
"""What may differ when a run is resumed; the source's content may not."""


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A run, read back.

    Attributes:
        path: the folder.
        config: of the run.
        module: the network with its weights, in evaluation mode: images in [0, 1] to logits.
        image_shape: (channel, height, width).
        classes: how many logits.
    """

    path: Path
    config: TrainConfig
    module: nn.Module
    image_shape: tuple[int, int, int]
    classes: int

    @property
    def example(self) -> Tensor:
        """Two black images: what an exporter wants to see."""
        return torch.zeros(2, *self.image_shape)


def is_run(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path is a folder that `train` wrote."""
    try:
        return bool(json.loads((Path(path) / CONFIG).read_text("utf-8"))["kind"] == _KIND)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def load_run(path: str | os.PathLike[str], weights: Literal["best", "last"] = "best") -> TrainedRun:
    """Return a run's network with its best or its last weights; the averaged ones if it has them.

    Raises:
        DataError: there is no run, it has saved nothing yet, or a file is damaged.
        ModelError: the network cannot be built, for example because its module is not found.
    """
    root = Path(path)
    about = _about(root)
    config = TrainConfig.from_dict(about["config"])
    shape, classes = about["image_shape"], about["classes"]
    image_shape = (int(shape[0]), int(shape[1]), int(shape[2]))
    with torch.random.fork_rng():
        module = build(
            config.model, config.model_options, image_shape, classes, config.mean, config.std
        )
    load_weights(module, _weights(root, weights), str(root))
    return TrainedRun(root, config, module.eval(), image_shape, classes)


def _about(root: Path) -> dict[str, Any]:
    if not is_run(root):
        raise DataError(f"{root}: expected the folder of a training run, got none")
    about: dict[str, Any] = json.loads((root / CONFIG).read_text("utf-8"))
    if about.get("format_version") != _FORMAT_VERSION:
        raise DataError(
            f"{root}: expected a run of format_version {_FORMAT_VERSION}, got "
            f"{about.get('format_version')!r}; update jataug"
        )
    return about


def _weights(root: Path, which: str) -> dict[str, Any]:
    if which == "best" and (root / BEST).exists():
        return read_weights(root / BEST)
    if not (root / LAST).exists():
        raise DataError(f"{root}: expected a saved network, got a run that has saved none yet")
    tensors, _ = read_checkpoint(root / LAST)
    averaged = any(name.startswith("average/") for name in tensors)
    prefix = "average/" if averaged else "model/"
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def initial_weights(path: str) -> dict[str, Any]:
    """Return the weights that TrainConfig.init names: a run's best, or a .safetensors file's.

    Raises:
        DataError: there are none.
    """
    root = Path(path)
    return _weights(root, "best") if is_run(root) else read_weights(root)


def resumed(config: TrainConfig) -> TrainConfig:
    """Return the configuration with what the user left out as the run in its folder began; as it is
    where there is none.

    Raises:
        DataError: the run is of another format_version.
    """
    root = Path(config.output)
    if not is_run(root):
        return config
    there = _about(root)["config"]
    return config.replace(**{name: there[name] for name in unsaid(config) if name in there})


def open_run(config: TrainConfig, data: TrainData, processes: Processes) -> Path:
    """Return the run's folder, made or found; the first process writes what it is.

    Raises:
        DataError: the folder holds something else, or a run of another configuration.
    """
    root = Path(config.output)
    about = {
        "kind": _KIND,
        "format_version": _FORMAT_VERSION,
        "config": config.to_dict(),
        "source": data.description,
        "image_shape": list(data.shape),
        "classes": data.classes,
        "training_images": len(data.train),
        "validation_images": len(data.validation),
        "steps_per_epoch": data.steps(config.batch_size),
        "images_of_a_batch": {
            part.name: count for part, count in zip(config.mixture, config.counts, strict=True)
        },
        "files": {part.name: _content(part.path) for part in config.mixture if part.path},
    }
    held = _entries(root)
    if held and not is_run(root):
        raise DataError(
            f"{root}: expected a new or empty folder, got one that holds {min(held)}; nothing was "
            "touched, choose another"
        )
    if held:
        _check_same(root, _about(root), json.loads(json.dumps(about)))
    processes.wait()
    if processes.first:
        root.mkdir(parents=True, exist_ok=True)
        environment = _environment(config, processes)
        _check_environment(root, environment)
        remove_stale(root)
        # First: it tells whose folder this is, should nothing else come to be written.
        _write(root / CONFIG, _json(about))
        _write(root / "README.md", notes(config, data))
        _write(root / ENVIRONMENT, _json(environment))
    processes.wait()
    return root


def _content(path: str) -> str | None:
    """Return the sha256 of an artifact, or of a data set's index, which has those of its files."""
    root = Path(path)
    return hash_file(root / "index.json" if root.is_dir() else root)


def _entries(root: Path) -> set[str]:
    try:
        return {entry.name for entry in root.iterdir() if not is_temporary(entry)} - {".DS_Store"}
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise DataError(f"{root}: expected a folder to write to: {error.strerror}") from None


def _check_same(root: Path, stored: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    there = json.loads(json.dumps(TrainConfig.from_dict(stored["config"]).to_dict()))
    here = asked["config"]
    names = sorted({*there, *here} - _FREE)
    differences = [
        f"{name} {json.dumps(there.get(name))} there, {json.dumps(here.get(name))} asked"
        for name in names
        if there.get(name) != here.get(name)
    ]
    if not differences and stored["source"]["fingerprint"] != asked["source"]["fingerprint"]:
        differences = ["the source has changed"]
    if not differences:
        files = stored.get("files", {})  # of 0.1: none
        differences = [f"{k} has changed" for k in files if files[k] != asked["files"].get(k)]
    if differences:
        raise DataError(
            f"{root}: expected the configuration that was begun there, got another: "
            f"{'; '.join(differences)}; choose another output"
        )


def _check_environment(root: Path, now: Mapping[str, Any]) -> None:
    try:
        then = json.loads((root / ENVIRONMENT).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return
    # Another number of processes is refused where the checkpoint is read.
    names = sorted(now.keys() - {"processes"})
    if changed := [name for name in names if name in then and then[name] != now[name]]:
        said = ", ".join(f"{name} {then.get(name)} then, {now[name]} now" for name in changed)
        warnings.warn(f"{root}: resumed in another environment: {said}", stacklevel=4)


def _environment(config: TrainConfig, processes: Processes) -> dict[str, Any]:
    return {
        "jataug": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(processes.device)
        if processes.device.type == "cuda"
        else "cpu",
        "threads": torch.get_num_threads(),
        "processes": processes.size,
        "code of the model": code_hash(config.model),
    }


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True) + "\n"


def _write(path: Path, text: str) -> None:
    with replace_file(path) as draft:
        draft.write_text(text, encoding="utf-8")
