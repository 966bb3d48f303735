"""Configurations and images for the tests of sessions on the tiny net."""

import numpy as np

from jataug import AttackConfig, FlowBudget, PixelBudget

__all__ = ["CONFIG", "EVALUATION", "FIELDS", "images", "levels", "same"]

CONFIG = AttackConfig(flow=FlowBudget(0.7), pixel=PixelBudget("8/255"), steps=3)
EVALUATION = AttackConfig.preset("evaluation", flow=CONFIG.flow, pixel=CONFIG.pixel, steps=3)
FIELDS = ("adversarial", "exact", "flow", "delta", "loss", "logits", "success", "label", "target")


def images(count, seed=0):
    return np.random.default_rng(seed).random((count, 3, 16, 16)).astype(np.float32)


def levels(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 16, 16, 3)).astype(np.uint8)


def same(first, second):
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)
