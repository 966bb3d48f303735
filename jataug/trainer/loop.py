"""Joint adversarial training (claims 15-20): the loop, read from top to bottom."""

import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..attack.problem import logits_of
from ..data import first_classes
from ..errors import CheckError, ModelError
from ..smoothing import Smoothing
from .average import Average
from .batches import Batches, autocast
from .data import TrainData, load_data
from .defaults import unsaid
from .held_out import measure
from .models import build
from .processes import Processes, joined
from .run_folder.checkpoint import load_weights, write_checkpoint
from .run_folder.metrics import Events, append, draw_curves, read_metrics
from .run_folder.run import BEST, METRICS, initial_weights, open_run, resumed
from .run_folder.train_progress import Position, resume, save
from .run_folder.train_report import TrainProgress, TrainReport
from .schedule import learning_rate
from .train_config import TrainConfig

__all__ = ["train"]


def train(
    config: TrainConfig,
    *,
    progress: Callable[[TrainProgress], None] | None = None,
    say: Callable[[str], object] | None = None,
) -> TrainReport:
    """Train a network, or go on where a run was stopped; a finished run is left as it is.

    The weights of a run that was killed and resumed are those of one that was not, on the same
    machine with the same number of threads and processes, on the CPU.

    Args:
        config: everything about the run.
        progress: is told after every step.
        say: hears how the first classes are numbered, where they have names, and which options the
            run has chosen, a line each.

    Raises:
        DataError: the source, the output, the mixture or the checkpoint do not fit the
            configuration.
        ModelError: the network cannot be built, or gives something else than logits.
        CheckError: the loss or the weights are no longer finite; the last good checkpoint is kept.
        RuntimeUnavailable: the device is not there.
    """
    began = time.perf_counter()
    with joined(config) as processes, _random(config.seed, processes):
        config = resumed(config)
        chosen, data = unsaid(config), load_data(config)
        config = data.config
        processes.check_batch(config.batch_size)
        if data.left_out and processes.first:
            warnings.warn(f"{config.source}: {data.left_out}", stacklevel=2)
        if say is not None and processes.first:
            if data.names:
                say(first_classes({number: name for name, number in data.names.items()}))
            if chosen:
                say(_choice(config, chosen))
        model = _network(config, data, processes)
        average = Average(model, config.ema)
        optimizer = torch.optim.SGD(
            model.parameters(), lr=config.lr, momentum=config.momentum,
            weight_decay=config.weight_decay, nesterov=config.nesterov,
        )  # fmt: skip
        root = open_run(config, data, processes)
        state = (model, average, optimizer, processes)
        if (at := resume(root, *state)) is None:
            save(root, at := Position(), *state)
        steps = data.steps(config.batch_size)
        first = at.epoch * steps + at.step
        events = Events(root, first) if config.tensorboard and processes.first else None
        batches = Batches(config, data, model, processes)
        stepped = processes.wrap(model)
        smoothing = Smoothing(config.label_smoothing, config.convention)
        soft_labels = torch.from_numpy(smoothing.table(data.classes)).to(processes.device)

        for epoch in range(at.epoch, config.epochs):
            for step in range(at.step, steps):
                clock = time.perf_counter()
                images, labels = batches(epoch, step)
                target = soft_labels[labels]
                rate = learning_rate(config, epoch * steps + step, steps)
                optimizer.param_groups[0]["lr"] = rate

                model.train()
                with autocast(config, processes.device):
                    output = logits_of(stepped(images))
                    logits = _checked(output, len(images), data.classes)
                loss = cross_entropy(logits, target)
                right = float((logits.argmax(1) == labels).sum())
                summed, right, seen = processes.total(
                    float(loss.detach()) * len(images), right, len(images)
                )
                if not math.isfinite(summed):
                    raise _diverged(root, summed, epoch, step)
                optimizer.zero_grad()
                torch.autograd.backward([loss])
                if config.clip is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), config.clip)
                optimizer.step()
                processes.average_buffers(model)
                average.update(epoch * steps + step)

                at.advance(summed, right, seen, time.perf_counter() - clock)
                if progress is not None and processes.first:
                    progress(_progress(at, config, steps))
                if at.step < steps and at.step % (config.checkpoint_steps or steps) == 0:
                    save(root, at, *state)

            line: dict[str, Any] = {
                "epoch": epoch, "step": (epoch + 1) * steps,
                "rate": learning_rate(config, (epoch + 1) * steps - 1, steps),
                "loss": at.loss / at.seen, "accuracy": at.right / at.seen,
                "train_seconds": round(at.seconds, 3),
            }  # fmt: skip
            if (epoch + 1) % config.evaluate_every == 0 or epoch + 1 == config.epochs:
                at.clean, at.robust = measure(average.module, config, data, processes)
                line |= {"clean_accuracy": at.clean, "robust_accuracy": at.robust}
                if at.improved(config) and processes.first:
                    write_checkpoint(root / BEST, average.module.state_dict(), at.best or {})
            if processes.first:
                at.metrics = append(root / METRICS, line)
                if "clean_accuracy" in line:
                    draw_curves(read_metrics(root / METRICS), root / "curves.png")
            if events is not None:
                events.write(line)
            at = at.next_epoch()
            save(root, at, *state)
    return _report(root, at, config, first, steps, time.perf_counter() - began)


