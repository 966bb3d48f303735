"""What a source's labels mean to the model: never guessed where the numbers do not match."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .source import Source

__all__ = ["ClassMap", "Classes", "class_map", "source_labels"]

Classes = str | PathLike[str] | Mapping[str, int] | None
"""A file (text: line k names class k; JSON: {name: k}), the mapping itself, or None."""


@dataclass(frozen=True)
class ClassMap:
    """How the labels of a source become the classes of a model.

    Attributes:
        labels: the model's class of each label of the source, or None where they are the same.
        names: a name for each class of the model, or None where it is not known; the classes
            without one are missing.
        given: the model's class of each name, where the user said so.
    """

    labels: tuple[int, ...] | None
    names: Mapping[int, str] | None
    given: Mapping[str, int] | None = None

    def of(self, label: int | None) -> int | None:
        """Return the model's class of a label of the source."""
        return label if label is None or self.labels is None else self.labels[label]


def class_map(source: Source, count: int, classes: Classes = None) -> ClassMap:
    """Return how the labels of `source` become the `count` classes of a model.

    Args:
        source: a labelled source.
        count: the number of classes of the model.
        classes: what the names of the source mean, where its class folders are not simply the
            model's classes in order.

    Raises:
        DataError: the source has no labels, or its class folders are not the model's classes.
    """
    if not source.labelled:
        raise DataError(
            "labels: expected a source with labels, got images alone; use --labels predicted "
            "(labels='predicted') for the model's own prediction"
        )
    if classes is None:
        return _in_order(source, count)
    numbers = _read(classes, count)
    names = {number: name for name, number in reversed(numbers.items())}
    if source.classes is None:
        return ClassMap(None, names, numbers)
    if unknown := [name for name in source.classes if name not in numbers]:
        raise DataError(
            f"classes: expected every class folder to be named, got nothing for {unknown[0]!r}"
            + (f" and {len(unknown) - 1} more" if len(unknown) > 1 else "")
        )
    return ClassMap(tuple(numbers[name] for name in source.classes), names, numbers)


def source_labels(source: Source, classes: ClassMap, count: int) -> NDArray[np.int64]:
    """Return the label of every sample in the model's numbering: (N,), int64.

    Raises:
        DataError: a label is outside [0, count); the message names the sample.
    """
    labels = np.empty(len(source), np.int64)
    for index in range(len(source)):
        label = classes.of(source.label(index))
        if label is None or not 0 <= label < count:
            raise DataError(f"{source.where(index)}: expected a label in [0, {count}), got {label}")
        labels[index] = label
    return labels


def _in_order(source: Source, count: int) -> ClassMap:
    if source.classes is None:
        return ClassMap(None, None)
    if len(source.classes) != count:
        kind = "class folders" if source.keys_are_paths else "class names"
        raise DataError(
            f"classes: expected {count} {kind}, one a class of the model, "
            f"got {len(source.classes)}; use --classes FILE to say which is which, "
            "or --labels predicted"
        )
    return ClassMap(None, dict(enumerate(source.classes)))


def _read(classes: str | PathLike[str] | Mapping[str, int], count: int) -> dict[str, int]:
    if isinstance(classes, Mapping):
        return _checked(dict(classes), count, "classes")
    try:
        text = Path(classes).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{classes}: expected a readable text file: {error}") from None
    if text.lstrip().startswith("{"):
        return _checked(_json(text, str(classes)), count, str(classes))
    lines = [line.strip() for line in text.rstrip().splitlines()]
    if len(lines) != count:
        raise DataError(f"{classes}: expected {count} lines, one a class, got {len(lines)}")
    if repeated := sorted({name for name in lines if lines.count(name) > 1}):
        raise DataError(f"{classes}: expected each class once, got {repeated[0]!r} twice")
    return {name: number for number, name in enumerate(lines)}


def _json(text: str, where: str) -> dict[str, int]:
    try:
        value: dict[str, int] = json.loads(text)
    except ValueError as error:
        raise DataError(f"{where}: expected JSON {{name: class}}: {error}") from None
    return value


def _checked(numbers: dict[str, int], count: int, where: str) -> dict[str, int]:
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < count:
            raise DataError(f"{where}: expected {name!r} in [0, {count}), got {number!r}")
    return numbers
