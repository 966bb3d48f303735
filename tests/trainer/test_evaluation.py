"""The accuracies of the validation part."""

import torch
from torch import Tensor, nn

from jataug.trainer.config import TrainConfig
from jataug.trainer.data import load_data
from jataug.trainer.evaluation import measure
from jataug.trainer.processes import joined


class NotFinite(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :3] * torch.nan


def test_logits_that_are_not_finite_are_never_right(config: TrainConfig) -> None:
    data = load_data(config)
    assert (data.labels[data.validation] == 0).any()  # where argmax finds the first NaN
    with joined(config) as processes:
        assert measure(NotFinite(), config, data, processes) == (0, 0)
