"""The accuracies of the validation part."""

import torch
from torch import Tensor, nn

from jataug.trainer.data import load_data
from jataug.trainer.held_out import measure
from jataug.trainer.processes import joined
from jataug.trainer.train_config import TrainConfig


class NotFinite(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :3] * torch.nan


def test_logits_that_are_not_finite_are_never_right(config: TrainConfig) -> None:
    data = load_data(config)
    assert (data.labels[data.validation] == 0).any()  # where argmax finds the first NaN
    with joined(config) as processes:
        assert measure(NotFinite(), config, data, processes) == (0, 0)
