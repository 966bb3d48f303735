"""Checkpoints: one safetensors file with a JSON header, whole or not there, and never a pickle."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ...errors import DataError

__all__ = [
    "load_weights",
    "read_checkpoint",
    "read_weights",
    "restore",
    "state_tensors",
    "write_checkpoint",
]

_KEY = "jataug"


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write tensors and a JSON state under a temporary name, sync, rename."""
    # Copies: no two tensors of the file may share memory, as tied weights do.
    whole = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
             for name, tensor in tensors.items()}  # fmt: skip
    partial = path.with_name(f".{path.name}.partial")
    save_file(whole, partial, metadata={_KEY: json.dumps(state, sort_keys=True)})
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    partial.replace(path)


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a checkpoint, on the CPU, and its JSON state.

    Raises:
        DataError: the file is missing, damaged, or no checkpoint.
    """
    try:
        with safe_open(path, framework="pt") as file:
            state = json.loads((file.metadata() or {})[_KEY])
            return {name: file.get_tensor(name) for name in file.keys()}, state  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected a checkpoint, got a damaged file ({error})") from None


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors file of weights, whoever wrote it.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: expected a .safetensors file, got {error}") from None


def state_tensors(
    model: nn.Module, averaged: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Return everything that a step changes, by name; `averaged` is `model` where there is none."""
    found = {f"model/{name}": value for name, value in model.state_dict().items()}
    if averaged is not model:
        found |= {f"average/{name}": value for name, value in averaged.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state[parameter].items():
            if isinstance(value, Tensor):
                found[f"optimizer/{key}/{name}"] = value
    return found


def restore(
    tensors: Mapping[str, Tensor],
    model: nn.Module,
    averaged: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Set what `state_tensors` returned.

    Raises:
        DataError: the tensors are of another network.
    """
    load_weights(model, _under("model/", tensors), "checkpoint")
    if averaged is not model:
        load_weights(averaged, _under("average/", tensors), "checkpoint")
    parameters = dict(model.named_parameters())
    for name, value in _under("optimizer/", tensors).items():
        key, _, parameter = name.partition("/")
        own = parameters[parameter]
        # In the parameter's memory format, as the optimizer would have made it.
        optimizer.state[own][key] = torch.empty_like(own).copy_(value)


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Set a network's weights.

    Raises:
        DataError: a tensor is missing, too many, or of another shape.
    """
    try:
        model.load_state_dict(dict(tensors))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"{where}: expected the weights of this network: {reason}") from None


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