def _choice(config: TrainConfig, names: list[str]) -> str:
    said = {name: getattr(config, name) for name in names}
    if "milestones" in said:
        said["milestones"] = ",".join(map(str, config.milestones))
    options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in said.items())
    return f"chosen for this source: {options}"


@contextmanager
def _random(seed: int, processes: Processes) -> Iterator[None]:
    """Seed torch, and give the caller's random state back at the end."""
    devices = [processes.device.index] if processes.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def _network(config: TrainConfig, data: TrainData, processes: Processes) -> nn.Module:
    model = build(
        config.model, config.model_options, data.shape, data.classes, config.mean, config.std
    )
    if config.init is not None:
        load_weights(model, initial_weights(config.init), config.init)
    if config.sync_batch_norm:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    if config.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model = model.to(processes.device)
    if config.compile:
        model.compile()
    # Equal weights, but every process its own dropout.
    torch.manual_seed((config.seed + processes.rank * 0x9E3779B97F4A7C15) % 2**63)
    return model


def _checked(logits: Any, count: int, classes: int) -> Tensor:
    if not isinstance(logits, Tensor):
        raise ModelError(
            "model: expected a tensor of logits in training mode, got a "
            f"{type(logits).__name__}; wrap it in a factory that returns the logits alone"
        )
    if tuple(logits.shape) != (count, classes):
        raise ModelError(
            f"model: expected logits ({count}, {classes}) in training mode, got "
            f"{tuple(logits.shape)}"
        )
    return logits.float()


def _diverged(root: Path, loss: float, epoch: int, step: int) -> CheckError:
    return CheckError(
        f"{root}: expected a finite loss, got {loss:g} at step {step + 1} of epoch {epoch + 1}; "
        "the last good checkpoint is kept. Lower the rate, or limit the gradient (clip)"
    )


def _progress(at: Position, config: TrainConfig, steps: int) -> TrainProgress:
    return TrainProgress(
        step=at.epoch * steps + at.step,
        steps=config.epochs * steps,
        epoch=at.epoch,
        epochs=config.epochs,
        loss=at.loss / at.seen,
        accuracy=at.right / at.seen,
        clean_accuracy=at.clean,
        robust_accuracy=at.robust,
    )


def _report(
    root: Path, at: Position, config: TrainConfig, first: int, steps: int, seconds: float
) -> TrainReport:
    best = at.best or {}
    return TrainReport(
        output=root,
        steps=config.epochs * steps,
        trained=config.epochs * steps - first,
        loss=at.last_loss,
        clean_accuracy=best.get("clean"),
        robust_accuracy=best.get("robust"),
        best_epoch=best.get("epoch"),
        seconds=seconds,
    )
