"""An .onnx file as a torch module: forward and backward by ONNX Runtime, so that what attacks torch
modules attacks the deployed file.
"""

from jataug.errors import MissingExtra

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise MissingExtra(
        "jataug.bridge needs torch, which is not installed: pip install 'jataug[cpu,torch]'"
    ) from error

from .module import OnnxModule

__all__ = ["OnnxModule"]
