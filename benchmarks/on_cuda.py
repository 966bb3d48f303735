"""ONNX Runtime CUDA: parity with the CPU, speed beside torch on the same card, memory, training.

    python benchmarks/on_cuda.py [--device cuda:0] [--only parity speed memory] [--write]
    python benchmarks/on_cuda.py --smoke --device cpu    # for the tests: the CPU beside itself

Needs jataug[gpu] and a torch built with CUDA; what is not there is said and left out. Contestants
take turns; medians and quartiles are of the rounds. --write puts the tables into
benchmarks/results/cuda.md, a part at a time.

1. parity: the gradient and the loss against ONNX Runtime's CPU provider (TF32 is off), and the
   share of 8-bit values that differ after 1 and 10 steps of the joint attack.
2. precision: robust accuracy of the demo model in float32, TF32, float16 and bfloat16.
3. speed: images per second of PGD and the joint attack, 10 steps; (forward + gradient) / forward,
   and what part of the card's rate of matrix products that is.
4. profile: nodes on the CPU, copies between it and the card, what is above two forwards by kind.
5. memory: of the card, before and after many batches; the largest batch that fits, torch's too.
6. training: a step of joint adversarial training in torch, compiled, and in ONNX Runtime on the
   live weights.
"""

import argparse
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import torch

ROOT = Path(__file__).resolve().parent.parent
PLACES = ("tests", "tests/bridge", "examples", "benchmarks")
sys.path[:0] = [str(ROOT / place) for place in PLACES]

import material  # noqa: E402  (from tests/)
from attacks import JOINT, PGD, STEPS, eager_pgd  # noqa: E402
from gradient import vision_transformer  # noqa: E402
from on_cuda_speed import SPEED, profile, speed, training  # noqa: E402
from on_cuda_subject import Case, Subject, apart  # noqa: E402
from timing import machine  # noqa: E402

import jataug  # noqa: E402
from jataug.errors import JataugError, ModelError, RuntimeUnavailable  # noqa: E402
from jataug.export import differentiate  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "cuda.md"
MIDDLE = JOINT.replace(flow=jataug.FlowBudget(0.1), pixel=jataug.PixelBudget("2/255"))
"""Radii at which about half of the demo's images withstand: there a weaker attack shows."""
DEMO = ROOT / "jataug" / "demo" / "images.npz"

PARITY = {
    "demo classifier": Case(material.demo_classifier, 64),
    "ResNet-18": Case(material.resnet18_cifar, 32),
    "EfficientNet-Lite0": Case(material.efficientnet_lite0, 8),
    "ViT-S/16": Case(vision_transformer, 8),
}
SMOKE = {"demo classifier": Case(material.demo_classifier, 4)}


def parity(cases: dict[str, Case], device: str, rounds: int) -> Iterator[tuple[str, ...]]:
    """Yield the table of how far the device is from the CPU."""
    del rounds
    yield "model", "gradient", "loss", "8-bit values, 1 step", f"{STEPS} steps"
    for title, case in cases.items():
        with Subject(case, device) as subject:
            gradient = apart(*(vjp(subject, place) for place in (device, "cpu")))
            shares, loss = [], 0.0
            for steps in (1, STEPS):
                there, here = (
                    attacked(subject, JOINT.replace(steps=steps), place)
                    for place in (device, "cpu")
                )
                shares.append(float(np.mean(here.adversarial != there.adversarial)))
                loss = loss or apart(there.loss, here.loss)
        yield title, f"{gradient:.1e}", f"{loss:.1e}", *(f"{share:.2%}" for share in shares)


def vjp(subject: Subject, device: str) -> np.ndarray:
    engine = subject.engine(differentiate(subject.model.path), device)
    classes = subject.model.module(torch.from_numpy(subject.images[:1])).shape[1]
    seed = np.random.default_rng(1).standard_normal((subject.batch, classes)).astype(np.float32)
    feeds = dict(zip(engine.inputs, (subject.images, seed), strict=True))
    return np.asarray(engine.run(feeds)[engine.outputs[-1]])


def attacked(subject: Subject, config: jataug.AttackConfig, device: str) -> jataug.AttackResult:
    with subject.session(config, device) as session:
        return session.attack(subject.levels, subject.labels)


