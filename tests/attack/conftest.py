"""The network that the joint attack is tested on."""

import nets
import pytest
import torch


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return nets.TinyNet().eval()
