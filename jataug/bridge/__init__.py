"""An .onnx file as a torch module: forward and backward by ONNX Runtime, so that what attacks torch
modules attacks the deployed file.
"""

from .module import OnnxModule

__all__ = ["OnnxModule"]
