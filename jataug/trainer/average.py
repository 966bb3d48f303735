"""The moving average of the weights that is evaluated and kept in their place.

torch's AveragedModel is not used: its averages of this kind have one decay for all steps, and its
first update forgets the initial weights at once.
"""

import copy

import torch
from torch import nn

__all__ = ["Average"]


class Average:
    """weights <- d weights + (1 - d) new weights after every step, buffers likewise.

    In step t the decay is min(decay, (1 + t) / (10 + t)), so that the first weights are forgotten.
    Batch-norm statistics are averaged with the weights they belong to.

    Args:
        model: what is averaged.
        decay: 0 keeps no average; `module` is then the model itself.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model, self._decay = model, decay
        self.module = copy.deepcopy(model).requires_grad_(False) if decay else model

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights as they are after optimizer step `step`, from 0."""
        if not self._decay:
            return
        decay = min(self._decay, (1 + step) / (10 + step))
        new = self._model.state_dict()
        for name, kept in self.module.state_dict().items():
            if kept.is_floating_point():
                kept.lerp_(new[name], 1 - decay)
            else:
                kept.copy_(new[name])
