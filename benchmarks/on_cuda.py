"""ONNX Runtime CUDA: parity with the CPU, speed beside torch on the same card, memory.

    python benchmarks/on_cuda.py [--device cuda:0] [--only parity speed memory] [--write]
    python benchmarks/on_cuda.py --smoke --device cpu    # for the tests: the CPU beside itself

Needs jataug[gpu] and a torch built with CUDA; what is not there is said and left out. Contestants
take turns; medians and quartiles are of the rounds. --write puts the tables into
benchmarks/results/cuda.md, a part at a time.

1. parity: the gradient and the loss against ONNX Runtime's CPU provider (TF32 is off), and the
   share of 8-bit values that differ after 1 and 10 steps of the joint attack.
2. speed: (forward + gradient) / forward; images per second of PGD and the joint attack, 10 steps.
3. memory: of the card, before and after many batches; the largest batch that fits.
"""

import argparse
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import torch

ROOT = Path(__file__).resolve().parent.parent
PLACES = ("tests", "tests/bridge", "examples", "benchmarks")
sys.path[:0] = [str(ROOT / place) for place in PLACES]

import material  # noqa: E402  (from tests/)
from attacks import JOINT, PGD, STEP, STEPS, eager_pgd  # noqa: E402
from gradient import declare_operators, vision_transformer, wide_resnet  # noqa: E402
from strength_peers import torchattacks  # noqa: E402
from timing import interleaved, machine, spread  # noqa: E402

import jataug  # noqa: E402
from jataug.attack import JointAttack  # noqa: E402
from jataug.errors import JataugError  # noqa: E402
from jataug.export import differentiate, export_attack  # noqa: E402
from jataug.runtime.onnxruntime import Engine  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "cuda.md"
TARGET = "cuda"


def resnet50() -> material.Model:
    """ResNet-50 of torchvision with random weights."""
    declare_operators()
    from torchvision.models import resnet50 as make

    torch.manual_seed(0)
    return material.exported(make().eval(), torch.zeros(2, 3, 224, 224), "resnet-50")


class Case(NamedTuple):
    """A model and the images in a batch."""

    load: Callable[[], material.Model]
    batch: int


PARITY = {
    "demo classifier": Case(material.demo_classifier, 64),
    "ResNet-18": Case(material.resnet18_cifar, 32),
    "EfficientNet-Lite0": Case(material.efficientnet_lite0, 8),
    "ViT-S/16": Case(vision_transformer, 8),
}
SPEED = {
    "WRN-28-10, 32x32, batch 512": Case(wide_resnet, 512),
    "ResNet-50, 224x224, batch 128": Case(resnet50, 128),
}
SMOKE = {"demo classifier": Case(material.demo_classifier, 4)}


class Subject:
    """A model with images and labels, and its sessions."""

    def __init__(self, case: Case, device: str, folder: str) -> None:
        self.model, self.batch, self.device = case.load(), case.batch, device
        proto = onnx.load(self.model.path)
        self.input = proto.graph.input[0]
        sizes = [d.dim_value for d in self.input.type.tensor_type.shape.dim[1:]]
        generator = np.random.default_rng(0)
        self.levels = generator.integers(0, 256, (self.batch, *sizes[1:], sizes[0]), np.uint8)
        self.images = (self.levels.transpose(0, 3, 1, 2) / 255).astype(np.float32)
        self.labels = np.arange(self.batch) % 10
        self.folder, self._artifacts = Path(folder), 0

    def session(self, config: jataug.AttackConfig, device: str) -> jataug.Session:
        self._artifacts += 1
        path = self.folder / f"{self._artifacts}.onnx"
        export_attack(self.model.path, config, path, check=False, target=TARGET)
        return jataug.Session.open(path, device=device, batch_size=self.batch)

    def engine(self, proto: onnx.ModelProto, device: str) -> Engine:
        symbol = proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param
        return Engine(proto, {symbol: self.batch}, device)


def parity(cases: dict[str, Case], device: str, rounds: int) -> Iterator[tuple[str, ...]]:
    """Yield the table of how far the device is from the CPU."""
    del rounds
    yield "model", "gradient", "loss", "8-bit values, 1 step", f"{STEPS} steps"
    for title, case in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            subject = Subject(case, device, folder)
            gradient = apart(*(vjp(subject, place) for place in ("cpu", device)))
            shares, loss = [], 0.0
            for steps in (1, STEPS):
                here, there = (
                    attacked(subject, JOINT.replace(steps=steps), place)
                    for place in ("cpu", device)
                )
                shares.append(float(np.mean(here.adversarial != there.adversarial)))
                loss = loss or apart(here.loss, there.loss)
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


def apart(found: np.ndarray, golden: np.ndarray) -> float:
    return float(np.linalg.norm(found - golden) / np.linalg.norm(golden))


def speed(cases: dict[str, Case], device: str, rounds: int) -> Iterator[tuple[str, ...]]:
    """Yield the table of images per second, and of forward + gradient in forwards."""
    yield "work", "images/s", "in the time of jataug"
    for title, case in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            subject = Subject(case, device, folder)
            for name, work in (("PGD", pgd_of(subject)), ("joint", joint_of(subject))):
                seconds = interleaved(work, rounds)
                ours = seconds["jataug"]
                for contestant, times in seconds.items():
                    rate = spread(subject.batch / t for t in times)
                    share = spread(t / o for t, o in zip(times, ours, strict=True))
                    yield f"{title}, {name}, {contestant}", shown(rate, 0), shown(share, 2)
            yield f"{title}, (forward + gradient) / forward", "", shown(ratio(subject, rounds), 2)


