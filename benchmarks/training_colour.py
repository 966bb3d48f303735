"""Adversarial training on colour photographs: traffic lights, a narrow ResNet-18, one seed.

    python benchmarks/training_colour.py [--smoke] [--threads 1]

1,187 photos to train on, 297 to test on, three classes, hundreds of sizes; scaled to 48x24.
One seed: an impression, no measurement of spread. Finished runs are not trained again.
"""

import argparse
import platform
import shlex
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(Path(__file__).parent)]

import material  # noqa: E402  (from tests/: the photos)
from timing import machine  # noqa: E402

import jataug  # noqa: E402
from jataug.evaluation import evaluate  # noqa: E402
from jataug.trainer import TrainConfig, load_run, train  # noqa: E402

SIZE = (24, 48)
"""Width and height: the lights stand upright."""

RESULT = Path(__file__).parent / "results" / "training_colour.md"
WAYS = ("natural", "joint")


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    options.work.mkdir(parents=True, exist_ok=True)
    sources = {part: photos(part, options.work) for part in ("train", "test")}
    attack = jataug.AttackConfig(
        flow=jataug.FlowBudget(options.flow), pixel=jataug.PixelBudget(options.pixel), steps=1
    )
    names = [f"{name}:steps={options.steps}" for name in ("pgd", "flow", "joint")]
    rows = []
    for way in WAYS:
        folder = f"{way}-{options.epochs}-{options.flow}-{options.pixel.replace('/', '_')}"
        config = TrainConfig(
            source=sources["train"], output=options.work / folder, model="resnet-18",
            model_options={"width": 16}, mode=way, attack=attack, label_smoothing=0.1,
            epochs=options.epochs, batch_size=32, lr=0.05, nesterov=True, schedule="cosine",
            warmup=min(1.0, options.epochs / 4), pad=2, validation=100, evaluation_images=0,
            evaluate_every=100, device="cpu",
        )  # fmt: skip
        train(config)
        report = evaluate(
            load_run(config.output, "last").module, sources["test"], attacks=["fgsm", *names],
            flow=attack.flow, pixel=attack.pixel, curves=False, sanity=False, device="cpu",
            limit=options.limit, batch_size=64,
        ).models[0]  # fmt: skip
        values = [report.clean_accuracy, *(row.accuracy for row in report.attacks)]
        rows.append(f"| {way} | {' | '.join(f'{100 * rate.value:.1f}' for rate in values)} |")
        total = values[0].total
        print(rows[-1], flush=True)
    text = "\n".join([*head(options, total), *rows]) + "\n"
    if not options.smoke:
        RESULT.write_text(text, encoding="utf-8")
    print(text)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--steps", type=int, default=10, help="of the strong attacks")
    parser.add_argument("--flow", type=float, default=1.0, help="pixels")
    parser.add_argument("--pixel", default="8/255")
    parser.add_argument("--limit", type=int, help="test photos; default all")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    options.command = shlex.join(["python", "benchmarks/training_colour.py", *sys.argv[1:]])
    if options.smoke:
        options.epochs, options.steps, options.limit = 0, 1, 20
    name = f"jataug-training-colour{'-smoke' if options.smoke else ''}"
    options.work = options.work or Path(tempfile.gettempdir()) / name
    return options


def photos(part: str, work: Path) -> Path:
    """The photos of a part, scaled, as an .npz file; made once."""
    path = work / f"{part}.npz"
    if not path.exists():
        folder = material.traffic_lights(work / part, part)
        files = sorted(folder.rglob("*.jpg"))
        names = sorted({file.parent.name for file in files})
        images = [
            Image.open(f).convert("RGB").resize(SIZE, Image.Resampling.BILINEAR) for f in files
        ]
        labels = np.array([names.index(file.parent.name) for file in files])
        np.savez(path, images=np.stack([np.asarray(image) for image in images]), labels=labels)
    return path


def head(options: argparse.Namespace, count: int) -> list[str]:
    return [
        "# Adversarial training on colour photographs",
        "",
        f"`{options.command}`",
        "",
        f"{machine()}, {options.threads} thread(s); torch {torch.__version__}, Python "
        f"{platform.python_version()}. Traffic lights at 48x24, ResNet-18 of width 16, "
        f"{options.epochs} epochs, seed 0 (n = 1); flow {options.flow:g} px l2, pixel "
        f"{options.pixel} linf; claim 1, one step; label smoothing 0.1 (authors' convention). "
        f"Accuracy in % on {count} test photos; pgd, flow, joint: {options.steps} steps, one "
        "random start, cross entropy.",
        "",
        "| training | clean | fgsm | pgd | flow | joint |",
        "|---|---|---|---|---|---|",
    ]


if __name__ == "__main__":
    main()
