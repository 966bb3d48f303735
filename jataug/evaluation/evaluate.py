"""Measures how robust a model is: attacks, curves, sanity checks, and a report."""

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
from .model_report import ModelEvaluation
from .models.named import NamedModel, default_batch_size, open_models
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
    """Attack one or more models on the same images, and return the report.

    With `output`, every attack is saved as soon as it is finished, and report.json and the
    galleries' arrays are written at the end. The same call resumes an interrupted evaluation.

    Args:
        model: an .onnx file, a ModelProto, a torch module of images in [0, 1], an object with the
            methods of evaluation.model.Model; or a list of these.
        source: a source, or anything that jataug.data.open_source accepts.
        output: a new or empty folder, or one where the same evaluation was begun. None writes
            nothing.
        attacks: names from evaluation.attacks.suite.ATTACKS, with options if wanted
            ("pgd:steps=50:restarts=3"). Default: those of the suite.
        suite: "quick", or "strong": all attacks, with more steps, restarts and targets.
        flow: pixels, or a budget with its norm.
        pixel: image units, or a budget; its norm is linf.
        transfer: models that are tested on the adversarial images of `model`, and whose own
            adversarial images are tested on `model`.
        curves: measure accuracy against the radii, and every image's smallest radius.
        sanity: check for masked gradients.
        measured: "float" measures the images as found; "uint8" quantises them first.
        seed: the seed of all random draws.
        limit: use the first `limit` images.
        batch_size: rows per call of a model. Default: by the size of the images.
        labels: "source" takes labels from the source; "predicted" uses each model's own
            predictions.
        classes: maps class folders to classes of the model; see generate.
        class_order: how class folders are numbered; see generate.
        resize: length of the shorter side, pixels.
        crop: side of the centre crop, or (height, width), pixels.
        preprocessing: the preprocessing of ONNX models, for images in [0, 1].
        size: (height, width) for models that leave them open.
        device: for ONNX models: "auto", "cpu", "cuda" or "cuda:<i>".
        threads: threads of the runtime, for ONNX models. Default: the runtime's own choice.
        tf32: allow TF32 on CUDA, for ONNX models. It changes the results.
        names: one per model. Default: the stem of its file.
        identity: names the version of your own code that decides the results: models that are not
            .onnx files, your own attacks and derivative rules. Change it whenever that code
            changes. Without it, an evaluation that depends on such code is not resumed.
        command: the command line, for the report.
        on_error: "stop" at an image that cannot be used, or "skip" it. The report names skipped
            images, and the results of the other images do not change.
        progress: called when a part begins and after every batch.

    Raises:
        DataError: the source, its labels, the folder or an option cannot be used.
        BudgetError: a radius, an attack or an option of it is unknown or outside its domain.
        ModelError: a model cannot be used, or the models differ in images or classes.
        MissingExtra: a package that an attack or a model needs is not installed.
        RuntimeUnavailable: the device is not available, or has no TF32.
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
    named_models = open_models(
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
    first = named_models[0].model
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
        named_models, len(models), images, settings, rows, root, identity, progress
    )
    return evaluation.report(command)


def _check_flow(flow: FlowBudget, shape: tuple[int, int, int]) -> None:
    if flow.radius > max(shape[1:]):
        raise BudgetError(
            f"flow radius: {flow.radius:g} pixels are too many; images of {shape[1]} x {shape[2]} "
            f"allow at most {max(shape[1:])}"
        )


def _names(suite: str, attacks: Sequence[str] | None) -> Sequence[str]:
    if suite not in SUITES:
        raise DataError(f"suite: expected one of {', '.join(SUITES)}, got {suite!r}")
    return SUITES[suite] if attacks is None else attacks  # type: ignore[index]


class _Evaluation:
    """All models, their images, and the folder.

    Args:
        named_models: the models under evaluation, then those that are only for transfer.
        count: the number of models under evaluation.
    """

    def __init__(
        self,
        named_models: Sequence[NamedModel],
        count: int,
        images: Images,
        settings: Settings,
        batch_size: int,
        root: Path | None,
        identity: str | None,
        progress: Callable[[Progress], object] | None,
    ) -> None:
        check_integer("batch_size", batch_size, 1)
        _check_flow(settings.flow, named_models[0].model.image_shape)
        self._models, self._count, self._images = list(named_models), count, images
        self._settings, self._batch_size, self._progress = settings, batch_size, progress
        _check_alike(named_models)
        if root is not None:
            check_outside(root, images.source)
        code = _own_code(named_models, settings) if identity is None else None
        self._folder = Folder(root, {**self._plan(), "identity": identity}, code)

    def _plan(self) -> dict[str, Any]:
        from .. import __version__

        images = self._images
        return {
            "format_version": FORMAT_VERSION,
            "jataug": __version__,
            "models": [s.planned() for s in self._models[: self._count]],
            "transfer": [s.planned() for s in self._models[self._count :]],
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
        """Run the parts that are not finished, and write the report."""
        evaluations = [self._evaluate_model(k) for k in range(len(self._models))]
        found = [
            one.report(f"gallery-{k}.npz", {o.named.name: o for o in evaluations if o is not one})
            for k, one in enumerate(evaluations[: self._count])
        ]
        report = self._record(command, found)
        text = json.dumps(report.to_dict(), indent=1, allow_nan=False)
        self._folder.write(REPORT, f"{text}\n".encode())
        return report

    def _evaluate_model(self, k: int) -> ModelEvaluation:
        others = [s for s in self._models if s is not self._models[k]]
        settings, named = self._settings, self._models[k]
        runner = Runner(
            named.name,
            named.model,
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
        return ModelEvaluation(named, runner, settings, others)

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


def _check_alike(named_models: Sequence[NamedModel]) -> None:
    first = named_models[0].model
    for named in named_models[1:]:
        here = (tuple(named.model.image_shape), named.model.classes)
        if here != (tuple(first.image_shape), first.classes):
            raise DataError(
                f"{named.name}: expected images {tuple(first.image_shape)} and {first.classes} "
                f"classes, as in {named_models[0].name}, got {here[0]} and {here[1]}"
            )


def _own_code(named_models: Sequence[NamedModel], settings: Settings) -> str | None:
    """Return which of the caller's own code decides the results, or None if there is none."""
    from jataug.export.rules import custom_rules

    if (model := next((s.name for s in named_models if not s.is_onnx), None)) is not None:
        return f"the model {model} is not an .onnx file"
    for name, attack in settings.attacks.items():
        if not type(attack).__module__.startswith("jataug."):
            return f"the attack {name} is not one of jataug's"
    if rules := custom_rules():
        return f"the derivative rule of {rules[0]} is not one of jataug's"
    return None


def _environment() -> Mapping[str, Any]:
    """Return the versions and platform that may affect the last bits of the results."""
    loaded = {
        name: module.__version__
        for name in ("onnxruntime", "torch")
        # Only loaded modules count, because others took no part.
        if (module := sys.modules.get(name)) is not None
    }
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        **loaded,
        "platform": f"{platform.system()} {platform.machine()}",
    }
