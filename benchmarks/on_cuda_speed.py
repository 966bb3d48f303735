"""Speed on a GPU: whole attacks beside torch, what is above two forwards, an epoch of training."""

import itertools
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from attacks import JOINT, PGD, STEP, STEPS, eager_pgd
from excess import KINDS
from gradient import wide_resnet
from on_cuda_subject import Case, Subject, resnet50, shown, sizes_of
from strength_peers import torchattacks
from timing import interleaved, spread

import jataug
from jataug.attack import JointAttack
from jataug.export import differentiate
from jataug.trainer import Part, TrainConfig, train

__all__ = ["SPEED", "profile", "speed", "training"]

SPEED = {
    "WRN-28-10, 32x32, batch 512": Case(wide_resnet, 512),
    "ResNet-50, 224x224, batch 128": Case(resnet50, 128),
}
Work = dict[str, Callable[[], object]]


def speed(cases: dict[str, Case], device: str, rounds: int) -> Iterator[tuple[str, ...]]:
    """Yield the table of images per second, of forward + gradient in forwards, and of the part of
    the card's own rate of matrix products that this is.
    """
    yield "work", "images/s", "in the time of jataug"
    for title, case in cases.items():
        with Subject(case, device) as subject:
            for name, work in (("PGD", pgd_of(subject)), ("joint", joint_of(subject))):
                seconds = interleaved(work, rounds)
                ours = seconds["jataug"]
                for contestant, times in seconds.items():
                    rate = spread(subject.batch / t for t in times)
                    share = spread(t / o for t, o in zip(times, ours, strict=True))
                    yield f"{title}, {name}, {contestant}", shown(rate, 0), shown(share, 2)
            forwards, used = ratio(subject, rounds)
            yield f"{title}, (forward + gradient) / forward", "", shown(forwards, 2)
            yield f"{title}, part of the rate of matrix products", "", f"{used:.2f}"


def ratio(subject: Subject, rounds: int) -> tuple[tuple[float, float, float], float]:
    """Return forward + gradient in forwards, with inputs and outputs that stay on the device, and
    its operations a second in those of a large matrix product.
    """
    runs = {}
    for name, proto in (("forward", subject.proto), ("both", differentiate(subject.model.path))):
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
    forwards = spread(b / f for b, f in zip(seconds["both"], seconds["forward"], strict=True))
    rate = 2 * operations(subject) / float(np.median(seconds["both"]))
    return forwards, rate / matrix_rate(subject.device)


def operations(subject: Subject) -> float:
    """Return the floating-point operations of a forward pass of the batch, as torch counts them."""
    from torch.utils.flop_counter import FlopCounterMode

    images, _, module = subject.on_torch()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(images)
    return float(counter.get_total_flops())


def matrix_rate(device: str, size: int = 4096) -> float:
    """Return the operations a second of a product of two float32 matrices, TF32 off."""
    size = size if device != "cpu" else 512
    left, right = (torch.rand(size, size, device=device) for _ in range(2))
    seconds = interleaved({"product": done(lambda: left @ right)}, 10)["product"]
    return 2 * size**3 / float(np.median(seconds))


def pgd_of(subject: Subject) -> Work:
    images, labels, module = subject.on_torch()
    last = images.contiguous(memory_format=torch.channels_last)

    def half() -> None:
        with torch.autocast(images.device.type, torch.bfloat16):
            eager_pgd(module, last, labels)

    found = ours(subject, PGD)
    found |= {
        "eager torch": done(lambda: eager_pgd(module, images, labels)),
        "eager torch, channels_last, bfloat16": done(half),
    }
    if subject.on_card:
        compiled = torch.compile(module, mode="reduce-overhead")
        found["torch.compile"] = done(lambda: eager_pgd(compiled, images, labels))
        peer = torchattacks("PGD", alpha=STEP, steps=STEPS)
        found["torchattacks"] = done(lambda: peer(module, images, labels))
    return found


def joint_of(subject: Subject) -> Work:
    images, labels, module = subject.on_torch()
    found = ours(subject, JOINT)
    found["eager torch"] = done(lambda: JointAttack(JOINT)(module, images, labels))
    if subject.on_card:
        compiled = torch.compile(module, mode="reduce-overhead")
        found["torch.compile"] = done(lambda: JointAttack(JOINT)(compiled, images, labels))
    return found


