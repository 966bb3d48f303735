"""ONNX graphs under construction: terms, a builder, shapes, quantised values."""
