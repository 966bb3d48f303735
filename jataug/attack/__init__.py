"""The joint attack in torch. Tests compare the ONNX graph with it, and torch trainers call it."""

from ..errors import MissingExtra

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise MissingExtra(
        "jataug.attack needs torch, which is not installed: pip install 'jataug[torch]'"
    ) from error

from .joint import JointAttack

__all__ = ["JointAttack"]
