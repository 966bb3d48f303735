"""What adversarial training is good for, and what it costs: Fashion-MNIST, a small CNN.

    python benchmarks/training.py [--smoke] [--threads 1] [--seeds 0 1 2] [--work DIR]

Six ways to train, three seeds, each measured on test images with weak and strong attacks by
jataug.evaluation; every cell is kept in results/training.jsonl and not done again. AutoAttack, by
far the slowest, comes after all others, on the first seed alone (--no-autoattack leaves it out).
Then the time of a step of each kind beside that of a natural step, and the
ideal from counting passes: a natural step is one forward and two backward passes' worth, an
attack's gradient one and one.

--smoke does one seed at a size that says nothing, into a temporary folder.
"""

import argparse
import hashlib
import json
import platform
import shlex
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(Path(__file__).parent)]

import material  # noqa: E402  (from tests/: AutoAttack's package)
from timing import interleaved, machine, ratios  # noqa: E402

import jataug  # noqa: E402
from jataug.evaluation import Report, evaluate  # noqa: E402
from jataug.export import export_attack  # noqa: E402
from jataug.trainer import Part, TrainConfig, load_run, train  # noqa: E402
from jataug.trainer.models import build  # noqa: E402
from jataug.trainer.runtime_attack import LiveAttack  # noqa: E402
from jataug.trainer.torch_attack import perturb  # noqa: E402

