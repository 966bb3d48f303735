"""The processes of a run, as torchrun starts them; one process is the same code with nothing to do.

Statistics of batch norm are taken over each process's own share of a batch, and their running
averages are averaged over the processes after every step, so that all processes attack, evaluate
and save the same network. `sync_batch_norm` takes them over the whole batch, on CUDA.
"""

import atexit
import inspect
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn

from ..errors import DataError, RuntimeUnavailable
from .defaults import unsaid
from .train_config import TrainConfig

__all__ = ["Processes", "joined"]

_RELEASE = 0.5
"""Seconds that the threads of gloo get at the end."""


@dataclass(frozen=True)
class Processes:
    """This process among those of the run.

    Attributes:
        rank: from 0.
        size: how many there are.
        device: where this one computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model whose backward pass averages gradients over the processes."""
        if self.size == 1:
            return model
        devices = [self.device] if self.device.type == "cuda" else None
        kind = nn.parallel.DistributedDataParallel
        # torch 2.13 renames it and warns of the old name.
        names = inspect.signature(kind.__init__).parameters
        name = next(n for n in ("forward_sync_buffers", "broadcast_buffers") if n in names)
        options: dict[str, Any] = {name: False}
        return kind(model, device_ids=devices, **options)

    def total(self, *numbers: float) -> list[float]:
        """Return each number summed over the processes, in float64."""
        if self.size == 1:
            return list(numbers)
        values = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        distributed.all_reduce(values)
        return [float(value) for value in values.tolist()]

    @torch.no_grad()
    def average_buffers(self, model: nn.Module) -> None:
        """Give every process the mean of the floating-point buffers, such as batch-norm's."""
        buffers = [b for b in model.buffers() if b.is_floating_point()]
        if self.size == 1 or not buffers:
            return
        flat = torch.cat([buffer.flatten().float() for buffer in buffers])
        distributed.all_reduce(flat)
        parts = torch.split(flat, [buffer.numel() for buffer in buffers])
        for buffer, part in zip(buffers, parts, strict=True):
            buffer.copy_((part / self.size).view_as(buffer))

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Return the tensors of all processes, in order of rank."""
        if self.size == 1:
            return [tensor]
        mine = tensor.to(self.device)
        everyone = [torch.empty_like(mine) for _ in range(self.size)]
        distributed.all_gather(everyone, mine)
        return [other.to(tensor.device) for other in everyone]

    def check_batch(self, size: int) -> None:
        """Raise DataError where a batch of this size does not divide among the processes."""
        if size % self.size:
            raise DataError(
                f"batch_size: expected a multiple of the {self.size} processes, got {size}"
            )

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.size > 1:
            distributed.barrier()


@contextmanager
def joined(config: TrainConfig) -> Iterator[Processes]:
    """Join the processes that torchrun's variables speak of; alone where there are none.

    Raises:
        RuntimeUnavailable: the device is not there.
        DataError: sync_batch_norm is asked for on the CPU.
    """
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = _device(config, int(os.environ.get("LOCAL_RANK", 0)), size)
    if config.sync_batch_norm and device.type != "cuda":
        raise DataError("sync_batch_norm: expected CUDA, got the CPU, where torch has none")
    if "batch_size" not in unsaid(config):
        Processes(rank, size, device).check_batch(config.batch_size)
    if size == 1:
        yield Processes(0, 1, device)
        return
    if not distributed.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, timeout=timedelta(minutes=30))
        # Not at the end of the run: a second group would wait for the first one's keys.
        atexit.register(_leave)
    yield Processes(rank, size, device)


def _leave() -> None:
    """Destroy the process group, once its threads have finished."""
    # A thread of gloo releases the tensors of a call after the call has returned, and needs Python
    # for that. If Python ends first, the thread aborts the process (seen with torch 2.13).
    time.sleep(_RELEASE)
    distributed.destroy_process_group()


def _device(config: TrainConfig, local: int, size: int) -> torch.device:
    kind, _, number = config.device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (number and not number.isdigit()):
        raise RuntimeUnavailable(
            f"device: expected auto, cpu, cuda or cuda:<i>, got {config.device!r}"
        )
    if kind == "cpu" or (kind == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise RuntimeUnavailable(f"device {config.device!r}: torch finds no CUDA; use cpu")
    device = torch.device("cuda", local if size > 1 else int(number or 0))
    torch.cuda.set_device(device)
    return device
