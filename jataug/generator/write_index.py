"""index.json: what a data set is, written when every shard of it is whole."""

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
from ..dataset.card_samples import Sketch, read_sketches, sketch_name
from ..dataset.counts import Tally
from ..dataset.schema import FORMAT_VERSION, INDEX, KIND, SOURCE, finished, records
from ..drawing.grid import Guess, Row, draw
from ..errors import DataError
from .preview import guess
from .request import Job

__all__ = ["KIND", "write_index"]


def write_index(store: Store, job: Job, known: Mapping[int, dict[str, Any]]) -> None:
    """Write index.json, the last of all files, if every shard is whole.

    It holds no time and no rate: the same plan and build give the same bytes.

    Args:
        store: of the destination.
        job: the checked request.
        known: the markers of shards that this run has made or checked, by number.

    Raises:
        DataError: not one image of the source could be used.
    """
    markers, tally, class_folders = [], Tally(), True
    for shard in job.plan.shards:
        marker = known.get(shard.number) or finished(job.root, shard)
        if marker is None:
            return
        markers.append(marker)
        found = list(records(job.root, shard))
        tally += Tally.of(found)
        class_folders = class_folders and all(row["file"].count("/") == 2 for row in found)
    skipped = [skip for marker in markers for skip in marker["skipped"]]
    if not tally.images:
        raise DataError(
            f"{job.root}: expected at least one image that can be used, "
            f"got none of {len(skipped)}; the first: {skipped[0]['reason']}"
        )
    index = {**_head(job), **_counts(tally, len(skipped)), "skipped": skipped}
    index["environments"] = _unique([marker["environment"] for marker in markers])
    named = ("name", "start", "stop", "count", "files")
    index["shards"] = [{key: marker[key] for key in named} for marker in markers]
    index["card"] = _write_card(store, job, index, class_folders)
    store.remove(SOURCE)
    store.write(INDEX, f"{canonical(index)}\n".encode())


def _write_card(
    store: Store, job: Job, index: Mapping[str, Any], class_folders: bool
) -> dict[str, str]:
    """Write the data card, its picture and the names of classes; return the sha256 of each."""
    files = {}
    if job.names:
        named = {str(number): name for number, name in sorted(job.names.items())}
        listed = json.dumps(named, ensure_ascii=False, indent=1)
        files[CLASSES] = store.write(CLASSES, f"{listed}\n".encode("utf-8", "backslashreplace"))
    else:
        store.remove(CLASSES)
    if (picture := _picture(job, index)) is not None:
        file = io.BytesIO()
        picture.save(file, "PNG")
        files[PICTURE] = store.write(PICTURE, file.getvalue())
    else:
        store.remove(PICTURE)
    text = card(index, picture=picture is not None, class_folders=class_folders)
    files[CARD] = store.write(CARD, text.encode("utf-8", "backslashreplace"))
    return files


def _picture(job: Job, index: Mapping[str, Any]) -> Image.Image | None:
    """Draw the samples that were kept for it; None where there are none that can be drawn."""
    rows: list[Row] = []
    for shard, entry in zip(job.plan.shards, index["shards"], strict=True):
        if (name := sketch_name(shard)) in entry["files"]:
            described = {row["index"]: row for row in records(job.root, shard)}
            sketches = read_sketches(job.root / name)
            rows += (_row(sketch, described[int(sketch.index)], job) for sketch in sketches)
    if not rows or job.plan.image_shape[0] not in (1, 3):
        return None
    return draw(rows)


def _row(sketch: Sketch, record: Mapping[str, Any], job: Job) -> Row:
    names, label = job.names or {}, record["label"]

    def said(logits: NDArray[np.float32], predicted: int | None) -> Guess:
        return guess(logits, int(logits.argmax()) if predicted is None else predicted, label, names)

    return Row(
        clean=sketch.clean,
        adversarial=sketch.adversarial,
        flow=sketch.flow if job.plan.attack["flow"]["radius"] else None,
        delta=sketch.delta,
        label=names.get(label, str(label)),
        before=said(sketch.before, record["clean_prediction"]),
        after=said(sketch.after, record["adversarial_prediction"]),
        name=record["key"],
    )


def _head(job: Job) -> dict[str, Any]:
    plan = job.plan.to_dict()
    return {
        "format_version": FORMAT_VERSION,
        "kind": KIND,
        "format": plan["format"],
        "plan_hash": job.plan.hash,
        "plan": plan,
        "source_path": job.source_path,
        "model": job.model,
        "class_names": {str(k): name for k, name in (job.names or {}).items()} or None,
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
