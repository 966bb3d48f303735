"""Runs one call of an artifact on every runtime of this machine, and compares the results."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from jataug.artifact import Manifest, load_artifact
from jataug.errors import ArtifactError, JataugError, ModelError, RuntimeUnavailable

from .call import call_of
from .candidates import Candidate, Compiled, candidates, golden, installed
from .deviation import MOVED, VALUES, difference

if TYPE_CHECKING:
    import onnx

__all__ = ["Row", "Survey", "survey"]

Status = Literal["right", "wrong", "refused", "not loaded", "not installed"]

_RUNS = 5
_PATIENCE = 10.0
"""Seconds. A runtime whose runs took longer is not timed again."""


@dataclass(frozen=True)
class Row:
    """One runtime with one provider.

    Attributes:
        runtime: its name.
        provider: what computes.
        version: None where it is not installed.
        status: "right" or "wrong" by the tolerances of the survey; "refused" where it does not
            take the model, "not loaded" where the provider is listed and does not come up.
        values, moved: see Difference; None where nothing ran.
        milliseconds: for one image, the median of a few calls.
        reason: why there is no result, in one line.
    """

    runtime: str
    provider: str
    version: str | None
    status: Status
    values: float | None = None
    moved: float | None = None
    milliseconds: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Survey:
    """The result of checking every runtime.

    Attributes:
        artifact: its path.
        golden: what the others are compared with.
        values, moved: the tolerances.
        rows: one for each runtime and provider.
    """

    artifact: str
    golden: str
    values: float
    moved: float
    rows: tuple[Row, ...]

    @property
    def ok(self) -> bool:
        """Whether no runtime is wrong."""
        return all(row.status != "wrong" for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {**asdict(self), "rows": [asdict(row) for row in self.rows], "ok": self.ok}


def survey(
    artifact: str | Path,
    only: Sequence[str] = (),
    *,
    threads: int | None = None,
    found: Callable[["onnx.ModelProto"], Sequence[Candidate]] = candidates,
) -> Survey:
    """Check every runtime that is installed on one call of an artifact.

    Args:
        artifact: the .onnx file that export wrote.
        only: names of runtimes or providers; the others are left out, and one of these that is
            not installed or does not load is an error. Default: all.
        threads: of each runtime's pool; default its own choice.
        found: returns the candidates for a model.

    Raises:
        ArtifactError: no artifact, or one without its weights.
        RuntimeUnavailable: a runtime of `only` is unknown, not installed or did not load.
        ModelError: the golden runtime refuses the model.
    """
    model, manifest = load_artifact(artifact)
    if manifest.weights:
        raise ArtifactError(
            f"{artifact}: expected an artifact with its weights inside, got one for jataug.trainer"
        )
    chosen = _chosen(found(model), only)
    feeds = call_of(manifest)
    sizes = {"N": len(feeds["image"]), "R": len(feeds["image"])}
    name, run = golden(model, sizes)
    wanted = run(feeds)
    call = _Call(model, manifest, sizes, feeds, run, wanted, threads)
    rows = [_row(candidate, call) for candidate in chosen]
    for row in rows:
        if only and row.status in ("not installed", "not loaded"):
            raise RuntimeUnavailable(f"{row.runtime} {row.provider}: {row.reason}")
    return Survey(str(artifact), name, VALUES, MOVED, tuple(rows))


def _chosen(found: Sequence[Candidate], only: Sequence[str]) -> list[Candidate]:
    names = {name for c in found for name in (c.name, c.provider)}
    if unknown := [name for name in only if name not in names]:
        raise RuntimeUnavailable(
            f"runtime: expected one of {', '.join(sorted(names))}, got {unknown[0]!r}"
        )
    return [c for c in found if not only or {c.name, c.provider} & set(only)]


@dataclass(frozen=True)
class _Call:
    """One call: the inputs for every runtime, and the reference results."""

    model: "onnx.ModelProto"
    manifest: Manifest
    sizes: Mapping[str, int]
    feeds: Mapping[str, NDArray[Any]]
    golden: Compiled
    wanted: Mapping[str, NDArray[Any]]
    threads: int | None

    def loss_of(self, results: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Return the golden loss of a state that came out."""
        state = {k: results[f"next_{k}"] for k in ("flow", "delta") if k in self.feeds}
        return self.golden({**self.feeds, **state})["loss"]


def _row(candidate: Candidate, call: _Call) -> Row:
    named = (candidate.name, candidate.provider, installed(candidate))
    if named[2] is None:
        return Row(*named, "not installed", reason="not installed")
    try:
        run = candidate.compile(call.model, call.sizes, call.threads)
        results = run(call.feeds)
    except ModelError as error:
        return Row(*named, "refused", reason=str(error))
    except JataugError as error:
        return Row(*named, "not loaded", reason=str(error))
    except Exception as error:  # whatever type a runtime gives its failures
        return Row(*named, "refused", reason=" ".join(str(error).split())[:300])
    apart = difference(results, call.wanted, call.manifest, call.loss_of)
    status: Status = "right" if apart.is_rounding else "wrong"
    taken = 1000 * _seconds(run, call.feeds) / call.sizes["N"]
    return Row(*named, status, apart.values, apart.moved, taken)


def _seconds(run: Compiled, feeds: Mapping[str, NDArray[Any]]) -> float:
    taken: list[float] = []
    while len(taken) < _RUNS and sum(taken) < _PATIENCE:
        began = time.perf_counter()
        run(feeds)
        taken.append(time.perf_counter() - began)
    return float(np.median(taken))