def ours(subject: Subject, config: jataug.AttackConfig) -> Work:
    """Return our own contestants: from and to the host, and what CUDA adds."""
    plain = subject.session(config)
    found: Work = {"jataug": lambda: plain.attack(subject.levels, subject.labels)}
    if not subject.on_card:
        return found
    levels = torch.from_numpy(subject.levels).to(subject.device)
    labels = torch.from_numpy(subject.labels).to(subject.device)
    graph = subject.session(config, cuda_graph=True)
    short = subject.session(config, cuda_graph=True, tf32=True)
    half = subject.session(config, cuda_graph=True, precision="float16")
    found |= {
        "jataug, tensors": done(lambda: plain.attack(levels, labels)),
        "jataug, tensors, CUDA graph": done(lambda: graph.attack(levels, labels)),
        "jataug, tensors, CUDA graph, TF32": done(lambda: short.attack(levels, labels)),
        "jataug, tensors, CUDA graph, float16": done(lambda: half.attack(levels, labels)),
    }
    return found


def done(work: Callable[[], object]) -> Callable[[], object]:
    """Return the work, ended only when the card has ended it."""

    def run() -> None:
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return run


def profile(cases: dict[str, Case], device: str, rounds: int) -> Iterator[tuple[str, ...]]:
    """Yield the table of nodes off the card, copies, and what is above two forwards by kind."""
    yield "model", "nodes on the CPU", "copies", "above two forwards, in forwards: by kind"
    for title, case in cases.items():
        with Subject(case, device) as subject:
            forward, _ = by_kind(subject, subject.proto, rounds)
            both, placed = by_kind(subject, differentiate(subject.model.path), rounds)
        unit = sum(forward.values())
        above = Counter({kind: (both[kind] - 2 * forward[kind]) / unit for kind in both})
        kinds = ", ".join(f"{kind} {share:.2f}" for kind, share in above.most_common(6))
        copies = sum("Memcpy" in kind for kind, _ in placed)
        elsewhere = sum(device != "cpu" and place.startswith("CPU") for _, place in placed)
        yield title, str(elsewhere), str(copies), f"{sum(above.values()):.2f}: {kinds}"


def by_kind(
    subject: Subject, proto: onnx.ModelProto, rounds: int
) -> tuple[Counter[str], list[tuple[str, str]]]:
    """Return kernel seconds a run by kind of node, and each node with its provider."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.enable_profiling, options.log_severity_level = True, 4
        options.profile_file_prefix = str(Path(folder) / "profile")
        options.add_free_dimension_override_by_name(
            proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param, subject.batch
        )
        card = ("CUDAExecutionProvider", {"use_tf32": 0})
        providers = [*([card] if subject.on_card else []), "CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers)
        rng = np.random.default_rng(0)
        feeds = {v.name: rng.random(v.shape, np.float32) for v in session.get_inputs()}
        for _ in range(rounds):
            session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text())
    seconds: Counter[str] = Counter()
    placed = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("kernel_time"):
            kind = event["args"]["op_name"]
            seconds[KINDS.get(kind, kind)] += event["dur"] / 1e6 / rounds
            placed[event["name"]] = (kind, event["args"].get("provider", ""))
    return seconds, list(placed.values())


def training(cases: dict[str, Case], device: str, rounds: int) -> Iterator[tuple[str, ...]]:
    """Yield the table of training steps: images per second, and the most memory of torch."""
    yield "network, way", "images/s", "memory, MiB"
    small = not set(cases) & set(SPEED)
    network = "small-cnn" if small else "wrn-28-10"
    options = {"batch_size": 16 if small else 256, "device": device, "validation": 16}
    for way, its in WAYS.items():
        with tempfile.TemporaryDirectory(prefix="jataug-") as folder:
            source = Path(folder) / "images.npz"
            count = 16 + options["batch_size"] * (3 if small else 5 + rounds)
            write_images(source, count)
            seconds, most = steps_of(
                TrainConfig(
                    source=str(source), output=str(Path(folder) / "run"), model=network, epochs=1,
                    evaluation_images=0, attack=ATTACK, **options, **its,
                )
            )  # fmt: skip
        rate = spread(options["batch_size"] / s for s in seconds[2:] or seconds)
        yield f"{network}, {way}", shown(rate, 0), f"{most:.0f}"


ATTACK = jataug.AttackConfig(
    flow=jataug.FlowBudget(0.3), pixel=jataug.PixelBudget("8/255"), steps=1
)
WAYS = {
    "natural": {"mode": "natural"},
    "joint, torch": {"mixture": (Part("attack"),)},
    "joint, torch.compile": {"mixture": (Part("attack"),), "compile": True},
    "joint, ONNX Runtime on live weights": {"mixture": (Part("runtime"),)},
}


def write_images(path: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
    np.savez(path, images=images, labels=np.arange(count) % 10)


def steps_of(config: TrainConfig) -> tuple[list[float], float]:
    """Return the seconds between the steps of an epoch, and the most MiB that torch held."""
    at = [time.perf_counter()]
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    train(config, progress=lambda _: at.append(time.perf_counter()))
    most = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else 0.0
    return [b - a for a, b in itertools.pairwise(at)], most
