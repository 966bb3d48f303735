"""A look at an attack before a data set is made of it."""

from collections.abc import Mapping
from os import PathLike
from typing import Any, Literal

import numpy as np
from PIL import Image

from ..data import Geometry, Source, class_map, open_source, prepare
from ..data.labels import Classes
from ..errors import DataError
from .draw import Guess, Row, draw
from .plan import check_integer
from .session import AttackSession

__all__ = ["guess", "preview"]


def preview(
    session: AttackSession,
    source: str | PathLike[str] | Source,
    count: int = 8,
    seed: int = 0,
    *,
    epoch: int = 0,
    labels: Literal["source", "predicted"] = "source",
    classes: Classes = None,
    resize: int | None = None,
    crop: int | tuple[int, int] | None = None,
    title: str = "",
) -> Image.Image:
    """Attack `count` images spread over a source and return a picture of what happened to them.

    The images are those that generate makes of the same samples with the same options, but for the
    last bits.

    Args:
        session: an open jataug.Session.
        source: what jataug.data.open_source takes, or a source.
        count: how many images; fewer where the source has fewer.
        seed: of the random starts and targets.
        epoch: another epoch draws other starts and targets.
        labels: "source", or "predicted" for the model's own prediction.
        classes: what class folders mean to the model; see generate.
        resize: length of the shorter side, pixels.
        crop: side of the centre crop, or (height, width), pixels.
        title: stands above the picture.

    Raises:
        DataError: the source, an image of it or an option cannot be used.
    """
    check_integer("count", count, 1)
    held = source if isinstance(source, Source) else open_source(source)
    if labels not in ("source", "predicted"):
        raise DataError(f"labels: expected source or predicted, got {labels!r}")
    meaning = class_map(held, session.classes, classes) if labels == "source" else None
    names = (meaning.names if meaning else None) or {}
    geometry, indices = Geometry(resize, crop), _spread(len(held), count)
    images = np.stack(
        [prepare(held.read(i), geometry, session.image_shape, held.where(i)) for i in indices]
    )
    logits = np.asarray(session.predict(images))
    clean = logits.argmax(-1)
    given = clean if meaning is None else np.array([meaning.of(held.label(i)) for i in indices])
    result = session.attack(images, given, np.array(indices), seed=seed, epoch=epoch)
    moved = session.config.flow.radius > 0
    rows = [
        Row(
            clean=images[k],
            adversarial=result.adversarial[k],
            flow=result.flow[k] if moved else None,
            delta=result.delta[k],
            label=names.get(int(given[k]), str(given[k])),
            before=guess(logits[k], int(clean[k]), int(given[k]), names),
            after=guess(result.logits[k], int(result.prediction[k]), int(given[k]), names),
            name=held.key(index),
        )
        for k, index in enumerate(indices)
    ]
    return draw(rows, title)


def guess(logits: Any, predicted: int, label: int, names: Mapping[int, str]) -> Guess:
    """Return what a model says of an image, from its logits (classes,)."""
    finite = np.nan_to_num(np.asarray(logits, np.float64), nan=-1e30, posinf=1e30, neginf=-1e30)
    shares = np.exp(finite - finite.max())
    shares /= shares.sum()
    name = names.get(predicted, str(predicted))
    return Guess(name, float(shares[predicted]), float(shares[label]))


def _spread(length: int, count: int) -> list[int]:
    """Return `count` positions, evenly spread: class folders come one after the other."""
    count = min(length, count)
    return [k * length // count for k in range(count)]
