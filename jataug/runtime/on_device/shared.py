"""Calls on memory that another library owns. Experimental on CUDA.

Tensors are passed through DLPack, without a copy if they are on the engine's device.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ..onnxruntime import Engine, load

__all__ = ["run_shared", "settle", "value_of"]


def run_shared(
    engine: Engine,
    feeds: Mapping[str, Any],
    results: Mapping[str, Any],
    kept: Sequence[str] = (),
    number: int = 0,
) -> list[Any]:
    """Run once, writing the outputs named in `results` into those tensors.

    Args:
        engine: what runs.
        feeds: input name -> contiguous tensor that speaks DLPack, or a value of an earlier call.
        results: output name -> contiguous tensor that speaks DLPack, of the output's type and
            shape.
        kept: outputs that stay on the engine's device, in memory that the runtime owns.
        number: of that device.

    Returns:
        The values of `kept`, in order: feed them to another call.
    """
    binding = engine.bind(
        {name: value_of(feed) for name, feed in feeds.items()},
        {name: value_of(tensor) for name, tensor in results.items()},
    )
    for name in kept:
        binding.values.bind_output(name, engine.device, number)
    engine.run_bound(binding)
    values: list[Any] = binding.values.get_outputs()
    return values[len(results) :]


def settle(device: Any) -> None:
    """Wait for what torch has begun on a device (torch.device): the runtime has a stream of its own
    there, would read a tensor before it is written, and write one before it is read. The runtime
    itself returns when it is done.
    """
    if device.type == "cuda":
        import torch

        torch.cuda.current_stream(device).synchronize()


def value_of(tensor: Any) -> Any:
    """Return the runtime's view of a contiguous tensor that speaks DLPack, uncopied; a value of the
    runtime is itself.
    """
    kind = load().OrtValue
    if isinstance(tensor, kind):
        return tensor
    if hasattr(kind, "from_dlpack"):
        return kind.from_dlpack(tensor)
    # Before 1.26 only the class that it wraps can; tensors here are no booleans, which it would not
    # tell from bytes.
    inner = load().capi.onnxruntime_pybind11_state.OrtValue
    return kind(inner.from_dlpack(tensor.__dlpack__()))
