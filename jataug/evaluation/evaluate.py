"""How robust a model is: attacks, curves, sanity checks, and the report that says so."""

import json
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..budget import FlowBudget, PixelBudget
from ..checks import check_integer
from ..data import ClassOrder, Geometry, Source, check_outside, open_source
from ..data.class_map import Classes
from ..data.skip import OnError
from ..errors import BudgetError, DataError
from ..preprocessing import Preprocessing
from .attacks.suite import SUITES, Suite, attacks_of
from .images import Images, open_images
from .model_report import Assessment
from .models.named import Subject, default_batch_size, open_subjects
from .report.contents import FORMAT_VERSION, Report
from .results_folder import Folder
from .runner import Progress, Runner
from .settings import Settings

__all__ = ["REPORT", "evaluate"]

REPORT = "report.json"


def evaluate(
    model: Any,
    source: str | PathLike[str] | Source,
    output: str | PathLike[str] | None = None,
    *,
    attacks: Sequence[str] | None = None,
    suite: Suite = "quick",
    flow: float | str | FlowBudget = 0.3,
    pixel: float | str | PixelBudget = "8/255",
    transfer: Sequence[Any] = (),
    curves: bool = True,
    sanity: bool = True,
    measured: Literal["float", "uint8"] = "float",
    seed: int = 0,
    limit: int | None = None,
    batch_size: int | None = None,
    labels: Literal["source", "predicted"] = "source",
    classes: Classes = None,
    class_order: ClassOrder | None = None,
    resize: int | None = None,
    crop: int | tuple[int, int] | None = None,
    preprocessing: Preprocessing | None = None,
    size: tuple[int, int] | None = None,
    device: str = "auto",
    threads: int | None = None,
    tf32: bool = False,
    names: Sequence[str] | None = None,
    identity: str | None = None,
    command: str | None = None,
    on_error: OnError = "stop",
    progress: Callable[[Progress], object] | None = None,
) -> Report:
    """Attack one or more models on the same images and return what was found.

    With `output`, every attack is kept as soon as it is finished, report.json and the galleries'
    arrays are written at the end, and the same call goes on where it was stopped.

    Args:
        model: an .onnx file, a ModelProto, a torch module of images in [0, 1], an object with the
            methods of evaluation.model.Model; or a list of these.
        source: what jataug.data.open_source takes, or a source.
        output: a new or empty folder, or one where the same evaluation was begun; None keeps
            nothing.
        attacks: names from evaluation.suite.ATTACKS, with options where wanted
            ("pgd:steps=50:restarts=3"); default those of the suite.
        suite: "quick", or "strong": all attacks, with more steps, restarts and targets.
        flow: pixels, or a budget with its norm.
        pixel: image units, or a budget; its norm is linf.
        transfer: models that see the adversarial images too, and whose own are tried on `model`.
        curves: measure accuracy against the radii, and every image's smallest radius.
        sanity: check for masked gradients.
        measured: "float" measures the images as found; "uint8" quantises them first.
        seed: of all random draws.
        limit: use the first `limit` images.
        batch_size: rows in a call of a model; default by the size of the images.
        labels: "source", or "predicted" for each model's own prediction.
        classes: what class folders mean to the model; see generate.
        class_order: how class folders are numbered; see generate.
        resize: length of the shorter side, pixels.
        crop: side of the centre crop, or (height, width), pixels.
        preprocessing: what the ONNX models want done to images in [0, 1].
        size: (height, width) for models that leave them open.
        device: for ONNX models: "auto", "cpu", "cuda" or "cuda:<i>".
        threads: of the runtime, for ONNX models; default its own choice.
        tf32: let CUDA round products to TF32, of ONNX models alone: another evaluation.
        names: one a model; default the file's stem.
        identity: a string that you change whenever code changes that decides the figures: that of
            models which are no .onnx files, of attacks and of derivative rules of your own. Without
            it, an evaluation that depends on such code is not resumed.
        command: what was typed, for the report.
        on_error: "stop" at an image that cannot be used, or "skip" it: the report names it, and the
            figures of the other images do not change.
        progress: called when a part begins and after every batch.

    Raises:
        DataError: the source, its labels, the folder or an option cannot be used.
        BudgetError: a radius, an attack or an option of it is unknown or outside its domain.
        ModelError: a model cannot be used, or the models differ in images or classes.
        MissingExtra: a package that an attack or a model needs is not installed.
        RuntimeUnavailable: the device is not there, or has no TF32.
    """
    settings = Settings(
        attacks=attacks_of(_names(suite, attacks), suite),
        suite=suite,
        flow=flow if isinstance(flow, FlowBudget) else FlowBudget(flow),
        pixel=pixel if isinstance(pixel, PixelBudget) else PixelBudget(pixel),
        seed=seed,
        measured=measured,
        curves=curves,
        sanity=sanity,
        tf32=tf32,
    )
    if threads is not None:
        check_integer("threads", threads, 1)
    if identity is not None and not (isinstance(identity, str) and identity):
        raise DataError(f"identity: expected a string that is not empty, got {identity!r}")
    held = source if isinstance(source, Source) else open_source(source)
    models = list(model) if isinstance(model, list | tuple) else [model]
    if not models:
        raise DataError("model: expected at least one, got none")
    subjects = open_subjects(
        [*models, *transfer],
        held,
        Geometry(resize, crop),
        preprocessing=preprocessing,
        size=size,
        device=device,
        threads=threads,
        tf32=tf32,
        batch_size=batch_size,
        on_error=on_error,
        names=None if names is None else [*names, *(f"transfer-{k}" for k in range(len(transfer)))],
    )
    first = subjects[0].model
    images = open_images(
        held,
        first.image_shape,
        first.classes,
        labels=labels,
        classes=classes,
        class_order=class_order,
        resize=resize,
        crop=crop,
        limit=limit,
        on_error=on_error,
    )
    rows = default_batch_size(first.image_shape) if batch_size is None else batch_size
    root = None if output is None else Path(output)
    evaluation = _Evaluation(
        subjects, len(models), images, settings, rows, root, identity, progress
    )
    return evaluation.report(command)


