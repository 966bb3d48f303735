"""Preprocessing as graph nodes, and its adjoint."""

import numpy as np

from jataug.preprocessing import Preprocessing

from .graph.term import Term
from .model.classifier import Classifier

__all__ = ["into_network", "out_of_network"]


def into_network(image: Term, preprocessing: Preprocessing, network: Classifier) -> Term:
    """Return the network's input for an image in [0, 1], (batch, channel, height, width)."""
    gain, offset = _affine(preprocessing, image)
    if gain is not None:
        image = image * gain
    if offset is not None:
        image = image - offset
    if preprocessing.channels == "bgr":
        image = _reverse_channels(image)
    if preprocessing.layout == "nhwc":
        image = image.transpose([0, 2, 3, 1])
    return image.cast(network.info[network.image.name or ""].dtype.numpy())


def out_of_network(gradient: Term, preprocessing: Preprocessing) -> Term:
    """Return the gradient with respect to the image in [0, 1]: the adjoint of `into_network`."""
    gradient = gradient.cast(np.float32)
    if preprocessing.layout == "nhwc":
        gradient = gradient.transpose([0, 3, 1, 2])
    if preprocessing.channels == "bgr":
        gradient = _reverse_channels(gradient)
    gain, _ = _affine(preprocessing, gradient)
    return gradient if gain is None else gradient * gain


def _affine(preprocessing: Preprocessing, like: Term) -> tuple[Term | None, Term | None]:
    graph = like.graph
    std = np.array(preprocessing.std, np.float64)
    gain = (preprocessing.scale / std).reshape(1, -1, 1, 1)
    offset = (np.array(preprocessing.mean, np.float64) / std).reshape(1, -1, 1, 1)
    return (
        None if (gain == 1).all() else graph.constant(gain, np.float32),
        None if (offset == 0).all() else graph.constant(offset, np.float32),
    )


def _reverse_channels(image: Term) -> Term:
    return image.slice([-1], [-(2**62)], [1], [-1])
