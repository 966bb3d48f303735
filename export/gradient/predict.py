"""A classifier as a function from images to logits, without a gradient."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from jataug.preprocessing import Preprocessing
from jataug.runtime.inputs import as_images
from jataug.runtime.onnxruntime import Engine

from ..graph.builder import Graph, as_model
from ..model.load import image_shape, load_model, prepare
from ..preprocess import into_network
from .differentiate import trace

__all__ = ["predictor"]

_BATCH = 64


def predictor(
    model: str | Path | onnx.ModelProto,
    preprocessing: Preprocessing | None = None,
    *,
    size: tuple[int, int] | None = None,
    device: str = "auto",
) -> Callable[[Any], NDArray[np.float32]]:
    """Return a function from images to logits (batch, classes).

    The images are uint8 (batch, height, width, channel), or float32 as a Session takes them.

    Raises:
        ModelError: the model is not a classifier.
    """
    preprocessing = preprocessing or Preprocessing()
    proto = load_model(model)
    network = prepare(proto, of=preprocessing.logits, preprocessing=preprocessing, size=size)
    shape, batch = image_shape(network, preprocessing), network.image_shape[0]
    graph = Graph(reserved=("logits",))
    image = graph.input("image", np.float32, (batch, *shape))
    logits = trace(graph, network, into_network(image, preprocessing, network)).logits
    finished = graph.finish(
        [image], {"logits": logits.cast(np.float32)}, "classifier", opsets=network.opsets
    )
    count = batch if isinstance(batch, int) else _BATCH
    classes = int(network.logits_shape[1])
    engine = Engine(as_model(finished), {"N": count}, device)

    def predict(images: Any) -> NDArray[np.float32]:
        pixels = as_images(images, shape).pixels
        parts = []
        for first in range(0, len(pixels), count):
            part = pixels[first : first + count]
            padded = np.concatenate([part, np.zeros((count - len(part), *shape), np.float32)])
            parts.append(engine.run({"image": padded})["logits"][: len(part)])
        return np.concatenate(parts) if parts else np.zeros((0, classes), np.float32)

    return predict
