"""The learning rate as a function of the step: nothing to save, nothing to resume.

torch's schedulers are not used: CosineAnnealingLR multiplies from step to step, so that its rates
differ in the last bits, and a run that is resumed would have to restore a scheduler.
"""

import math

from .train_config import TrainConfig

__all__ = ["learning_rate"]


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """Return the rate of optimizer step `step`, from 0.

    Warm-up multiplies whatever the schedule says; milestones are epochs, or parts of the run; the
    cosine ends at 0 after the last step.
    """
    epoch = step / steps_per_epoch
    warm = min(1.0, (epoch + 1 / steps_per_epoch) / config.warmup) if config.warmup else 1.0
    if config.schedule == "cosine":
        shape = (1 + math.cos(math.pi * min(1.0, epoch / config.epochs))) / 2
    elif config.schedule == "step":
        steps = config.epochs * steps_per_epoch
        falls = [m * steps_per_epoch if m >= 1 else round(m * steps) for m in config.milestones]
        shape = config.gamma ** sum(step >= fall for fall in falls)
    else:
        shape = 1.0
    return config.lr * warm * shape
