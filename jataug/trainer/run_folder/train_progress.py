"""Where a run is, what it has seen, and how that is saved and found again."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...errors import CheckError, DataError
from ..average import Average
from ..processes import Processes
from ..train_config import TrainConfig
from .checkpoint import read_checkpoint, restore, state_tensors, write_checkpoint
from .metrics import truncate
from .run import LAST, METRICS

__all__ = ["Position", "resume", "save"]


@dataclass
class Position:
    """Where a run is, and what it has seen: the JSON part of its checkpoint.

    Attributes:
        epoch: the epoch that goes on.
        step: steps done in it.
        loss: summed over the images of those steps, over all processes.
        right: how many of those images were classified as their label.
        seen: how many they are.
        seconds: spent in those steps.
        last_loss: mean of the epoch before.
        clean: accuracy when it was last measured.
        robust: likewise.
        best: epoch, clean and robust accuracy of the kept weights.
        metrics: bytes of the metrics file.
    """

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    right: float = 0.0
    seen: float = 0.0
    seconds: float = 0.0
    last_loss: float | None = None
    clean: float | None = None
    robust: float | None = None
    best: dict[str, Any] | None = None
    metrics: int = 0

    def advance(self, loss: float, right: float, seen: float, seconds: float) -> None:
        """Count one step."""
        self.step, self.seconds = self.step + 1, self.seconds + seconds
        self.loss, self.right = self.loss + loss, self.right + right
        self.seen += seen

    def next_epoch(self) -> "Position":
        """Return the start of the next epoch."""
        return Position(
            epoch=self.epoch + 1,
            last_loss=self.loss / self.seen,
            clean=self.clean,
            robust=self.robust,
            best=self.best,
            metrics=self.metrics,
        )

    def score(self, config: TrainConfig) -> float | None:
        """What the best weights are chosen by: robust accuracy, or clean for natural training."""
        robust = None if config.mode == "natural" else self.robust
        return self.clean if robust is None else robust

    def improved(self, config: TrainConfig) -> bool:
        """Whether the weights are better than the kept ones; keep their numbers if so."""
        score = self.score(config)
        if score is None or (self.best is not None and score <= self.best["score"]):
            return False
        self.best = {
            "epoch": self.epoch, "score": score, "clean": self.clean, "robust": self.robust
        }  # fmt: skip
        return True


def save(
    root: Path,
    at: Position,
    model: nn.Module,
    average: Average,
    optimizer: torch.optim.Optimizer,
    processes: Processes,
) -> None:
    """Write the checkpoint; all processes come here, the first one writes.

    Raises:
        CheckError: a weight is not finite; the checkpoint before stays.
    """
    random = processes.gather(torch.get_rng_state())
    on_cuda = processes.device.type == "cuda"
    there = processes.gather(torch.cuda.get_rng_state(processes.device)) if on_cuda else []
    if not all(bool(value.isfinite().all()) for value in model.state_dict().values()):
        raise CheckError(
            f"{root}: expected finite weights, got others after step {at.step} of epoch "
            f"{at.epoch + 1}; the last good checkpoint is kept. Lower the rate, or limit the "
            "gradient (clip)"
        )
    if processes.first:
        tensors = state_tensors(model, average.module, optimizer)
        tensors |= {f"random/cpu/{rank}": state for rank, state in enumerate(random)}
        tensors |= {f"random/cuda/{rank}": state for rank, state in enumerate(there)}
        state = {**asdict(at), "processes": processes.size}
        write_checkpoint(root / LAST, tensors, state)
    processes.wait()


def resume(
    root: Path,
    model: nn.Module,
    average: Average,
    optimizer: torch.optim.Optimizer,
    processes: Processes,
) -> Position | None:
    """Set everything as the checkpoint has it and return the position; None where there is none.

    Raises:
        DataError: the checkpoint is damaged, of another network, or of another number of processes.
    """
    if not (root / LAST).exists():
        return None
    tensors, state = read_checkpoint(root / LAST)
    count = state.pop("processes", None)
    if count != processes.size:
        raise DataError(
            f"{root}: expected {count} processes, as the run began with, got {processes.size}"
        )
    restore(tensors, model, average.module, optimizer)
    torch.set_rng_state(tensors[f"random/cpu/{processes.rank}"])
    if processes.device.type == "cuda":
        torch.cuda.set_rng_state(tensors[f"random/cuda/{processes.rank}"], processes.device)
    at = Position(**state)
    if processes.first:
        truncate(root / METRICS, at.metrics)
    return at
