"""Calls on memory of another library, with what every version of the runtime has."""

import numpy as np
import onnx
import onnxruntime
import pytest

from jataug.runtime.on_device.shared import run_shared
from jataug.runtime.onnxruntime import Engine


@pytest.fixture(params=["as it is", "before 1.26"])
def engine(request, demo_classifier, monkeypatch):
    if request.param == "before 1.26":
        monkeypatch.delattr(onnxruntime.OrtValue, "from_dlpack", raising=False)
    return Engine(onnx.load(demo_classifier.path), {"batch": 2}, device="cpu")


def test_outputs_are_written_into_the_tensors_given(engine, demo_images):
    images = demo_images[0][:2, None].astype(np.float32)
    out = np.full((2, 10), np.nan, np.float32)
    assert run_shared(engine, {engine.inputs[0]: images}, {engine.outputs[0]: out}) == []
    np.testing.assert_array_equal(out, engine.run({engine.inputs[0]: images})[engine.outputs[0]])
