"""Writes index.json and the data card of a data set, once every shard is complete."""

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..atomic import Store
from ..checks import canonical
from ..dataset.card import CARD, CLASSES, PICTURE, card
from ..dataset.card_samples import CardSample, card_sample_name, read_card_samples
from ..dataset.counts import Tally
from ..dataset.schema import FORMAT_VERSION, INDEX, KIND, SOURCE, finished, records
from ..drawing.grid import Guess, Row, draw
from ..errors import DataError
from .preview import guess
from .request import Request

__all__ = ["KIND", "write_index"]


def write_index(store: Store, request: Request, known: Mapping[int, dict[str, Any]]) -> None:
    """Write index.json, the last of all files, if every shard is complete.

    The index holds no time and no rate, so that the same plan and build give the same bytes.

    Args:
        store: the writer of files in the destination.
        request: the checked request.
        known: markers of the shards that this run made or checked, by number.

    Raises:
        DataError: no image of the source could be used.
    """
    markers, tally, class_folders = [], Tally(), True
    for shard in request.plan.shards:
        marker = known.get(shard.number) or finished(request.root, shard)
        if marker is None:
            return
        markers.append(marker)
        found = list(records(request.root, shard))
        tally += Tally.of(found)
        class_folders = class_folders and all(row["file"].count("/") == 2 for row in found)
    skipped = [skip for marker in markers for skip in marker["skipped"]]
    if not tally.images:
        raise DataError(
            f"{request.root}: expected at least one image that can be used, "
            f"got none of {len(skipped)}; the first: {skipped[0]['reason']}"
        )
    index = {**_head(request), **_counts(tally, len(skipped)), "skipped": skipped}
    index["environments"] = _unique([marker["environment"] for marker in markers])
    named = ("name", "start", "stop", "count", "files")
    index["shards"] = [{key: marker[key] for key in named} for marker in markers]
    index["card"] = _write_card(store, request, index, class_folders)
    store.remove(SOURCE)
    store.write(INDEX, f"{canonical(index)}\n".encode())


def _write_card(
    store: Store, request: Request, index: Mapping[str, Any], class_folders: bool
) -> dict[str, str]:
    """Write the data card, its picture and the names of classes; return the sha256 of each."""
    files = {}
    if request.names:
        named = {str(number): name for number, name in sorted(request.names.items())}
        listed = json.dumps(named, ensure_ascii=False, indent=1)
        files[CLASSES] = store.write(CLASSES, f"{listed}\n".encode("utf-8", "backslashreplace"))
    else:
        store.remove(CLASSES)
    if (picture := _picture(request, index)) is not None:
        file = io.BytesIO()
        picture.save(file, "PNG")
        files[PICTURE] = store.write(PICTURE, file.getvalue())
    else:
        store.remove(PICTURE)
    text = card(index, picture=picture is not None, class_folders=class_folders)
    files[CARD] = store.write(CARD, text.encode("utf-8", "backslashreplace"))
    return files


def _picture(request: Request, index: Mapping[str, Any]) -> Image.Image | None:
    """Return the picture of the card, or None if there are no samples that can be drawn."""
    rows: list[Row] = []
    for shard, entry in zip(request.plan.shards, index["shards"], strict=True):
        if (name := card_sample_name(shard)) in entry["files"]:
            described = {row["index"]: row for row in records(request.root, shard)}
            card_samples = read_card_samples(request.root / name)
            rows += (_row(sample, described[int(sample.index)], request) for sample in card_samples)
    if not rows or request.plan.image_shape[0] not in (1, 3):
        return None
    return draw(rows)


def _row(sample: CardSample, record: Mapping[str, Any], request: Request) -> Row:
    names, label = request.names or {}, record["label"]

    def guess_of(logits: NDArray[np.float32], predicted: int | None) -> Guess:
        return guess(logits, int(logits.argmax()) if predicted is None else predicted, label, names)

    return Row(
        clean=sample.clean,
        adversarial=sample.adversarial,
        flow=sample.flow if request.plan.attack["flow"]["radius"] else None,
        delta=sample.delta,
        label=names.get(label, str(label)),
        before=guess_of(sample.before, record["clean_prediction"]),
        after=guess_of(sample.after, record["adversarial_prediction"]),
        name=record["key"],
    )


def _head(request: Request) -> dict[str, Any]:
    plan = request.plan.to_dict()
    return {
        "format_version": FORMAT_VERSION,
        "kind": KIND,
        "format": plan["format"],
        "plan_hash": request.plan.hash,
        "plan": plan,
        "source_path": request.source_path,
        "model": request.model,
        "class_names": {str(k): name for k, name in (request.names or {}).items()} or None,
    }


def _counts(tally: Tally, skipped: int) -> dict[str, Any]:
    return {
        "counts": {
            "images": tally.images,
            "skipped": skipped,
            "failed": tally.failed,
            "clean_correct": tally.clean_correct,
            "adversarial_correct": tally.adversarial_correct,
        },
        "clean_accuracy": tally.clean_accuracy,
        "adversarial_accuracy": tally.adversarial_accuracy,
    }


def _unique(values: list[Any]) -> list[Any]:
    return [value for k, value in enumerate(values) if value not in values[:k]]
