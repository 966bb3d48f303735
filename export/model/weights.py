"""Weights as graph inputs, for attacks on a model that is being trained."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import onnx_ir as ir

from jataug.errors import ModelError

from ..graph.builder import Graph, Term

if TYPE_CHECKING:
    import torch

    from .classifier import Classifier

__all__ = ["PREFIX", "Weights", "open_weights", "weight_arrays", "weight_inputs", "weight_names"]

Weights = Literal["constant", "input"]
"""Whether the weights are folded constants of the file, or inputs of the graph."""

PREFIX = "weights/"
"""The prefix of a parameter's name. It keeps the name distinct from the attack's inputs."""


def weight_names(module: "torch.nn.Module") -> list[str]:
    """Return the names of the floating-point parameters and buffers that a checkpoint would hold.

    Raises:
        ModelError: the model is not a torch module.
    """
    if not hasattr(module, "state_dict"):
        raise ModelError(
            f"weights 'input': expected a torch module, got {type(module).__name__}; a file's "
            "weights cannot change"
        )
    state: Mapping[str, Any] = module.state_dict()
    return [name for name, value in state.items() if value.is_floating_point()]


def weight_arrays(module: "torch.nn.Module") -> dict[str, Any]:
    """Return the current weights by input name, as numpy arrays that share their memory."""
    state: Mapping[str, Any] = module.state_dict()
    return {f"{PREFIX}{name}": state[name].cpu().numpy() for name in weight_names(module)}


def open_weights(graph: ir.Graph, names: Sequence[str]) -> list[ir.Value]:
    """Turn initializers into inputs, in place, and return them. No pass can fold an input."""
    opened = []
    for name in names:
        value = graph.initializers.pop(name, None)
        if value is None:
            continue
        value.const_value = None
        graph.inputs.append(value)
        opened.append(value)
    return opened


def weight_inputs(graph: Graph, network: "Classifier") -> list[Term]:
    """Add an input for each weight of a network with weights as inputs; return them in order."""
    terms = []
    for value in network.weights:
        info = network.info[value.name or ""]
        term = graph.input(f"{PREFIX}{value.name}", info.dtype.numpy(), info.shape)
        graph.supply(value, term)
        terms.append(term)
    return terms
