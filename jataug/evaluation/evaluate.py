"""How robust a model is: attacks, curves, sanity checks, and the report that says so."""

import platform
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from ..budget import FlowBudget, Norm, PixelBudget
from ..data import Geometry, Source, open_source
from ..data.labels import Classes
from ..preprocessing import Preprocessing
from .folder import Folder
from .gallery import gallery, gallery_arrays
from .images import open_images
from .report import FORMAT_VERSION, ModelReport, Report, Sanity
from .runner import Progress, Runner
from .state import Context
from .subject import default_batch_size, open_subjects
from .suite import SUITES, Suite, attacks_of
from .summary import attack_row, image_rows, rate, worst

__all__ = ["evaluate"]


def evaluate(
    model: Any,
    source: str | PathLike[str] | Source,
    output: str | PathLike[str] | None = None,
    *,
    attacks: Sequence[str] | None = None,
    suite: Suite = "quick",
    flow: float | str = 0.3,
    pixel: float | str = "8/255",
    flow_norm: Norm = "l2",
    seed: int = 0,
    batch_size: int | None = None,
    limit: int | None = None,
    labels: Literal["source", "predicted"] = "source",
    classes: Classes = None,
    resize: int | None = None,
    crop: int | tuple[int, int] | None = None,
    preprocessing: Preprocessing | None = None,
    size: tuple[int, int] | None = None,
    device: str = "auto",
    measured: Literal["float", "uint8"] = "float",
    command: str | None = None,
    progress: Callable[[Progress], object] | None = None,
) -> Report:
    flow_budget, pixel_budget = FlowBudget(flow, flow_norm), PixelBudget(pixel)
    chosen = attacks_of(SUITES[suite] if attacks is None else attacks, suite)
    held = source if isinstance(source, Source) else open_source(source)
    models = list(model) if isinstance(model, (list, tuple)) else [model]
    subjects = open_subjects(
        models,
        held,
        Geometry(resize, crop),
        preprocessing=preprocessing,
        size=size,
        device=device,
        batch_size=batch_size,
    )
    first = subjects[0].model
    images = open_images(
        held,
        first.image_shape,
        first.classes,
        labels=labels,
        classes=classes,
        resize=resize,
        crop=crop,
        limit=limit,
    )
    radii = (flow_budget.radius, pixel_budget.radius)
    folder = Folder(None if output is None else Path(output), {"seed": seed})
    reports = []
    for k, subject in enumerate(subjects):
        runner = Runner(
            subject.name,
            subject.model,
            images,
            Context(seed, flow_norm),
            radii,
            batch_size=batch_size or default_batch_size(first.image_shape),
            folder=folder,
            place=f"attacks/{k}",
            progress=progress,
        )
        clean = runner.clean()
        outcomes = {name: runner.attack(name, attack, clean) for name, attack in chosen.items()}
        file = f"gallery-{k}.npz"
        folder.save(file, gallery_arrays(runner.shown, clean, outcomes))
        reports.append(
            ModelReport(
                subject.name,
                subject.model.kind,
                subject.path,
                subject.sha256,
                subject.model.classes,
                subject.model.image_shape,
                subject.preprocessing.to_dict() if subject.preprocessing else None,
                subject.model.provider,
                rate(clean.right),
                tuple(attack_row(n, a, outcomes[n], clean, radii) for n, a in chosen.items()),
                worst(chosen, outcomes, clean),
                None,
                None,
                None,
                None,
                None,
                Sanity("none", ()),
                (),
                image_rows(images, clean, outcomes, None, None),
                gallery(file, images, runner.shown, clean, outcomes),
                (),
            )
        )
    import json

    from .. import __version__

    report = Report(
        FORMAT_VERSION,
        __version__,
        datetime.now(UTC).isoformat(timespec="seconds"),
        command,
        folder.hash,
        dict(images.described),
        images.count,
        seed,
        labels,
        measured,
        suite,
        {"radius": flow_budget.radius, "norm": flow_budget.norm},
        {"radius": pixel_budget.radius, "norm": pixel_budget.norm},
        None if images.names is None else {str(k): v for k, v in images.names.items()},
        {"python": platform.python_version()},
        tuple(reports),
    )
    folder.write("report.json", json.dumps(report.to_dict(), indent=1).encode())
    return report
