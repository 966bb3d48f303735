"""The processes of a run, as torchrun starts them; one process is the same code with nothing to do.

Statistics of batch norm are taken over each process's own share of a batch, and their running
averages are averaged over the processes after every step, so that all processes attack, evaluate
and save the same network. `sync_batch_norm` takes them over the whole batch, on CUDA.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn

from ..errors import DataError, RuntimeUnavailable
from .config import TrainConfig

__all__ = ["Processes", "joined"]


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
        return nn.parallel.DistributedDataParallel(
            model, device_ids=devices, broadcast_buffers=False
        )

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
        for buffer, part in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
            buffer.copy_((part / self.size).view_as(buffer))

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Return the tensors of all processes, in order of rank."""
        if self.size == 1:
            return [tensor]
        mine = tensor.to(self.device)
        everyone = [torch.empty_like(mine) for _ in range(self.size)]
        distributed.all_gather(everyone, mine)
        return [other.to(tensor.device) for other in everyone]

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.size > 1:
            distributed.barrier()


@contextmanager
def joined(config: TrainConfig) -> Iterator[Processes]:
    """Join the processes that torchrun's variables speak of; alone where there are none.

    Raises:
        RuntimeUnavailable: the device is not there.
        DataError: the batch does not divide among the processes.
    """
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = _device(config, int(os.environ.get("LOCAL_RANK", 0)), size)
    if config.sync_batch_norm and device.type != "cuda":
        raise DataError("sync_batch_norm: expected CUDA, got the CPU, where torch has none")
    if config.batch_size % size:
        raise DataError(
            f"batch_size: expected a multiple of the {size} processes, got {config.batch_size}"
        )
    if size == 1:
        yield Processes(0, 1, device)
        return
    own = not distributed.is_initialized()
    if own:
        backend = "nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, timeout=timedelta(minutes=30))
    try:
        yield Processes(rank, size, device)
    finally:
        if own:
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