def ratio(subject: Subject, rounds: int) -> tuple[float, float, float]:
    """Return median and quartiles, with inputs and outputs that stay on the device."""
    runs = {}
    for name, proto in (
        ("forward", onnx.load(subject.model.path)),
        ("both", differentiate(subject.model.path)),
    ):
        engine = subject.engine(proto, subject.device)
        shapes = {v.name: sizes_of(v, subject.batch) for v in proto.graph.input}
        inputs = {key: engine.empty(key, shape) for key, shape in shapes.items()}
        inputs[engine.inputs[0]].update_inplace(subject.images)
        outputs = {
            v.name: engine.empty(v.name, sizes_of(v, subject.batch)) for v in proto.graph.output
        }
        binding = engine.bind(inputs, outputs)
        runs[name] = lambda engine=engine, binding=binding: engine.run_bound(binding)
    seconds = interleaved(runs, rounds)
    return spread(b / f for b, f in zip(seconds["both"], seconds["forward"], strict=True))


def sizes_of(value: onnx.ValueInfoProto, batch: int) -> list[int]:
    return [d.dim_value or batch for d in value.type.tensor_type.shape.dim]


def pgd_of(subject: Subject) -> dict[str, Callable[[], object]]:
    session = subject.session(PGD, subject.device)
    images, labels, module = on_torch(subject)
    compiled = torch.compile(module, mode="reduce-overhead") if images.is_cuda else module
    last = images.contiguous(memory_format=torch.channels_last)

    def half() -> None:
        with torch.autocast(images.device.type, torch.bfloat16):
            eager_pgd(module, last, labels)

    found: dict[str, Callable[[], object]] = {
        "jataug": lambda: session.attack(subject.levels, subject.labels),
        "eager torch": done(lambda: eager_pgd(module, images, labels)),
        "channels_last, bfloat16": done(half),
    }
    if images.is_cuda:
        found["torch.compile"] = done(lambda: eager_pgd(compiled, images, labels))
        peer = torchattacks("PGD", alpha=STEP, steps=STEPS)
        found["torchattacks"] = done(lambda: peer(module, images, labels))
    return found


def joint_of(subject: Subject) -> dict[str, Callable[[], object]]:
    session = subject.session(JOINT, subject.device)
    images, labels, module = on_torch(subject)
    return {
        "jataug": lambda: session.attack(subject.levels, subject.labels),
        "eager torch": done(lambda: JointAttack(JOINT)(module, images, labels)),
    }


def on_torch(subject: Subject) -> tuple[torch.Tensor, torch.Tensor, torch.nn.Module]:
    module = subject.model.module.eval().to(subject.device)
    for parameter in module.parameters():
        parameter.requires_grad_(True)  # torchattacks reads the device from them
    tensors = (torch.from_numpy(a).to(subject.device) for a in (subject.images, subject.labels))
    return (*tensors, module)


def done(work: Callable[[], object]) -> Callable[[], object]:
    """Return the work, ended only when the card has ended it."""

    def run() -> None:
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return run


def memory(cases: dict[str, Case], device: str, rounds: int) -> Iterator[tuple[str, ...]]:
    """Yield the table of what the card holds after many batches, and of the largest batch."""
    yield "model", "batches", "memory, MiB: after the first", "after the last", "largest batch"
    for title, case in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            subject = Subject(case, device, folder)
            config, count = PGD.replace(steps=1), rounds * 1000
            with subject.session(config, device) as session:
                session.attack(subject.levels, subject.labels)
                first = held(device)
                for _ in range(count):
                    session.attack(subject.levels, subject.labels)
                last = held(device)
            most = largest(subject, config) if device != "cpu" else subject.batch
        yield title, f"{count:,}", f"{first:.0f}", f"{last:.0f}", str(most)


def held(device: str) -> float:
    """Return the MiB that are taken, on the card or in this process."""
    if device == "cpu":
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))
    free, total = torch.cuda.mem_get_info(device)
    return (total - free) / 2**20


def largest(subject: Subject, config: jataug.AttackConfig) -> int:
    """Return the largest power of two of images in a batch that the card takes."""
    fits, size = 0, subject.batch
    while True:
        path = Path(tempfile.mkdtemp(dir=subject.folder)) / "attack.onnx"
        export_attack(subject.model.path, config, path, check=False, target=TARGET)
        images = np.resize(subject.levels, (size, *subject.levels.shape[1:]))
        try:
            with jataug.Session.open(path, device=subject.device, batch_size=size) as session:
                session.attack(images, np.arange(size) % 10)
        except (JataugError, RuntimeError):
            return fits
        fits, size = size, size * 2


def shown(values: tuple[float, float, float], digits: int) -> str:
    middle, low, high = values
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


PARTS = {"parity": (parity, PARITY), "speed": (speed, SPEED), "memory": (memory, SPEED)}


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
