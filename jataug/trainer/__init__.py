"""Joint adversarial training (claims 15-20) in torch: one configuration, one loop.

For example::

    from jataug.trainer import TrainConfig, train
    train(TrainConfig(source="train-images-idx3-ubyte.gz", output="run", model="small-cnn"))

A run is a folder of safetensors, JSON and JSON lines; `load_run` returns its network.
"""

from ..errors import MissingExtra

try:
    import safetensors as _safetensors  # noqa: F401
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise MissingExtra(
        f"jataug.trainer needs {error.name}, which is not installed: pip install 'jataug[train]'"
    ) from error

from .loop import train
from .run_folder.run import TrainedRun, is_run, load_run
from .run_folder.train_report import TrainProgress, TrainReport
from .train_config import Part, TrainConfig

__all__ = [
    "Part",
    "TrainConfig",
    "TrainProgress",
    "TrainReport",
    "TrainedRun",
    "is_run",
    "load_run",
    "train",
]
