"""A few images under every attack: arrays for whoever draws them, and what to write below."""

from collections.abc import Mapping

import numpy as np

from ..attacks.losses import softmax
from ..images import Images
from ..models.model import Array
from ..outcome import Outcome
from ..runner import Clean
from .contents import Gallery, GalleryImage, GalleryView

__all__ = ["gallery", "gallery_arrays"]


def gallery_arrays(
    images: Images, shown: Array, clean: Clean, outcomes: Mapping[str, Outcome]
) -> dict[str, Array]:
    """Return the arrays of a gallery's file; see Gallery."""
    arrays = {"index": images.indices[shown], "clean": clean.outcome.gallery["image"]}
    for name, outcome in outcomes.items():
        found = outcome.gallery
        arrays[f"{name}.adversarial"] = found["image"]
        arrays[f"{name}.delta"] = found["delta"].astype(np.float32)
        arrays[f"{name}.flow"] = found["flow"].astype(np.float16)
    return arrays


def gallery(
    file: str, images: Images, shown: Array, clean: Clean, outcomes: Mapping[str, Outcome]
) -> Gallery:
    """Return what a report says of a gallery."""
    found = []
    for k, place in enumerate(shown):
        index, label = int(images.indices[place]), int(clean.label[place])
        found.append(
            GalleryImage(
                k,
                index,
                images.source.key(index),
                label,
                _view(clean.outcome, k, label),
                {name: _view(outcome, k, label) for name, outcome in outcomes.items()},
            )
        )
    return Gallery(file, tuple(found))


def _view(outcome: Outcome, k: int, label: int) -> GalleryView:
    logits = np.nan_to_num(outcome.gallery["logits"][k : k + 1], posinf=0.0, neginf=0.0)
    chances = softmax(logits)[0]
    prediction = int(chances.argmax())
    delta, flow = (outcome.gallery.get(name) for name in ("delta", "flow"))
    return GalleryView(
        prediction,
        float(chances[prediction]),
        float(chances[label]),
        0.0 if delta is None else float(np.abs(delta[k]).max(initial=0)),
        0.0 if flow is None else float(np.hypot(*flow[k].astype(np.float64)).max(initial=0)),
    )
