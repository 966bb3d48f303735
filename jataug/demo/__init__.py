"""The whole main job on a classifier and 512 Fashion-MNIST test images that ship in the package."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from jataug.budget import FlowBudget, PixelBudget
from jataug.config import AttackConfig
from jataug.errors import DataError

__all__ = ["DEMO_ATTACK", "Demo", "demo_artifact", "run_demo"]

DEMO_ATTACK = AttackConfig.preset(
    "evaluation", flow=FlowBudget(0.3), pixel=PixelBudget("8/255"), steps=10
)


@dataclass(frozen=True)
class Demo:
    """The results of the demo. The speed is absent if the data set already existed."""

    model: Path
    source: Path
    artifact: Path
    dataset: Path
    picture: Path
    images: int
    clean_accuracy: float
    adversarial_accuracy: float
    verified: bool
    provider: str
    budgets: str
    images_per_second: float


def run_demo(
    destination: str | Path,
    *,
    device: str = "auto",
    threads: int | None = None,
    progress: Callable[[Any], object] | None = None,
) -> Demo:
    """Export the attack on the shipped classifier, generate, verify and draw, into `destination`.

    Raises:
        DataError: the destination holds other files, or cannot be written.
        MissingExtra: ONNX Runtime is not installed.
    """
    from jataug.dataset import verify
    from jataug.export import export_attack
    from jataug.generator import generate, preview
    from jataug.runtime import Session

    root = _folder(Path(destination))
    artifact, dataset, picture = root / "attack.onnx", root / "dataset", root / "preview.png"
    with ExitStack() as stack:
        shipped = files(__name__)
        model, images, notes = (
            stack.enter_context(as_file(shipped / name))
            for name in ("classifier.onnx", "images.npz", "demo.json")
        )
        export_attack(model, DEMO_ATTACK, artifact)
        names = json.loads(notes.read_text(encoding="utf-8"))["classes"]
        session = stack.enter_context(
            Session.open(artifact, device=device, batch_size=64, threads=threads)
        )
        meaning = dict(zip(names, range(len(names)), strict=True))
        report = generate(
            artifact,
            images,
            dataset,
            session=session,
            threads=threads,
            save_flow=True,
            progress=progress,
            classes=meaning,
        )
        checked = verify(dataset, images, artifact, device=device, threads=threads)
        preview(session, images, count=8, classes=meaning).save(picture)
        provider = session.providers[0]
    flow, pixel = DEMO_ATTACK.flow.radius, DEMO_ATTACK.pixel.radius
    return Demo(
        Path(str(shipped / "classifier.onnx")),
        Path(str(shipped / "images.npz")),
        artifact,
        dataset,
        picture,
        report.images,
        report.clean_accuracy or 0.0,
        checked.adversarial_accuracy or 0.0,
        checked.ok,
        provider,
        f"joint attack, {flow:g} px + {round(255 * pixel)}/255, {DEMO_ATTACK.steps} steps",
        report.images_per_second,
    )


def demo_artifact(path: Path) -> Path:
    """Write the attack on the shipped classifier, unchecked, and return its path."""
    from jataug.export import export_attack

    with as_file(files(__name__) / "classifier.onnx") as model:
        export_attack(model, DEMO_ATTACK, path, check=False)
    return path


def _folder(root: Path) -> Path:
    try:
        root.mkdir(parents=True, exist_ok=True)
        foreign = sorted(
            {p.name for p in root.iterdir()} - {"attack.onnx", "dataset", "preview.png"}
        )
    except OSError as error:
        raise DataError(f"{root}: the folder cannot be written: {error.strerror}") from None
    if foreign:
        raise DataError(
            f"{root}: it holds {foreign[0]!r}, not the demo's files; choose a new or empty folder"
        )
    return root
