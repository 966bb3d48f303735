"""One model's attacks over all images, each kept as soon as it is finished."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from ..result import predictions
from ..warp import warp
from .attacks.best_found import Best, View
from .attacks.perturbation import Context
from .attacks.restarts import Attack, run_tries
from .attacks.tries import Rows
from .images import Images
from .models.model import Array, Calls, Model
from .outcome import Measured, Outcome, measure, measured
from .results_folder import Folder

__all__ = ["Clean", "Progress", "Runner"]

_SHOWN = 6
"""Images in the gallery."""

_GATHERED = ("prediction", "loss", "broken", "failed")


@dataclass(frozen=True)
class Progress:
    """How far one part of an evaluation is.

    Attributes:
        part: model and attack.
        done: images finished.
        total: images in all.
        correct: of those done, still classified as their label.
    """

    part: str
    done: int
    total: int
    correct: int


@dataclass(frozen=True, eq=False)
class Clean:
    """The model on the images as they are: label (images,), logits (images, classes), outcome."""

    label: Array
    logits: Array
    outcome: Outcome

    @property
    def right(self) -> Array:
        """Which images are classified as their label: (images,), bool."""
        found: Array = self.outcome.prediction == self.label
        return found


class Runner:
    """Attacks one model.

    Args:
        name: of the model.
        model: what is attacked.
        images: all of them.
        context: norms and seed.
        radii: flow in pixels, pixel in image units.
        batch_size: rows in a call of the model, and images at a time.
        folder: where finished parts are kept.
        place: the model's own folder in there.
        levels: quantise to 8 bits before measuring.
        others: models that see the adversarial images too.
        progress: called when a part begins and after every batch.
    """

    def __init__(
        self,
        name: str,
        model: Model,
        images: Images,
        context: Context,
        radii: tuple[float, float],
        *,
        batch_size: int,
        folder: Folder,
        place: str,
        levels: bool = False,
        others: Sequence[Model] = (),
        progress: Callable[[Progress], object] | None = None,
    ) -> None:
        self.name, self.images, self.context, self.radii = name, images, context, radii
        self.calls = Calls(model, batch_size)
        self.folder, self._place, self.levels = folder, PurePosixPath(place), levels
        self._others = [Calls(other, batch_size) for other in others]
        self._progress = progress
        count = min(_SHOWN, images.count)
        # Spread over the source: class folders come one after the other.
        self.shown = np.array([k * images.count // count for k in range(count)])

    def kept(self, name: str, make: Callable[[], Mapping[str, Array]]) -> Mapping[str, Array]:
        """Return the arrays of a part: those of an earlier run, or new ones, which are kept."""
        path = str(self._place / f"{name.replace(':', '_').replace('=', '-')}.npz")
        found = self.folder.load(path)
        if found is None:
            found = dict(make())
            self.folder.save(path, found)
        return found

    def say(self, part: str, done: int, correct: int) -> None:
        """Report progress."""
        if self._progress is not None:
            self._progress(Progress(f"{self.name} {part}", done, self.images.count, correct))

    def clean(self) -> Clean:
        """Return what the model says without an attack."""
        arrays = self.kept("clean", self._clean)
        label, logits = arrays["label"], arrays["logits"]
        rest = {k: v for k, v in arrays.items() if k not in ("label", "logits")}
        return Clean(label, logits, Outcome.from_arrays(rest))

    def _clean(self) -> dict[str, Array]:
        gathered, logits = _Gathered(self, "clean"), []
        labels = []
        for where, images in self.images.batches(self.calls.batch_size):
            said = self.calls.logits(images)
            label = said.argmax(1) if self.images.labels is None else self.images.labels[where]
            rows = Rows.first_tries(images, label, self.images.indices[where], 0.0, 0.0)
            failed = predictions(said) < 0
            found = measured(rows, View(images), said, failed)
            gathered.add(where, rows, found, self.others(images), np.ones(len(rows), bool))
            logits.append(said)
            labels.append(label)
        arrays = gathered.outcome().arrays()
        return {"label": np.concatenate(labels), "logits": np.concatenate(logits), **arrays}

    def attack(
        self, name: str, attack: Attack, clean: Clean, radii: tuple[float, float] | None = None
    ) -> Outcome:
        """Return what an attack does at the radii of the evaluation, or at others."""
        make = partial(self._attack, name, attack, clean, radii or self.radii)
        return Outcome.from_arrays(self.kept(name, lambda: make().arrays()))

    def _attack(
        self, name: str, attack: Attack, clean: Clean, radii: tuple[float, float]
    ) -> Outcome:
        gathered = _Gathered(self, name)
        for where, images in self.images.batches(self.calls.batch_size):
            rows = Rows.first_tries(images, clean.label[where], self.images.indices[where], *radii)
            right = clean.right[where]
            part = np.flatnonzero(right)
            found = Best(rows.take(part))  # an image that is wrong already stays as it is
            if len(part):
                logits = clean.logits[where][part]
                found = run_tries(attack, self.calls, rows.take(part), logits, self.context)
            view = _whole(rows, part, found.view)
            said = measure(self.calls, rows, view, self.levels)
            others = self.others(said.view.image)
            for key, before in clean.outcome.transfer.items():
                # Not finite is no success against another model either.
                others[key] = np.where(others[key] < 0, before[where], others[key])
            composition = getattr(attack, "composition", None)
            gathered.add(where, rows, said, others, right, composition)
        return gathered.outcome()

    def others(self, images: Array) -> dict[str, Array]:
        """Return the predictions of the other models, by position; -1 where there is none."""
        return {str(k): predictions(calls.logits(images)) for k, calls in enumerate(self._others)}


def _whole(rows: Rows, part: Array, found: View) -> View:
    """Return a view of all rows; those that were not attacked show the clean image."""
    image, delta = rows.image.copy(), np.zeros_like(rows.image)
    count, _, height, width = rows.image.shape
    flow = np.zeros((count, 2, height, width), np.float32)
    image[part], flow[part], delta[part] = found.image, found.flow, found.delta
    return View(image, flow, delta)


class _Gathered:
    """The outcome of one attack, batch by batch."""

    def __init__(self, runner: Runner, part: str) -> None:
        self._runner, self._part, self._began = runner, part, time.monotonic()
        self._start = runner.calls.forwards, runner.calls.gradients
        self._fields: dict[str, list[Array]] = {name: [] for name in _GATHERED}
        self._gallery: dict[str, list[Array]] = {}
        self._transfer: dict[str, list[Array]] = {}
        self._largest = {"delta": 0.0, "flow": 0.0}
        self._done = self._correct = 0
        runner.say(part, 0, 0)  # the first batch may take minutes

    def add(
        self,
        where: slice,
        rows: Rows,
        measured: Measured,
        others: Mapping[str, Array],
        attacked: Array,
        composition: str | None = None,
    ) -> None:
        """Take one batch."""
        for name in _GATHERED:
            self._fields[name].append(getattr(measured, name))
        for name, values in others.items():
            self._transfer.setdefault(name, []).append(values)
        self._measure(rows, measured.view, attacked, composition)
        shown = self._runner.shown
        self._show(shown[(shown >= where.start) & (shown < where.stop)] - where.start, measured)
        self._done += len(rows)
        self._correct += int((measured.prediction == rows.label).sum())
        self._runner.say(self._part, self._done, self._correct)

    def _measure(self, rows: Rows, view: View, attacked: Array, composition: str | None) -> None:
        if composition is None or not attacked.any():
            return
        delta, flow = changes(rows.take(attacked), view.take(attacked), composition)
        self._largest["delta"] = max(self._largest["delta"], delta)
        self._largest["flow"] = max(self._largest["flow"], flow)

    def _show(self, places: Array, measured: Measured) -> None:
        for name, values in (
            ("image", measured.view.image), ("flow", measured.view.flow),
            ("delta", measured.view.delta), ("logits", measured.logits),
        ):  # fmt: skip
            if values is not None:
                self._gallery.setdefault(name, []).append(values[places])

    def outcome(self) -> Outcome:
        """Return everything that was added."""
        calls = self._runner.calls
        joined: dict[str, Any] = {k: np.concatenate(v) for k, v in self._fields.items()}
        return Outcome(
            **joined,
            seconds=time.monotonic() - self._began,
            forwards=calls.forwards - self._start[0],
            gradients=calls.gradients - self._start[1],
            largest_delta=self._largest["delta"],
            longest_flow=self._largest["flow"],
            gallery={k: np.concatenate(v) for k, v in self._gallery.items()},
            transfer={k: np.concatenate(v) for k, v in self._transfer.items()},
        )


def changes(rows: Rows, view: View, composition: str) -> tuple[float, float]:
    """Return the largest perturbation and the longest flow of a view, measured in float64."""
    image, adversarial = rows.image.astype(np.float64), view.image.astype(np.float64)
    flow = np.zeros((0, 2, 1, 1)) if view.flow is None else view.flow.astype(np.float64)
    longest = float(np.hypot(flow[:, 0], flow[:, 1]).max(initial=0))
    if composition == "pixel-spatial" and view.delta is not None:
        return float(np.abs(view.delta.astype(np.float64)).max(initial=0)), longest
    ground = image if view.flow is None else warp(image, flow)
    return float(np.abs(adversarial - ground).max(initial=0)), longest
