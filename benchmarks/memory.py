"""Peak memory of forward + gradient on ONNX Runtime, in that of eager torch.

    python benchmarks/memory.py [--rounds 3]
    python benchmarks/memory.py --kept        # what the gradient keeps of the forward pass, by kind
    python benchmarks/memory.py --without     # memory and time without what makes it smaller

Every measurement is a process of its own that has loaded the model and its inputs; counted is how
far the process grows above that while the gradient is computed twice. Eager torch comes as a model
comes, with parameters that want gradients, and frozen, which keeps less. Needs Linux.
"""

import argparse
import os
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "tests"), str(HERE.parent / "examples"), str(HERE)]

import gradient  # noqa: E402
import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
from timing import Row, interleaved, machine, ratios, spread  # noqa: E402

from jataug.export.gradient.split_vjp import split_vjp  # noqa: E402
from jataug.export.model.load import load_model, prepare  # noqa: E402

KINDS = ("jataug", "eager torch", "eager torch, frozen")
WITHOUT = {"jataug": (True, False), "all kept": (False, False), "all kept, planned": (False, True)}
"""Whether cheap values are computed again, and whether ONNX Runtime plans one block for a run."""
CASES = (
    "ResNet-18, 32x32, batch 32", "EfficientNet-Lite0, 224x224, batch 8",
    "ViT-S/16, 224x224, batch 8",
)  # fmt: skip


def grown(work: Callable[[], object]) -> float:
    """Return by how many MiB the process grows at most while `work` runs twice."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = field("VmRSS")
    work()
    work()
    return field("VmHWM") - before


def field(name: str) -> float:
    """Return a size of this process in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def prepared(case: gradient.Case, kind: str) -> Callable[[], object]:
    """Return what computes the gradient once."""
    model, batch = case.load(), case.batch
    shape = gradient.onnx.load(model.path).graph.input[0].type.tensor_type.shape.dim
    image = np.random.default_rng(0).random((batch, *(d.dim_value for d in shape[1:])), np.float32)
    torch = gradient.torch
    if kind in WITHOUT and kind != "jataug":
        return session(case, *WITHOUT[kind])
    if kind == "jataug":
        engine = gradient.Engine(gradient.differentiate(model.path), {"N": batch}, "cpu")
        classes = int(model.module(torch.zeros(1, *image.shape[1:])).shape[1])
        both = dict(zip(engine.inputs, (image, np.ones((batch, classes), np.float32)), strict=True))
        return lambda: engine.run(both)
    module = model.module.eval()
    for parameter in module.parameters():
        parameter.requires_grad_("frozen" not in kind)
    tensor = torch.from_numpy(image).requires_grad_()
    return lambda: torch.autograd.grad(module(tensor).sum(), tensor)


def session(case: gradient.Case, again: bool, planned: bool) -> Callable[[], object]:
    """Return what computes the gradient, without the measures that are left out."""
    module = sys.modules["jataug.export.gradient.differentiate"]  # the name is a function, too
    passes = module.rematerialize, module.order_by_depth
    if not again:
        module.rematerialize = module.order_by_depth = lambda graph: None
    proto = gradient.differentiate(case.load().path)
    module.rematerialize, module.order_by_depth = passes
    options = onnxruntime.SessionOptions()
    options.enable_mem_pattern = planned
    for value in proto.graph.input:
        name = value.type.tensor_type.shape.dim[0].dim_param
        options.add_free_dimension_override_by_name(name, case.batch)
    runner = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    rng = np.random.default_rng(0)
    feeds = {
        v.name: rng.random([d if isinstance(d, int) else case.batch for d in v.shape], np.float32)
        for v in runner.get_inputs()
    }
    return lambda: runner.run(None, feeds)


def without(rounds: int) -> Iterator[str]:
    """Yield a line a case: memory, and time in that of jataug."""
    for title in CASES:
        case = gradient.CASES[title]
        sizes = {kind: np.median([measured(title, kind) for _ in range(3)]) for kind in WITHOUT}
        runs = {kind: session(case, *measures) for kind, measures in WITHOUT.items()}
        times = ratios(interleaved(runs, rounds), "jataug")
        for kind, size in sizes.items():
            middle, low, high = times[kind]
            yield f"{title}, {kind}: {size:.0f} MiB, time {middle:.2f} [{low:.2f}, {high:.2f}]"


def kept(case: gradient.Case) -> Counter[str]:
    """Return the MiB that the gradient reads of the forward pass, by the kind of node that made
    them.
    """
    forward = split_vjp(prepare(load_model(case.load().path)), None).forward
    makers = {name: node.op_type for node in forward.graph.node for name in node.output}
    found: Counter[str] = Counter()
    for value in forward.graph.output[1:]:
        kind = value.type.tensor_type
        size = np.dtype(gradient.onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)).itemsize
        count = np.prod([dim.dim_value or case.batch for dim in kind.shape.dim])
        found[makers.get(value.name, "the image")] += int(count) * size / 2**20
    return found


def rows(rounds: int, smoke: bool = False) -> Iterator[Row]:
    """Yield the rows of benchmarks/README.md."""
    for title in gradient.SMOKE if smoke else CASES:
        found = {kind: [measured(title, kind) for _ in range(rounds)] for kind in KINDS}
        for kind, bound in zip(KINDS[1:], (1.1, None), strict=True):
            quotients = [a / b for a, b in zip(found["jataug"], found[kind], strict=True)]
            size = f"{np.median(found['jataug']):.0f} MiB"
            yield Row(f"{title}: {size}", kind, *spread(quotients), most=bound)


def measured(title: str, kind: str) -> float:
    """Return the MiB of one process."""
    command = [sys.executable, __file__, "--one", title, kind]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kept", action="store_true", help="by kind of node, and nothing else")
    parser.add_argument("--without", action="store_true", help="memory and time of what was before")
    parser.add_argument("--one", nargs=2, metavar=("CASE", "KIND"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.one:
        title, kind = options.one
        print(grown(prepared((gradient.SMOKE | gradient.CASES)[title], kind)))
        return
    if options.kept:
        for title in CASES:
            found = kept(gradient.CASES[title])
            kinds = ", ".join(f"{kind} {size:.0f}" for kind, size in found.most_common(6))
            print(f"{title}: {sum(found.values()):.0f} MiB: {kinds}")
        return
    if options.without:
        for line in without(max(options.rounds, 9)):
            print(line, flush=True)
        return
    print(f"{machine()}; {os.uname().sysname}")
    for row in rows(options.rounds):
        print(row, flush=True)


if __name__ == "__main__":
    main()