def precision(cases: dict[str, Case], device: str, rounds: int) -> Iterator[tuple[str, ...]]:
    """Yield the table of robust accuracies of the demo model, each in what it is computed in."""
    del cases
    yield "computed in", "images", "% robust accuracy"
    with np.load(DEMO) as file:
        images, labels = file["images"][: 128 * rounds, ..., None], file["labels"][: 128 * rounds]
    ways: dict[str, dict[str, object]] = {"float32": {}, "float16": {"precision": "float16"}}
    if device != "cpu":
        ways |= {"TF32": {"tf32": True}, "bfloat16": {"precision": "bfloat16"}}
    with Subject(Case(material.demo_classifier, 64), device) as subject:
        for way, options in ways.items():
            try:
                with subject.session(MIDDLE, **options) as session:
                    broken = session.attack(images, labels).success
            except (ModelError, RuntimeUnavailable) as error:
                yield way, "", str(error).splitlines()[0]
                continue
            yield way, str(len(images)), f"{100 * float(np.mean(~broken)):.2f}"


def memory(cases: dict[str, Case], device: str, rounds: int) -> Iterator[tuple[str, ...]]:
    """Yield the table of what the card holds after many batches, and of the largest batch."""
    yield (
        "model", "batches", "memory, MiB: after the first", "after the last", "largest batch",
        "of eager torch",
    )  # fmt: skip
    for title, case in cases.items():
        with Subject(case, device) as subject:
            config, count = PGD.replace(steps=1), rounds * 1000
            with subject.session(config) as session:
                session.attack(subject.levels, subject.labels)
                first = held(device)
                for _ in range(count):
                    session.attack(subject.levels, subject.labels)
                last = held(device)
            sizes = largest(subject, config) if subject.on_card else (subject.batch, subject.batch)
        yield title, f"{count:,}", f"{first:.0f}", f"{last:.0f}", *map(str, sizes)


def held(device: str) -> float:
    """Return the MiB that are taken, on the card or in this process."""
    if device == "cpu":
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))
    free, total = torch.cuda.mem_get_info(device)
    return (total - free) / 2**20


def largest(subject: Subject, config: jataug.AttackConfig) -> tuple[int, int]:
    """Return the most images in a batch, doubled from the subject's, that the card takes: from us
    and from eager torch.
    """

    def our_own(size: int) -> None:
        images = np.resize(subject.levels, (size, *subject.levels.shape[1:]))
        with subject.session(config, batch=size) as session:
            session.attack(images, np.arange(size) % 10)

    def eager(size: int) -> None:
        images, _, module = subject.on_torch()
        repeated = images.repeat(-(-size // len(images)), 1, 1, 1)[:size]
        eager_pgd(module, repeated, torch.arange(size, device=images.device) % 10)

    found = []
    for attack in (our_own, eager):
        fits, size = 0, subject.batch
        while True:
            try:
                attack(size)
            except (JataugError, RuntimeError):
                break
            fits, size = size, size * 2
        found.append(fits)
        torch.cuda.empty_cache()
    return found[0], found[1]


PARTS = {
    "parity": (parity, PARITY),
    "precision": (precision, PARITY),
    "speed": (speed, SPEED),
    "profile": (profile, SPEED),
    "memory": (memory, SPEED),
    "training": (training, SPEED),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--rounds", type=int, default=9, help="and thousands of batches of memory")
    parser.add_argument("--write", action="store_true", help=f"into results/{RESULTS.name}")
    parser.add_argument("--smoke", action="store_true", help="one round of the smallest model")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    versions = f"onnxruntime {onnxruntime.__version__}, torch {torch.__version__}"
    if (
        options.device != "cpu"
        and "CUDAExecutionProvider" not in onnxruntime.get_available_providers()
    ):
        raise SystemExit(f"{options.device}: {versions} has no CUDA provider; nothing was measured")
    card = torch.cuda.get_device_name(options.device) if options.device != "cpu" else "no card"
    print(f"{machine()}; {card}; {versions}")
    texts = [
        f"# ONNX Runtime CUDA\n\n`python benchmarks/on_cuda.py`; {machine()}; {card}; {versions}."
    ]
    for name in options.only:
        part, cases = PARTS[name]
        rows = part(
            SMOKE if options.smoke else cases,
            options.device,
            1 if options.smoke else options.rounds,
        )
        lines = [f"## {name}", ""]
        for number, row in enumerate(rows):
            lines.append(f"| {' | '.join(row)} |")
            print(lines[-1], flush=True)
            if not number:
                lines.append("|---" * len(row) + "|")
        texts.append("\n".join(lines))
        if options.write:
            RESULTS.write_text("\n\n".join(texts) + "\n", "utf-8")


if __name__ == "__main__":
    main()
