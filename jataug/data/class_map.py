"""Maps the labels of a source to the model's classes, and raises an error rather than guess."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..checks import check_integer
from ..errors import DataError
from .source import Source

__all__ = [
    "ClassMap",
    "ClassOrder",
    "Classes",
    "class_map",
    "first_classes",
    "read_classes",
    "source_labels",
]

Classes = str | PathLike[str] | Mapping[str, int] | None
"""A file (text: line k names class k; JSON: {name: k}, or {k: name} as in a data set's
classes.json), the mapping itself, or None.
"""

ClassOrder = Literal["natural", "sorted"]
"""How class folders are numbered: 1, 2, 10; or 1, 10, 2 as torchvision, Keras and Hugging Face do.
"""

_SHOWN = 5
"""Largest number of classes that a line names."""


@dataclass(frozen=True)
class ClassMap:
    """How the labels of a source become the classes of a model.

    Attributes:
        labels: the model's class of each label of the source, or None where they are the same.
        names: a name for each class of the model, or None where it is not known; the classes
            without one are missing.
        given: the model's class of each name, where it is not the natural order of class folders.
    """

    labels: tuple[int, ...] | None
    names: Mapping[int, str] | None
    given: Mapping[str, int] | None = None

    def of(self, label: int | None) -> int | None:
        """Return the model's class of a label of the source; None for no label.

        Raises:
            DataError: the source has no name for the label.
        """
        if label is None or self.labels is None:
            return label
        if not 0 <= label < len(self.labels):
            raise DataError(
                f"expected a label in [0, {len(self.labels)}), one of the source's class names, "
                f"got {label}"
            )
        return self.labels[label]


def class_map(
    source: Source, count: int | None, classes: Classes = None, order: ClassOrder | None = None
) -> ClassMap:
    """Return how the labels of `source` become the `count` classes of a model.

    Args:
        source: a labelled source.
        count: the number of classes of the model; None where it is not known yet.
        classes: what the names of the source mean, where its class folders are not simply the
            model's classes in order.
        order: of class folders, where natural and sorted order differ and `classes` is None.

    Raises:
        DataError: the source has no labels, its class folders are not the model's classes, or
            their order has to be said.
    """
    if order is not None:
        _check_order(source, classes, order)
    if not source.labelled:
        raise DataError(
            "labels: expected a source with labels, got images alone; use --labels predicted "
            "(labels='predicted') for the model's own prediction"
        )
    if classes is None:
        return _in_order(source, count, order)
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


def read_classes(classes: str | PathLike[str] | Mapping[str, int]) -> dict[str, int]:
    """Return the class of each name, of a file or of the mapping itself.

    Raises:
        DataError: the file cannot be read, or names a class twice; a class is no integer >= 0.
    """
    return _read(classes, None)


def source_labels(
    source: Source, classes: ClassMap, count: int, indices: Iterable[int] | None = None
) -> NDArray[np.int64]:
    """Return the label of every sample, or of those at `indices`, in the model's numbering: (N,),
    int64.

    Raises:
        DataError: a sample has no label, or one outside [0, count); the message names it.
    """
    return np.array(
        [
            _source_label(source, classes, count, index)
            for index in (range(len(source)) if indices is None else indices)
        ],
        np.int64,
    )


def _source_label(source: Source, classes: ClassMap, count: int, index: int) -> int:
    stored = source.label(index)
    if stored is None:
        raise DataError(
            f"{source.where(index)}: has no label (it is missing, null or -1); leave such samples "
            "out of the source, or use --labels predicted (labels='predicted')"
        )
    try:
        label = classes.of(stored)
    except DataError as error:
        raise DataError(f"{source.where(index)}: {error}") from None
    if label is None or not 0 <= label < count:
        raise DataError(f"{source.where(index)}: expected a label in [0, {count}), got {label}")
    return label


def first_classes(names: Mapping[int, str] | None) -> str:
    """Return the first classes with their numbers, for people; "" where no name is known:
    "classes: 0 cat, 1 dog, 2 horse, 3 newt, 4 owl, ... (1000)".
    """
    if not names:
        return ""
    listed = sorted(names.items())
    more = f", ... ({len(listed)})" if len(listed) > _SHOWN else ""
    return f"classes: {_listed(listed[:_SHOWN])}{more}"


def _listed(pairs: Iterable[tuple[int, str]]) -> str:
    # A name on the disk may hold a line break, or bytes that are no text.
    texts = (f"{number} {json.dumps(name, ensure_ascii=False)[1:-1]}" for number, name in pairs)
    return ", ".join(texts).encode("utf-8", "backslashreplace").decode()


def _check_order(source: Source, classes: Classes, order: Any) -> None:
    if order not in get_args(ClassOrder):
        raise DataError(f"class_order: expected natural or sorted, got {order!r}")
    if classes is not None:
        raise DataError(
            "class_order: has no effect together with classes; give either --classes or "
            "--class-order"
        )
    if not source.class_folders:
        raise DataError(
            "class_order: expected a source of class folders, got one that numbers its labels "
            "itself; leave out --class-order"
        )


def _in_order(source: Source, count: int | None, order: ClassOrder | None) -> ClassMap:
    if source.classes is None:
        return ClassMap(None, None)
    if count is not None and len(source.classes) != count:
        kind = "class folders" if source.keys_are_paths else "class names"
        raise DataError(
            f"classes: expected {count} {kind}, one a class of the model, "
            f"got {len(source.classes)}; use --classes FILE to say which is which, "
            "or --labels predicted"
        )
    natural, plain = list(source.classes), sorted(source.classes)
    if order is None and source.class_folders and natural != plain:
        raise DataError(
            f"classes: {_two_orders(natural, plain)}; give --class-order sorted (class_order="
            "'sorted') for a model trained with torchvision's ImageFolder, Keras or Hugging Face, "
            "--class-order natural where the numbers in the names count the classes, or --classes "
            "FILE"
        )
    if order != "sorted" or natural == plain:
        return ClassMap(None, dict(enumerate(natural)))
    numbers = {name: number for number, name in enumerate(plain)}
    return ClassMap(tuple(numbers[name] for name in natural), dict(enumerate(plain)), numbers)


def _two_orders(natural: Sequence[str], plain: Sequence[str]) -> str:
    """Describe how two orders number class folders, from the last number before they differ."""
    first = next(k for k in range(len(natural)) if natural[k] != plain[k])
    span = slice(max(0, first - 1), first + 2)
    shown = (_listed(list(enumerate(names))[span]) for names in (natural, plain))
    return "natural order numbers the class folders {}, sorted order {}".format(*shown)


def _read(classes: str | PathLike[str] | Mapping[str, int], count: int | None) -> dict[str, int]:
    if isinstance(classes, Mapping):
        return _checked(dict(classes), count, "classes")
    try:
        text = Path(classes).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{classes}: cannot be read as a text file: {error}") from None
    if text.lstrip().startswith("{"):
        return _checked(_json(text, str(classes)), count, str(classes))
    lines = [line.strip() for line in text.rstrip().splitlines()]
    if count is not None and len(lines) != count:
        raise DataError(f"{classes}: expected {count} lines, one a class, got {len(lines)}")
    if repeated := sorted({name for name in lines if lines.count(name) > 1}):
        raise DataError(f"{classes}: expected each class once, got {repeated[0]!r} twice")
    return {name: number for number, name in enumerate(lines)}


def _json(text: str, where: str) -> dict[str, int]:
    try:
        value: dict[str, Any] = json.loads(text, object_pairs_hook=_once)
        if all(key.isdecimal() and isinstance(name, str) for key, name in value.items()):
            numbers = {name: int(number) for number, name in value.items()}
            if len(numbers) != len(value):
                raise ValueError("a name stands there twice")
            return numbers
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{where}: expected JSON {{name: class}} or {{class: name}}: {error}"
        ) from None
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{repeated[0]!r} is there twice")
    return dict(pairs)


def _checked(numbers: dict[str, int], count: int | None, where: str) -> dict[str, int]:
    most = 2**31 - 1 if count is None else count - 1
    for name, number in numbers.items():
        check_integer(f"{where}: {name!r}", number, 0, most)
    return numbers
