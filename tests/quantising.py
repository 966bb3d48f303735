"""Classifiers quantised with onnxruntime's own tools, for the tests and examples of quantised
deployment.
"""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

__all__ = ["dynamic", "static"]

FORMATS = {"QDQ": QuantFormat.QDQ, "QOperator": QuantFormat.QOperator}
TYPES = {"int8": QuantType.QInt8, "uint8": QuantType.QUInt8}


class _Images(CalibrationDataReader):
    def __init__(self, name: str, images: Iterable[np.ndarray]) -> None:
        self._feeds = iter([{name: image[None]} for image in images])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def static(
    source: Path,
    destination: Path,
    images: np.ndarray,
    *,
    form: str = "QDQ",
    activations: str = "uint8",
    weights: str = "int8",
    per_channel: bool = False,
    name: str = "image",
    **options: Any,
) -> Path:
    """Write `source` quantised, calibrated on `images` as the network takes them: (n, ...)."""
    logging.disable(logging.WARNING)  # it advises a step that the sources here do not need
    try:
        quantize_static(
            source,
            destination,
            _Images(name, images),
            quant_format=FORMATS[form],
            activation_type=TYPES[activations],
            weight_type=TYPES[weights],
            per_channel=per_channel,
            **options,
        )
    finally:
        logging.disable(logging.NOTSET)
    return destination


def dynamic(source: Path, destination: Path, **options: Any) -> Path:
    """Write `source` with weights quantised, and activations as the model runs."""
    logging.disable(logging.WARNING)
    try:
        quantize_dynamic(source, destination, **options)
    finally:
        logging.disable(logging.NOTSET)
    return destination
