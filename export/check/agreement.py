"""A quantised model beside its own gradient graph: do both give the same logits?

A runtime fuses the quantisers and what lies between them into one operator where nothing else reads
the values between. A gradient does read them. The fused operator then gives way to its parts, whose
rounding may fall on the other side here and there.
"""

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from jataug.preprocessing import Preprocessing
from jataug.runtime.onnxruntime import Engine

from ..gradient.split_vjp import forward_half
from ..graph.builder import Graph
from ..model.load import Classifier
from ..preprocess import into_network
from .gradient import gradient_graph, nchw, probe_images

__all__ = ["logits_difference", "span_difference"]

Array = NDArray[Any]


def logits_difference(
    proto: onnx.ModelProto,
    network: Classifier,
    preprocessing: Preprocessing,
    device: str = "cpu",
) -> float:
    """Return the largest difference between the logits beside the gradient and those of the model
    alone, relative to the span of the latter; both on random images, in sessions of equal options.

    Args:
        proto: the model as it came; where its output is not the logits, the network stands for it.
        network: the same, prepared.
        preprocessing: between an image in [0, 1] and the network.
        device: where.
    """
    batch = network.image_shape[0]
    size = batch if isinstance(batch, int) else 3
    images = probe_images(size, nchw(network, preprocessing)).astype(np.float32)
    cotangent = np.ones((size, int(network.logits_shape[1])), np.float32)
    beside = Engine(gradient_graph(network, preprocessing), {"N": size}, device)
    found = beside.run({"image": images, "cotangent": cotangent})["logits"]
    if preprocessing.outputs != "logits":
        forward = Engine(forward_half(network, preprocessing), {"N": size}, device)
        return span_difference(found, forward.run({"image": images})["logits"])
    inside = _engine_into(network, preprocessing, device).run({"image": images})["network"]
    return span_difference(found, _alone(proto, preprocessing, inside, device).reshape(found.shape))


def _engine_into(network: Classifier, preprocessing: Preprocessing, device: str) -> Engine:
    """Return what makes the network's own input of images in [0, 1]."""
    graph = Graph(reserved=("network",))
    batch = network.image_shape[0]
    image = graph.input("image", np.float32, (batch, *nchw(network, preprocessing)))
    inside = into_network(image, preprocessing, network)
    finished = graph.finish([image], {"network": inside}, "into", opsets=network.opsets)
    return Engine(ir.to_proto(ir.Model(finished, ir_version=10)), {}, device)


def _alone(
    proto: onnx.ModelProto, preprocessing: Preprocessing, inside: Array, device: str
) -> Array:
    engine = Engine(proto, {}, device)
    (name,) = engine.inputs
    output = preprocessing.logits or engine.outputs[0]
    return engine.run({name: inside})[output].astype(np.float32)


def span_difference(found: Array, expected: Array) -> float:
    """Return the largest difference, relative to the span of what was expected."""
    span = max(float(np.ptp(expected)), 1e-12)
    return float(np.abs(found - expected).max()) / span
