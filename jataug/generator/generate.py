"""From a source of images to a data set of their adversarial versions: resumable, reproducible,
checked.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from ..checks import check_integer
from ..data import Source, open_source
from ..data.class_map import Classes
from ..dataset.counts import Progress
from ..dataset.plan import DEFAULT_BATCH, part_of
from ..errors import DataError
from .coordinator import Run
from .engines import Crew
from .estimate import estimate
from .generate_report import Estimate, Report
from .open_session import AttackSession, Opening, opened
from .request import prepare_job
from .shard_progress import Share

__all__ = ["generate", "generate_all"]

StrPath = str | PathLike[str]


def generate(
    artifact: StrPath | None,
    source: StrPath | Source,
    destination: StrPath,
    *,
    format: Literal["folder", "npz", "tar", "parquet"] = "folder",
    seed: int = 0,
    batch_size: int | None = None,
    shard_size: int = 1024,
    labels: Literal["source", "predicted"] = "source",
    classes: Classes = None,
    resize: int | None = None,
    crop: int | tuple[int, int] | None = None,
    save_flow: bool = False,
    save_float: bool = False,
    source_hash: bool = False,
    on_error: Literal["stop", "skip"] = "stop",
    limit: int | None = None,
    shard: str | None = None,
    engine: Literal["local", "ray"] = "local",
    workers: int = 1,
    gpus_per_worker: float | None = None,
    threads: int | None = None,
    device: str = "auto",
    backend: str = "onnxruntime",
    tf32: bool = False,
    epoch: int = 0,
    dry_run: bool = False,
    progress: Callable[[Progress], object] | None = None,
    stop: Callable[[], bool] | None = None,
    session: AttackSession | None = None,
) -> Report:
    """Attack every image of a source and store the results; run again, it goes on where it was
    stopped.

    Args:
        artifact: the attack, an .onnx file that jataug.export wrote; may be None where `session` is
            given.
        source: what jataug.data.open_source takes, or a source.
        destination: a new or empty folder, or one where the same plan was begun.
        format: "folder" stores a PNG an image, "npz" an archive a shard, "tar" WebDataset shards,
            "parquet" shards with the Hugging Face Image feature.
        seed: of the random starts and targets.
        batch_size: images per call of the model; part of what decides the last bits. Default: the
            session's, or else 64, or as many as there are.
        shard_size: images per shard, rounded up to whole batches.
        labels: "source", or "predicted" for the model's own prediction.
        classes: what class folders mean to the model: a text file with a name a line, JSON {name:
            class}, or a mapping.
        resize: length of the shorter side, pixels; see jataug.data.Geometry.
        crop: side of the centre crop, or (height, width), pixels.
        save_flow: store the flow fields, float16, so that verify can check budgets exactly.
        save_float: store the images before they were quantised, float32.
        source_hash: tell a changed source by its bytes instead of sizes and modification times.
        on_error: "stop" at an image that cannot be used, or "skip" it; the other images do not
            change.
        limit: use the first `limit` samples.
        shard: "i/n": make the i-th of n parts of the shards; workers may share a destination.
        engine: "local", or "ray" for Ray Data; the bytes are the same.
        workers: how many work at once, each in a process of its own with its own session.
        gpus_per_worker: with Ray: the part of a GPU, or the number of GPUs, that a worker gets.
        threads: of the runtime, in every worker; part of what decides the last bits. By default
            its own choice, which depends on the machine.
        device: "auto", "cpu", "cuda" or "cuda:1".
        backend: the runtime, "onnxruntime" or "openvino"; of `session`, where that is given.
        tf32: let CUDA round products to TF32; another data set. Of `session`, likewise.
        epoch: another epoch draws other starts and targets.
        dry_run: check everything, estimate time and space from one batch, and write nothing.
        progress: called after every batch.
        stop: asked after every batch; true ends the run, and the same call goes on later.
        session: an open session to use instead of opening `artifact`; with one worker only.

    Raises:
        DataError: the source, the destination or an option cannot be used; the message says which
            and why.
        ArtifactError: the artifact cannot be used.
        RuntimeUnavailable: the device cannot be used.
    """
    options = dict(locals())
    for name in ("artifact", "source", "destination", "session"):
        del options[name]
    (report,) = _generate([artifact], [session], source, [Path(destination)], **options)
    return report


def generate_all(
    artifacts: Sequence[StrPath], source: StrPath | Source, destination: StrPath, **options: Any
) -> dict[str, Report]:
    """Attack a source with several artifacts, reading every image once; a data set for each of
    them, as `generate` makes it alone.

    Args:
        artifacts: the attacks; their file names differ.
        source: as of `generate`.
        destination: the folder of the data sets; each is named after its artifact, without suffix.
        options: those of `generate`, but for `session`. Progress counts all data sets together.

    Returns:
        The reports, by the name of the data set, in the order of `artifacts`.

    Raises:
        DataError: two artifacts have one name; and what `generate` raises.
    """
    names = [Path(artifact).stem for artifact in artifacts]
    double = sorted({name for name in names if names.count(name) > 1 or not name})
    if double or not names:
        raise DataError(
            "artifacts: expected files with names that differ, got "
            f"{f'{double[0]!r} twice' if double else 'none'}"
        )
    if "session" in options:
        raise DataError("session: expected none with several artifacts, each opens its own")
    roots = [Path(destination) / name for name in names]
    given = {**(generate.__kwdefaults__ or {}), **options}
    del given["session"]
    if unknown := sorted(set(options) - set(given)):
        raise TypeError(f"generate_all() got an unexpected keyword argument {unknown[0]!r}")
    reports = _generate(list(artifacts), [None] * len(names), source, roots, **given)
    return dict(zip(names, reports, strict=True))


def _generate(
    artifacts: Sequence[StrPath | None],
    sessions: Sequence[AttackSession | None],
    source: StrPath | Source,
    roots: Sequence[Path],
    *,
    batch_size: int | None,
    shard: str | None,
    engine: str,
    workers: int,
    gpus_per_worker: float | None,
    device: str,
    backend: str,
    tf32: bool,
    dry_run: bool,
    progress: Callable[[Progress], object] | None,
    stop: Callable[[], bool] | None,
    **options: Any,
) -> list[Report]:
    """Return a report for each artifact."""
    began = time.monotonic()
    crew, part = Crew(engine, workers, gpus_per_worker), part_of(shard)
    if batch_size is not None:
        check_integer("batch_size", batch_size, 1)
    if any(session is not None for session in sessions) and (engine, workers) != ("local", 1):
        raise DataError(
            "session: expected none, each worker opens its own; give the artifact's path"
        )
    if engine == "ray":  # its workers may stand in another folder
        source = source if isinstance(source, Source) else Path(source).absolute()
        roots = [root.absolute() for root in roots]
    held = source if isinstance(source, Source) else open_source(source)
    size = batch_size or _batch_size(len(held), options["limit"], sessions)
    with ExitStack() as stack:
        openings = [
            None
            if artifact is None
            else Opening(Path(artifact).absolute(), size, device, options["threads"], backend, tf32)
            for artifact in artifacts
        ]
        attackers = [
            stack.enter_context(opened(opening, session, batch_size=size))
            for opening, session in zip(openings, sessions, strict=True)
        ]
        shares = [
            Share(prepare_job(attacker, artifact, held, root, batch_size=size, **options), part)
            for attacker, artifact, root in zip(attackers, artifacts, roots, strict=True)
        ]
        estimates: list[Estimate | None] = [None] * len(shares)
        asked = _Asked(stop)
        if dry_run:
            estimates = [estimate(*pair) for pair in zip(shares, attackers, strict=True)]
        else:
            for group in _groups(shares):
                of = [shares[k] for k in group], [openings[k] for k in group]
                Run(*of, [attackers[k] for k in group], crew, progress, asked).make()
        seconds = time.monotonic() - began
        return [
            share.report(seconds, stopped=asked.answer, estimate=found)
            for share, found in zip(shares, estimates, strict=True)
        ]


def _batch_size(count: int, limit: Any, sessions: Sequence[AttackSession | None]) -> int:
    """Return the default: a given session's own; else a few images make a small batch, as it is
    padded to its size.
    """
    for session in sessions:
        if isinstance(own := getattr(session, "batch_size", None), int):
            return own
    wanted = min(count, limit) if isinstance(limit, int) and limit > 0 else count
    return max(1, min(DEFAULT_BATCH, wanted))


class _Asked:
    """Remembers whether a run was asked to stop.

    Args:
        stop: whether to stop; None for never.
    """

    def __init__(self, stop: Callable[[], bool] | None) -> None:
        self._stop, self.answer = stop, False

    def __call__(self) -> bool:
        self.answer = self.answer or bool(self._stop and self._stop())
        return self.answer


def _groups(shares: Sequence[Share]) -> list[list[int]]:
    """Return the positions of shares; those of one image shape share what is read."""
    groups: dict[tuple[int, int, int], list[int]] = {}
    for number, share in enumerate(shares):
        groups.setdefault(share.job.plan.image_shape, []).append(number)
    return list(groups.values())
