"""What training says while it runs and when it is done."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["TrainProgress", "TrainReport"]


@dataclass(frozen=True)
class TrainProgress:
    """How far a run is; accuracies are parts of 1.

    Attributes:
        step: optimizer steps done, those of earlier calls included.
        steps: of the whole run.
        epoch: the present one, from 0.
        epochs: of the whole run.
        loss: mean over the epoch so far.
        accuracy: on the training batches as they were trained on, over the epoch so far.
        clean_accuracy: on the validation part, after the last evaluated epoch; None before.
        robust_accuracy: likewise, under the evaluation attack; None also without one.
    """

    step: int
    steps: int
    epoch: int
    epochs: int
    loss: float
    accuracy: float
    clean_accuracy: float | None = None
    robust_accuracy: float | None = None


@dataclass(frozen=True)
class TrainReport:
    """What a call of train did.

    Attributes:
        output: the run.
        steps: optimizer steps of the whole run.
        trained: of those, how many this call did; the others were there.
        loss: mean over the last epoch; None for a run of no epoch.
        clean_accuracy: of the kept weights on the validation part; None without one.
        robust_accuracy: likewise, under the evaluation attack.
        best_epoch: the epoch whose weights are kept as best, from 0; None where none was measured.
        seconds: that this call took.
    """

    output: Path
    steps: int
    trained: int
    loss: float | None
    clean_accuracy: float | None
    robust_accuracy: float | None
    best_epoch: int | None
    seconds: float

    @property
    def message(self) -> str:
        """What happened, in one line."""
        if not self.trained:
            return f"{self.output}: nothing to do, all {self.steps} steps are done"
        resumed = "" if self.trained == self.steps else f", {self.trained} of them now"
        return f"{self.output}: {self.steps} steps{resumed}, {self.seconds:.0f} s"
