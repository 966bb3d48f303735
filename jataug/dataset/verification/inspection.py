"""One pass over a data set, batch by batch: the memory holds one batch, and the names."""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from os import cpu_count
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ..counts import Progress, Tally
from ..open import StoredShard
from .budget_checks import BudgetCheck, Pairs
from .comparison import Original, Prediction
from .file_checks import (
    content_problems,
    extra_files,
    file_problems,
    index_problems,
    record_problems,
    tally_problems,
)

__all__ = ["Inspection"]

Array = NDArray[Any]


class Inspection:
    """What verify has found so far.

    Args:
        root: the data set.
        index: the content of its index.json.
        original: what the images were made from, or None.
        prediction: of a model, or None.
        budgets: what the images have to keep.

    Attributes:
        problems: one line each.
        tally: counts of the records that were read.
    """

    def __init__(
        self,
        root: Path,
        index: Mapping[str, Any],
        original: Original | None,
        prediction: Prediction | None,
        budgets: BudgetCheck,
    ) -> None:
        self._root, self._index = root, index
        self._original, self._prediction, self._budgets = original, prediction, budgets
        self._skipped = {skip["index"] for skip in index["skipped"]}
        self._known: set[str] = set()
        self.problems: list[str] = []
        self.tally = Tally()

    def run(self, progress: Callable[[Progress], object] | None) -> None:
        """Check everything."""
        self.problems += index_problems(self._root, self._index)
        with ThreadPoolExecutor(min(8, cpu_count() or 1), "jataug-verify") as self._pool:
            readable = [self._shard(entry, progress) for entry in self._index["shards"]]
        if all(readable):
            self.problems += extra_files(self._root, self._known)
            self.problems += tally_problems(self._index, self.tally)

    def _shard(
        self, entry: Mapping[str, Any], progress: Callable[[Progress], object] | None
    ) -> bool:
        """Check a shard; whether its records could be read."""
        self._known |= {*entry["files"], f"records/{entry['name']}.json"}
        self.problems += file_problems(self._root, entry)
        try:
            shard = StoredShard(self._root, entry, self._index["plan"]["format"])
            found = [*record_problems(shard, entry, self._skipped)]
            found = found or [*content_problems(shard)]
        except DataError as error:
            found = [str(error)]
        self.problems += found
        if found:
            return False
        self._known |= {record["file"] for record in shard.records}
        size, count = self._index["plan"]["batch_size"], len(shard.records)
        for start in range(0, count, size):
            rows = range(start, min(start + size, count))
            self._batch(shard, rows)
            self.tally += Tally.of(shard.records[start : rows.stop])
            self._tell(progress)
        return True

    def _tell(self, progress: Callable[[Progress], object] | None) -> None:
        if progress:
            correct = self._prediction.correct if self._prediction else 0
            total = self._index["counts"]["images"]
            progress(Progress(self.tally.images, total, adversarial_correct=correct))

    def _batch(self, shard: StoredShard, rows: Iterable[int]) -> None:
        images = self._readable(shard, rows, lambda row: self._stored(shard, row))
        if self._prediction is not None and images:
            kept = list(images)
            found = self._prediction.check(
                np.stack(list(images.values())), [shard.records[row] for row in kept]
            )
            self._note(shard, ((kept[place], text) for place, text in found))
        clean: dict[int, Array] = {}
        if (original := self._original) is not None:
            clean = self._readable(
                shard,
                list(images),
                lambda row: original.image(shard.records[row]),
                threads=original.random_access,
            )
        self._check_budgets(shard, images, clean)

    def _check_budgets(
        self, shard: StoredShard, images: Mapping[int, Array], clean: Mapping[int, Array]
    ) -> None:
        plan, kept = self._index["plan"], list(images if self._original is None else clean)
        sides: dict[str, dict[int, Array]] = {}
        for name in ("flow", "float"):
            if plan[f"save_{name}"]:
                sides[name] = self._readable(shard, kept, partial(self._side, shard, name))
                kept = list(sides[name])
        if not kept:
            return
        flow, exact = (_rows(sides.get(name), kept) for name in ("flow", "float"))
        source = None if self._original is None else _rows(clean, kept)
        stored = np.stack([images[row] for row in kept])
        found = self._budgets.check(Pairs(stored, source, flow, exact))
        self._note(shard, ((kept[place], text) for place, text in found))

    def _stored(self, shard: StoredShard, row: int) -> Array:
        image = shard.checked(row)
        channel, height, width = self._index["plan"]["image_shape"]
        if image.shape != (height, width, channel):
            raise DataError(f"expected the shape {(height, width, channel)}, got {image.shape}")
        return image

    def _side(self, shard: StoredShard, name: Literal["flow", "float"], row: int) -> Array:
        channel, height, width = self._index["plan"]["image_shape"]
        wanted = (2 if name == "flow" else channel, height, width)
        array = shard.side(row, name)
        if array is None or array.shape != wanted:
            held = "none" if array is None else array.shape
            raise DataError(f"expected a {name} of the shape {wanted}, got {held}")
        return array

    def _readable(
        self,
        shard: StoredShard,
        rows: Iterable[int],
        read: Callable[[int], Array],
        *,
        threads: bool = True,
    ) -> dict[int, Array]:
        """Return the images that can be read, by row; note why the others cannot."""

        def attempt(row: int) -> Array | DataError:
            try:
                return read(row)
            except DataError as error:
                return error

        found = dict(zip(rows, (self._pool.map if threads else map)(attempt, rows), strict=True))
        wrong = {row: str(value) for row, value in found.items() if isinstance(value, DataError)}
        self._note(shard, wrong.items())
        return {row: value for row, value in found.items() if not isinstance(value, DataError)}

    def _note(self, shard: StoredShard, found: Iterable[tuple[int, str]]) -> None:
        self.problems += (
            f"{shard.name} {shard.records[row]['key']}: {text}" for row, text in found
        )


def _rows(arrays: Mapping[int, Array] | None, rows: Iterable[int]) -> Array | None:
    return None if arrays is None else np.stack([arrays[row] for row in rows])
