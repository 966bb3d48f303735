"""What drivers need that pip cannot bring: npm's packages, a compiler, ONNX Runtime's headers."""

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from material import ROOT, UnavailableError, cache, fetched

__all__ = ["EXAMPLES", "NoProgramError", "compiled", "example", "program"]

EXAMPLES = ROOT / "examples"

HEADERS = "com.github.asus4.onnxruntime@0.4.9"
"""A package that has the headers, of ONNX Runtime 1.29; the library comes with Python's package."""

OLDEST = (1, 29)
PARTS = ("onnxruntime_c_api.h", "onnxruntime_cxx_api.h")


class NoProgramError(Exception):
    """A program that no package registry brings is not installed."""


def program(name: str) -> str:
    """Return the path of a program."""
    found = shutil.which(name)
    if found is None:
        raise NoProgramError(f"{name} is not installed")
    return found


def example(name: str, folder: Path) -> Path:
    """Copy examples/<name>, with what it imports and its npm packages, into `folder`."""
    for part in {name, "node", "vector"}:
        skip = shutil.ignore_patterns("node_modules", "site", "build")
        shutil.copytree(EXAMPLES / part, folder / part, ignore=skip)
    (folder / name / "node_modules").symlink_to(_modules(EXAMPLES / name))
    return folder / name


def _modules(source: Path) -> Path:
    """Install what package-lock.json says, once, into the cache."""
    program("node")
    lock = (source / "package-lock.json").read_bytes()
    target = cache() / f"npm-{source.name}-{hashlib.sha256(lock).hexdigest()[:12]}"
    if not target.is_dir():
        with tempfile.TemporaryDirectory(dir=cache()) as scratch:
            site = Path(scratch) / "site"
            site.mkdir()
            for name in ("package.json", "package-lock.json"):
                shutil.copy(source / name, site)
            _npm(site, "ci", "--ignore-scripts", "--no-audit", "--no-fund")
            _drop_other_systems(site)
            _moved(site, target)
    return target / "node_modules"  # packages find each other only in a folder of this name


def _drop_other_systems(folder: Path) -> None:
    """onnxruntime-node brings the libraries of every system, 240 MB."""
    for system in ("darwin", "win32"):
        for found in folder.glob(f"node_modules/onnxruntime-node/bin/*/{system}"):
            shutil.rmtree(found)


def _npm(folder: Path, *words: str) -> None:
    fetched(f"npm {words[0]}", [program("npm"), *words], 500, folder)


def _moved(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError:
        if not target.is_dir():
            raise


def compiled(folder: Path) -> Path:
    """Build examples/cpp with make; return the program."""
    for name in ("make", "g++"):
        program(name)
    command = ["make", "-C", str(EXAMPLES / "cpp"), f"BUILD={folder}"]
    command += [f"ORT_INCLUDE={_headers()}", f"ORT_LIB={_library()}"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return folder / "attack"


def _library() -> Path:
    import onnxruntime

    version = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2])
    found = sorted(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so*"))
    if version < OLDEST or not found:
        raise NoProgramError(f"onnxruntime {onnxruntime.__version__} has no library to link with")
    return found[-1]


def _headers() -> Path:
    target = cache() / "onnxruntime-headers"
    if not target.is_dir():
        with tempfile.TemporaryDirectory(dir=cache()) as scratch:
            _npm(Path(scratch), "pack", HEADERS)
            (archive,) = Path(scratch).glob("*.tgz")
            _extract_headers(archive, Path(scratch) / "include")
            _moved(Path(scratch) / "include", target)
    return target


def _extract_headers(archive: Path, folder: Path) -> None:
    folder.mkdir()
    with tarfile.open(archive) as files:
        for member in files:
            path = Path(member.name)
            if "ios-arm64" in path.parts and path.parent.name == "Headers" and member.isfile():
                content = files.extractfile(member)
                assert content is not None
                (folder / path.name).write_bytes(content.read())
    missing = [name for name in PARTS if not (folder / name).is_file()]
    if missing:
        raise UnavailableError(f"{HEADERS}: no {missing[0]} inside")