def _check_flow(flow: FlowBudget, shape: tuple[int, int, int]) -> None:
    if flow.radius > max(shape[1:]):
        raise BudgetError(
            f"flow radius: expected at most {max(shape[1:])} pixels for images of {shape[1]} x "
            f"{shape[2]}, got {flow.radius:g}"
        )


def _names(suite: str, attacks: Sequence[str] | None) -> Sequence[str]:
    if suite not in SUITES:
        raise DataError(f"suite: expected one of {', '.join(SUITES)}, got {suite!r}")
    return SUITES[suite] if attacks is None else attacks  # type: ignore[index]


class _Evaluation:
    """All models, their images, and the folder.

    Args:
        subjects: the models under evaluation, then those for transfer alone.
        count: of the former.
    """

    def __init__(
        self,
        subjects: Sequence[Subject],
        count: int,
        images: Images,
        settings: Settings,
        batch_size: int,
        root: Path | None,
        identity: str | None,
        progress: Callable[[Progress], object] | None,
    ) -> None:
        check_integer("batch_size", batch_size, 1)
        _check_flow(settings.flow, subjects[0].model.image_shape)
        self._subjects, self._count, self._images = list(subjects), count, images
        self._settings, self._batch_size, self._progress = settings, batch_size, progress
        _check_alike(subjects)
        if root is not None:
            check_outside(root, images.source)
        code = _own_code(subjects, settings) if identity is None else None
        self._folder = Folder(root, {**self._plan(), "identity": identity}, code)

    def _plan(self) -> dict[str, Any]:
        from .. import __version__

        images = self._images
        return {
            "format_version": FORMAT_VERSION,
            "jataug": __version__,
            "models": [s.planned() for s in self._subjects[: self._count]],
            "transfer": [s.planned() for s in self._subjects[self._count :]],
            "settings": self._settings.to_dict(),
            "batch_size": self._batch_size,
            "source": {k: v for k, v in images.described.items() if k not in ("path", "skipped")},
            "images": images.count,
            "skipped": [skip.index for skip in images.skipped],
            "resize": images.geometry.resize,
            "crop": images.geometry.crop,
            "labels": None if images.labels is None else [int(v) for v in images.labels],
        }

    def report(self, command: str | None) -> Report:
        """Measure what is not there yet, and write the report."""
        assessed = [self._assessment(k) for k in range(len(self._subjects))]
        found = [
            one.report(f"gallery-{k}.npz", {o.subject.name: o for o in assessed if o is not one})
            for k, one in enumerate(assessed[: self._count])
        ]
        report = self._record(command, found)
        text = json.dumps(report.to_dict(), indent=1, allow_nan=False)
        self._folder.write(REPORT, f"{text}\n".encode())
        return report

    def _assessment(self, k: int) -> Assessment:
        others = [s for s in self._subjects if s is not self._subjects[k]]
        settings, subject = self._settings, self._subjects[k]
        runner = Runner(
            subject.name,
            subject.model,
            self._images,
            settings.context,
            settings.radii,
            batch_size=self._batch_size,
            folder=self._folder,
            place=f"attacks/{k}",
            levels=settings.measured == "uint8",
            others=[s.model for s in others],
            progress=self._progress,
        )
        return Assessment(subject, runner, settings, others)

    def _record(self, command: str | None, models: Sequence[Any]) -> Report:
        from .. import __version__

        images, chosen = self._images, self._settings
        names = images.names
        return Report(
            format_version=FORMAT_VERSION,
            jataug=__version__,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            command=command,
            plan_hash=self._folder.hash,
            source=dict(images.described),
            images=images.count,
            seed=chosen.seed,
            labels="predicted" if images.labels is None else "source",
            measured=chosen.measured,
            suite=chosen.suite,
            flow=vars(chosen.flow),
            pixel=vars(chosen.pixel),
            class_names=None if names is None else {str(k): v for k, v in sorted(names.items())},
            environment={**_environment(), **({"tf32": "on"} if chosen.tf32 else {})},
            models=tuple(models),
        )


def _check_alike(subjects: Sequence[Subject]) -> None:
    first = subjects[0].model
    for subject in subjects[1:]:
        here = (tuple(subject.model.image_shape), subject.model.classes)
        if here != (tuple(first.image_shape), first.classes):
            raise DataError(
                f"{subject.name}: expected images {tuple(first.image_shape)} and {first.classes} "
                f"classes, as {subjects[0].name} has them, got {here[0]} and {here[1]}"
            )


def _own_code(subjects: Sequence[Subject], settings: Settings) -> str | None:
    """Return what decides the figures and is told by no file: code of the caller's; else None."""
    from jataug.export.rules import custom_rules

    if (model := next((s.name for s in subjects if not s.is_onnx), None)) is not None:
        return f"the model {model} is no .onnx file"
    for name, attack in settings.attacks.items():
        if not type(attack).__module__.startswith("jataug."):
            return f"the attack {name} is not one of jataug's"
    if rules := custom_rules():
        return f"the derivative rule of {rules[0]} is not one of jataug's"
    return None


def _environment() -> Mapping[str, Any]:
    """Return the build that decides the last bits."""
    loaded = {
        name: module.__version__
        for name in ("onnxruntime", "torch")
        # Read, not imported: what is not loaded took no part.
        if (module := sys.modules.get(name)) is not None
    }
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        **loaded,
        "platform": f"{platform.system()} {platform.machine()}",
    }
