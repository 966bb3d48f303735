"""A whole data set to each format: images per second against the attack alone, and peak memory.

Every cell (format, number of images) is a process of its own. It generates the data set once; every
few thousand images it stops and runs the attack alone on images in memory, in the same session, so
that both are timed in the same minutes. Its clock for the data set does not run meanwhile. The peak
memory is that of the process, before the data set is verified.

    python benchmarks/scale.py                    # 6,000 and 60,000 images of Fashion-MNIST
    python benchmarks/scale.py --smoke            # seconds, on the images in the package
    python benchmarks/scale.py --growth           # 1,000, 10,000 and 100,000: results/growth.md

A source that has fewer images than are asked for is repeated. Cells that are in the results already
are not measured again.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from timing import machine

import jataug
from jataug.data import open_source
from jataug.dataset import verify
from jataug.dataset.formats import FORMATS
from jataug.generator import generate

HERE = Path(__file__).resolve().parent
DEMO = Path(jataug.__file__).parent / "demo"
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz")
PACKAGES = ("jataug", "numpy", "onnxruntime", "pillow", "pyarrow")
BATCH = 64


class Alone:
    """Times the attack alone, in between."""

    def __init__(self, session, images, labels, every):
        self.session, self.every = session, every
        self.images, self.labels = images, labels
        self.paused, self.next, self.rates = 0.0, every, []

    def __call__(self, progress):
        if progress.done < self.next:
            return
        self.next += self.every
        began = time.perf_counter()
        for start in range(0, len(self.images), BATCH):
            part = slice(start, start + BATCH)
            indices = np.arange(start, start + len(self.images[part]))
            self.session.attack(self.images[part], self.labels[part], indices)
        seconds = time.perf_counter() - began
        self.rates.append(len(self.images) / seconds)
        self.paused += seconds


def cell(format, count, artifact, source, folder):
    """Return what was measured on one data set."""
    import resource

    with jataug.Session.open(artifact, device="cpu", batch_size=BATCH) as session:
        held = open_source(source)
        some = [held[index] for index in range(min(512, count))]
        images = np.stack([sample.image for sample in some])
        alone = Alone(session, images, np.array([s.label for s in some]), count // 6)
        session.attack(images[:BATCH], alone.labels[:BATCH], np.arange(min(BATCH, len(images))))
        began = time.perf_counter()
        options = {"format": format, "limit": count, "batch_size": BATCH, "progress": alone}
        report = generate(artifact, source, folder, session=session, **options)
        seconds = time.perf_counter() - began - alone.paused
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    checked = verify(folder)
    if not (report.complete and checked.ok):
        raise SystemExit(f"{format}: {checked.problems}")
    return {
        "rate": report.images / seconds,
        "alone": statistics.median(alone.rates),
        "alone_low": min(alone.rates),
        "alone_high": max(alone.rates),
        "peak_mib": peak / (2**20 if platform.system() == "Darwin" else 2**10),
        "verify_seconds": time.perf_counter() - began,
        "bytes": sum(p.stat().st_size for p in Path(folder).rglob("*") if p.is_file()),
        "accuracy": [report.clean_accuracy, report.adversarial_accuracy],
    }


def measured(arguments, format, count, artifact):
    """Run a cell in a process of its own."""
    folder = tempfile.mkdtemp(prefix="scale-", dir=arguments.directory)
    words = [format, str(count), str(artifact), str(arguments.source), folder]
    try:
        done = subprocess.run(
            [sys.executable, __file__, "--cell", *words],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            cwd=HERE,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return json.loads(done.stdout.splitlines()[-1])


def enough(source, count, folder):
    """Return a source of at least so many images: the one given, or an .npz that repeats it."""
    held = open_source(source)
    if len(held) >= count:
        return source
    path = Path(folder) / "repeated.npz"
    samples = [held[index] for index in range(len(held))]
    rows = np.arange(count) % len(samples)
    images = np.stack([sample.image for sample in samples])[rows]
    np.savez(path, images=images, labels=np.array([sample.label for sample in samples])[rows])
    return path


def versions():
    return {name: importlib.metadata.version(name) for name in PACKAGES} | {
        "python": platform.python_version()
    }


def table(cells, option):
    """Return the results as Markdown."""
    steps = sorted({cell["steps"] for cell in cells})
    lines = [
        "# A data set to each format",
        "",
        f"`python benchmarks/scale.py{option}`, "
        f"{' and '.join(map(str, steps))} iteration(s), batches of {BATCH}, one process, one "
        "session. The attack alone: the median of runs on 512 images (or as many as there are), "
        "in the same session, in between; lowest and highest in brackets. Memory: the peak of the "
        "process. Verify: hashes, counts, labels and budgets, with the source.",
        "",
        "| format | images | images/s | attack alone, images/s | part of it | peak memory, MiB | "
        "verify, s | bytes an image |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in cells:
        lines.append(
            f"| {row['format']} | {row['count']:,} | {row['rate']:.0f} | {row['alone']:.0f} "
            f"[{row['alone_low']:.0f}, {row['alone_high']:.0f}] | {row['rate'] / row['alone']:.2f} "
            f"| {row['peak_mib']:.0f} | {row['verify_seconds']:.1f} | "
            f"{row['bytes'] / row['count']:.0f} |"
        )
    lines += ["", "| format | peak memory, most images over fewest |", "|---|---|"]
    for format in dict.fromkeys(row["format"] for row in cells):
        peaks = {row["count"]: row["peak_mib"] for row in cells if row["format"] == format}
        if len(peaks) > 1:
            lines.append(f"| {format} | {peaks[max(peaks)] / peaks[min(peaks)]:.3f} |")
    last = cells[-1]
    packages = ", ".join(f"{name} {version}" for name, version in last["versions"].items())
    loads = [row["load"] for row in cells]
    lines += [
        "",
        f"{last['machine']}; {packages}. Load average before each cell: {min(loads):.1f} to "
        f"{max(loads):.1f}.",
    ]
    return "\n".join(lines) + "\n"


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="64 and 512 images of the package")
    parser.add_argument(
        "--growth", action="store_true", help="1,000 to 100,000 images, two formats"
    )
    parser.add_argument("--cell", nargs=5, help=argparse.SUPPRESS)
    parser.add_argument("--source", type=Path, help="images; default Fashion-MNIST")
    parser.add_argument("--counts", type=int, nargs="+", help="images of each data set")
    parser.add_argument("--formats", nargs="+", choices=list(FORMATS))
    parser.add_argument("--steps", type=int, default=1, help="iterations of the attack")
    parser.add_argument("--directory", help="where the data sets are made, and removed again")
    parser.add_argument("--results", type=Path, help="JSON lines; a table beside it")
    arguments = parser.parse_args()
    arguments.source = arguments.source or (
        DEMO / "images.npz" if arguments.smoke else FASHION_MNIST
    )
    growing = arguments.growth
    counts = [1_000, 10_000, 100_000] if growing else [6_000, 60_000]
    arguments.counts = arguments.counts or ([64, 512] if arguments.smoke else counts)
    arguments.formats = arguments.formats or (["folder", "npz"] if growing else list(FORMATS))
    if arguments.results is None:
        name = Path(tempfile.gettempdir()) / "scale-smoke.jsonl"
        written = HERE / "results" / ("growth.jsonl" if growing else "scale.jsonl")
        arguments.results = name if arguments.smoke else written
    return arguments


def main():
    arguments = parse()
    if arguments.cell:
        format, count, artifact, source, folder = arguments.cell
        print(json.dumps(cell(format, int(count), Path(artifact), Path(source), folder)))
        return
    if not arguments.source.exists():
        print(f"{arguments.source}: not there (Debian package dataset-fashion-mnist); nothing done")
        return
    from jataug.export import export_attack

    if arguments.smoke:
        arguments.results.unlink(missing_ok=True)
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.directory) as scratch:
        artifact = Path(scratch) / "attack.onnx"
        config = jataug.AttackConfig.preset("evaluation", steps=arguments.steps)
        export_attack(DEMO / "classifier.onnx", config, artifact)
        arguments.source = enough(arguments.source, max(arguments.counts), scratch)
        for count in arguments.counts:
            for format in arguments.formats:
                named = {"format": format, "count": count, "steps": arguments.steps}
                if any(named.items() <= done.items() for done in cells_of(arguments.results)):
                    continue
                load = os.getloadavg()[0]
                found = measured(arguments, format, count, artifact)
                row = {**named, **found, "load": load, "machine": machine(), "versions": versions()}
                with arguments.results.open("a", encoding="utf-8") as file:
                    file.write(f"{json.dumps(row)}\n")
    option = " --smoke" if arguments.smoke else " --growth" if arguments.growth else ""
    text = table(cells_of(arguments.results), option)
    arguments.results.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


def cells_of(path):
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


if __name__ == "__main__":
    main()
