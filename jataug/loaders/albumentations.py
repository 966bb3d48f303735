"""Random joint augmentation as a transform of albumentations."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import AttackConfig
from ..errors import MissingExtra
from .joint import as_config
from .numpy import RandomJoint as _RandomJoint

try:
    import albumentations
except ImportError as error:
    raise MissingExtra(
        "jataug.loaders.albumentations needs albumentations, which is not installed: "
        "pip install albumentations"
    ) from error

__all__ = ["RandomJoint"]


class RandomJoint(albumentations.ImageOnlyTransform):  # type: ignore[misc]
    """A random flow and perturbation inside the budgets of `config`.

    Images are (height, width[, channel]), uint8 or float32 in [0, 1]; the draws come from the
    pipeline's own random source (Compose(..., seed=...)).

    Args:
        config: the budgets, or what AttackConfig.to_dict gives.
        p: the probability that an image is changed.
    """

    class InitSchema(albumentations.ImageOnlyTransform.InitSchema):  # type: ignore[misc]
        """What the arguments are: albumentations warns of others."""

        config: Any

    def __init__(self, config: AttackConfig | Mapping[str, Any], p: float = 0.5) -> None:
        super().__init__(p=p)
        # As JSON types: pipelines are saved with their transforms' arguments.
        self.config = as_config(config).to_dict()
        self._transform = _RandomJoint(self.config)

    def get_params(self) -> dict[str, int]:
        """Return the seed of the draws for one image."""
        return {"word": int(self.random_generator.integers(2**63))}

    def apply(self, img: NDArray[Any], word: int, **_: Any) -> NDArray[Any]:
        """Return an image like `img`."""
        return self._transform(img, np.random.default_rng(word))

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        """Return the names of the arguments that are saved."""
        return ("config",)
