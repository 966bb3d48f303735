"""ONNX Runtime for Node.js and on the Web as candidates of a survey, driven by conformance.mjs."""

import json
import statistics
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from drivers import packages  # of tests/
from numpy.typing import NDArray

from jataug.runtime.unsupported import refusal
from jataug.selfcheck.candidates import Candidate

__all__ = ["Process", "javascript"]

SCRIPT = Path(__file__).with_suffix(".mjs").with_name("conformance.mjs")
PACKAGES = {
    "onnxruntime-node": ("node", "onnxruntime-node/dist/index.js", "CPU"),
    "onnxruntime-web": ("browser", "onnxruntime-web/dist/ort.node.min.mjs", "WASM, in Node.js"),
}


class Process:
    """A JavaScript runtime in a process of its own.

    Attributes:
        milliseconds: of the calls so far, without what moves their inputs and outputs.
    """

    def __init__(self, package: Path, threads: int) -> None:
        self._folder = TemporaryDirectory()
        self._process = subprocess.Popen(
            [packages.program("node"), str(SCRIPT), str(package), str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.milliseconds: list[float] = []

    def open(self, model: Any) -> None:
        path = Path(self._folder.name) / "model.onnx"
        path.write_bytes(model.SerializeToString())
        self._asked({"model": str(path)})

    def __call__(self, feeds: Any) -> dict[str, NDArray[Any]]:
        folder = Path(self._folder.name)
        told = []
        for name, array in feeds.items():
            np.ascontiguousarray(array).tofile(folder / f"{name}.in")
            told.append(
                {"name": name, "type": str(array.dtype), "dims": array.shape,
                 "file": str(folder / f"{name}.in")}
            )  # fmt: skip
        answer = self._asked({"feeds": told, "folder": str(folder)})
        self.milliseconds.append(answer["milliseconds"])
        return {
            o["name"]: np.fromfile(folder / f"{o['name']}.raw", o["type"]).reshape(o["dims"])
            for o in answer["outputs"]
        }

    def median(self) -> float:
        """Milliseconds of a call, the first left out."""
        return statistics.median(self.milliseconds[1:] or self.milliseconds)

    def close(self) -> None:
        self._process.communicate()
        self._folder.cleanup()

    def _asked(self, request: Any) -> Any:
        self._process.stdin.write(f"{json.dumps(request)}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process ended with {self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer


def javascript(folder: Path, opened: dict[str, Process], threads: int) -> list[Candidate]:
    """Return both runtimes; `opened` gets the process of each, to read its times and to close.

    Raises:
        NoProgramError: Node.js or npm is not installed.
    """
    return [_candidate(folder, opened, name, threads) for name in PACKAGES]


def _candidate(folder: Path, opened: dict[str, Process], name: str, threads: int) -> Candidate:
    example, entry, provider = PACKAGES[name]
    place = folder / name
    modules = (place / example if place.exists() else packages.example(example, place)) / (
        "node_modules"
    )
    version = json.loads((modules / name / "package.json").read_text("utf-8"))["version"]

    def compile(model: Any, sizes: Any, given: int | None) -> Process:
        process = opened[name] = Process(modules / entry, threads)
        try:
            process.open(model)
        except RuntimeError as error:
            raise refusal(f"{name} {version}", model, error) from error
        return process

    return Candidate(name, provider, lambda: f"{name} {version}", compile)