DATA = Path("/usr/share/datasets/fashion-mnist")
RESULTS = Path(__file__).parent / "results"
ATTACK = jataug.AttackConfig(
    flow=jataug.FlowBudget(1.0), pixel=jataug.PixelBudget(0.1, "linf"), steps=1
)
WAYS = ("natural", "pixel", "flow", "joint", "pregenerated", "mixed")
TITLES = {
    "natural": "natural",
    "pixel": "pixel AT, on the fly",
    "flow": "flow AT, on the fly",
    "joint": "joint AT, on the fly",
    "pregenerated": "joint AT, pregenerated",
    "mixed": "joint AT, mixed",
}
COLUMNS = ("clean", "fgsm", "pgd", "flow", "joint", "rotate", "autoattack")
WORST = ("pgd", "flow", "joint")


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    sys.path.append(str(material.installed("pyautoattack==0.2.0")))
    results = options.work / "training" if options.smoke else RESULTS / "training"
    results.parent.mkdir(parents=True, exist_ok=True)
    cells = [json.loads(line) for line in lines(results.with_suffix(".jsonl"))]
    wanted = [(way, seed, "all") for seed in options.seeds for way in WAYS]
    if not options.no_autoattack:
        wanted += [(way, options.seeds[0], "autoattack") for way in WAYS]
    for way, seed, part in wanted:
        done = {"way": way, "seed": seed, "part": part, "plan": plan(options)}
        if any(done.items() <= cell.items() for cell in cells):
            continue
        cell = {**done, **measured(way, seed, part, options)}
        cells.append(cell)
        with results.with_suffix(".jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(cell, sort_keys=True) + "\n")
        print(f"{way} {seed}: {cell['accuracy']}", flush=True)
    cells = [c for c in cells if c["plan"] == plan(options) and c["seed"] in options.seeds]
    cost = costs(options)
    text = page(cells, cost, options)
    results.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000, help="of the training set")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--test", type=int, default=500, help="test images to attack")
    parser.add_argument("--steps", type=int, default=20, help="of the strong attacks")
    parser.add_argument("--restarts", type=int, default=2)
    parser.add_argument("--draws", type=int, default=50, help="rotations and translations")
    parser.add_argument("--rounds", type=int, default=9, help="of the cost table")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, help="runs and data sets; default: a temporary folder")
    parser.add_argument("--no-autoattack", action="store_true")
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    options.command = shlex.join(["python", "benchmarks/training.py", *sys.argv[1:]])
    if options.smoke:
        options.images, options.epochs, options.test, options.steps = 500, 1, 6, 1
        options.restarts, options.draws, options.rounds, options.seeds = 1, 2, 1, [0]
    if options.work is None:
        name = f"jataug-training{'-smoke' if options.smoke else ''}"
        options.work = Path(tempfile.gettempdir()) / name
        if options.smoke:
            shutil.rmtree(options.work, ignore_errors=True)
    return options


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def plan(options: argparse.Namespace) -> str:
    """Names what a cell depends on, so that other sizes are other cells."""
    names = ("images", "epochs", "test", "steps", "restarts", "draws")
    values = {name: getattr(options, name) for name in names}
    text = json.dumps({**values, "attack": ATTACK.to_dict()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def folder(way: str, seed: int, options: argparse.Namespace) -> Path:
    return options.work / plan(options) / f"{way}-{seed}"


def measured(way: str, seed: int, part: str, options: argparse.Namespace) -> dict[str, object]:
    """Train one network and measure it."""
    began = time.perf_counter()
    report = train(configuration(way, seed, options))
    trained = time.perf_counter()
    run = load_run(report.output, "last")
    strong = f"steps={options.steps}:restarts={options.restarts}"
    attacks = {
        "fgsm": "fgsm", "pgd": f"pgd:{strong}", "flow": f"flow:{strong}",
        "joint": f"joint:{strong}", "rotate": f"rotate:draws={options.draws}",
    }  # fmt: skip
    if part == "autoattack":
        attacks = {"autoattack": "autoattack"}
    found = evaluate(
        run.module, DATA / "t10k-images-idx3-ubyte.gz", attacks=list(attacks.values()),
        flow=ATTACK.flow, pixel=ATTACK.pixel, limit=options.test, curves=False, sanity=False,
        device="cpu", batch_size=128,
    )  # fmt: skip
    metrics = [json.loads(line) for line in lines(report.output / "metrics.jsonl")]
    return {
        "accuracy": accuracies(found, attacks),
        "test_images": options.test,
        "train_seconds": round(trained - began, 1),
        "evaluation_seconds": round(time.perf_counter() - trained, 1),
        "epoch_seconds": round(statistics.median(m["train_seconds"] for m in metrics), 2),
        "training_accuracy": metrics[-1]["accuracy"],
    }


def accuracies(report: Report, attacks: dict[str, str]) -> dict[str, float]:
    (entry,) = report.models
    by_name = {row.name: row.accuracy.value for row in entry.attacks}
    return {"clean": entry.clean_accuracy.value, **{k: by_name[v] for k, v in attacks.items()}}


def configuration(way: str, seed: int, options: argparse.Namespace) -> TrainConfig:
    mode = way if way in ("natural", "pixel", "flow") else "joint"
    mixture: tuple[Part, ...] = ()
    if way in ("pregenerated", "mixed"):
        made = Part("dataset", 1.0, str(pregenerated(seed, options)))
        mixture = (made,)
        if way == "mixed":
            stored = Part("dataset", 0.25, made.path)
            mixture = (Part("attack", 0.5), stored, Part("clean", 0.25))
    return TrainConfig(
        source=DATA / "train-images-idx3-ubyte.gz", output=folder(way, seed, options),
        model="small-cnn", model_options={"width": 8}, mode=mode, attack=ATTACK, mixture=mixture,
        label_smoothing=0.1, epochs=options.epochs, batch_size=64, lr=0.05, nesterov=True,
        schedule="cosine", warmup=min(1.0, options.epochs / 4), weight_decay=2e-4, pad=0, flip=True,
        limit=options.images, validation=200, evaluation_images=0, evaluate_every=100, seed=seed,
        device="cpu",
    )  # fmt: skip


def pregenerated(seed: int, options: argparse.Namespace) -> Path:
    """Attacks on the natural network of this seed, made once."""
    root = folder("dataset", seed, options)
    if (root / "index.json").exists():
        return root
    natural = folder("natural", seed, options)
    train(configuration("natural", seed, options))
    artifact = root.with_suffix(".onnx")
    run = load_run(natural, "last")
    export_attack(run.module, ATTACK.replace(steps=5), artifact, example=run.example)
    jataug.generate(
        artifact, DATA / "train-images-idx3-ubyte.gz", root, format="npz", seed=seed,
        batch_size=128, limit=options.images, device="cpu",
    )  # fmt: skip
    return root


def costs(options: argparse.Namespace) -> dict[str, dict[str, tuple[float, float, float]]]:
    """The time of a step of each kind over that of a natural one, by network."""
    cases = {
        "small-cnn (width 8), 1x28x28, batch 128": ("small-cnn", {"width": 8}, (1, 28, 28), 128),
        "wrn-16-2, 3x32x32, batch 32": ("wrn-16-2", {}, (3, 32, 32), 32),
    }
    return {
        title: ratios(interleaved(step_kinds(*case), options.rounds), "natural")
        for title, case in cases.items()
    }


def step_kinds(
    name: str, more: dict[str, int], shape: tuple[int, int, int], batch: int
) -> dict[str, Callable[[], object]]:
    torch.manual_seed(0)
    model = build(name, more, shape, 10)
    images, labels = torch.rand(batch, *shape), torch.arange(batch) % 10
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    pixel = ATTACK.replace(flow=jataug.FlowBudget(0))
    flow = ATTACK.replace(pixel=jataug.PixelBudget(0))
    live = LiveAttack(model, ATTACK, shape, torch.device("cpu"))
    named = {"seed": 0, "epoch": 0}

    def step(found: torch.Tensor) -> None:
        model.train()
        loss = cross_entropy(model(found), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def attacked(config: jataug.AttackConfig) -> Callable[[], object]:
        return lambda: step(perturb(model, config, images, labels, range(batch), **named))

    return {
        "natural": lambda: step(images),
        "pixel": attacked(pixel),
        "flow": attacked(flow),
        "joint": attacked(ATTACK),
        "joint, ONNX Runtime on live weights": lambda: step(
            live(images, labels, list(range(batch)), **named)
        ),
    }


IDEAL = {"natural": 1.0, "pixel": 5 / 3, "flow": 5 / 3, "joint": 7 / 3}


def page(cells: list[dict], cost: dict, options: argparse.Namespace) -> str:
    seeds = sorted({cell["seed"] for cell in cells})
    head = [
        "# Adversarial training",
        "",
        f"`{options.command}`",
        "",
        f"{machine()}, {options.threads} thread(s); torch {torch.__version__}, Python "
        f"{platform.python_version()}. Fashion-MNIST: the first {options.images} training images "
        f"less 200, {options.epochs} epochs of batches of 64; small-cnn of width 8; "
        f"flow {ATTACK.flow.radius:g} px l2, pixel {ATTACK.pixel.radius:g} linf; claim 1, one "
        "step; label smoothing 0.1 (authors' convention). Pregenerated: attacks of 5 steps on "
        "the natural network of the same seed; mixed: 50% on the fly, 25% pregenerated, 25% clean.",
        "",
        f"Accuracy in % on the first {options.test} test images, mean and standard deviation over "
        f"the seeds {', '.join(map(str, seeds))} (n = {len(seeds)}); AutoAttack on seed "
        f"{options.seeds[0]} alone (n = 1). pgd, flow, joint: {options.steps} steps, "
        f"{options.restarts} restarts, cross entropy; rotate: worst of {options.draws}. Worst: "
        "the lowest of pgd, flow and joint of each seed.",
        "",
        f"| training | {' | '.join(COLUMNS)} | worst |",
        f"|---|{'---|' * (len(COLUMNS) + 1)}",
    ]
    rows = [row(way, [c for c in cells if c["way"] == way]) for way in WAYS]
    tail = [
        "",
        "## Cost",
        "",
        "Time of a step over a natural one, median [quartiles] of rounds in which all take turns "
        f"(n = {options.rounds}); ideal: passes counted.",
        "",
    ]
    for title, found in cost.items():
        tail += [f"{title}:", "", "| step | measured | ideal |", "|---|---|---|"]
        for name, (median, low, high) in found.items():
            ideal = IDEAL[name.partition(",")[0]]
            tail.append(f"| {name} | {median:.2f} [{low:.2f}, {high:.2f}] | {ideal:.2f} |")
        tail.append("")
    tail += [
        "Median seconds of an epoch in the runs above:",
        "",
        "| training | seconds |",
        "|---|---|",
    ]
    for way in WAYS:
        own = [c for c in cells if c["way"] == way and c["part"] == "all"]
        seconds = [c["epoch_seconds"] for c in own]
        tail.append(f"| {TITLES[way]} | {spread(seconds, 1)} |")
    return "\n".join([*head, *rows, *tail]) + "\n"


def row(way: str, cells: list[dict]) -> str:
    found = []
    for column in COLUMNS:
        other = column == "clean"  # measured again where AutoAttack is
        values = [
            100 * c["accuracy"][column]
            for c in cells
            if column in c["accuracy"] and not (other and c["part"] != "all")
        ]
        found.append(spread(values, 1))
    whole = [c["accuracy"] for c in cells if c["part"] == "all"]
    worst = [100 * min(accuracy[name] for name in WORST) for accuracy in whole]
    return f"| {TITLES[way]} | {' | '.join(found)} | {spread(worst, 1)} |"


def spread(values: list[float], digits: int) -> str:
    if not values:
        return "-"
    mean = f"{np.mean(values):.{digits}f}"
    return f"{mean} ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else mean


if __name__ == "__main__":
    main()
