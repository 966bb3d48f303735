"""A session runs an artifact on a batch: starts and targets in, the iterations, finalisation, a
measured result out.
"""

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from jataug import streams
from jataug.artifact import Manifest, graph_digest, hiding_head, load_artifact, prune
from jataug.errors import ArtifactError
from jataug.result import AttackResult, check_targeted, finite_rows
from jataug.streams import Start

from .backends import Engine, check_device, check_recordable, engine_type
from .inputs import as_images, as_indices, as_labels, check_targets, padded
from .limits import calls_of, check_count, radii_of, steps_of
from .locking import one_at_a_time
from .measurement import finished
from .on_device.devices import is_on_cuda
from .results import joined, no_results
from .stepper import Stepper
from .task import Task, draw_start, radii_and_steps, start_state

if TYPE_CHECKING:
    import onnx

    from .on_device.resident import Resident

__all__ = ["Session"]

Array = NDArray[Any]

_LARGEST_DEFAULT_BATCH = 64


class Session:
    """An open artifact. It keeps nothing between calls but its buffers.

    Several threads may use one session: their calls run one after the other. A session for each
    thread is faster. Processes need a session each. Use `Session.open`.

    Attributes:
        backend: the runtime that it drives.
        tf32: whether CUDA rounds products to TF32.
        config: the attack, as exported.
        image_shape: (channel, height, width).
        classes: number of classes.
    """

    def __init__(
        self,
        model: "onnx.ModelProto",
        manifest: Manifest,
        backend: str,
        device: str,
        batch_size: int | None,
        threads: int | None,
        cuda_graph: bool = False,
        tf32: bool = False,
    ) -> None:
        self._model, self._manifest = model, manifest
        self._recorded = {"capture": True} if cuda_graph else {}
        self._engine_type, self.backend, self.tf32 = engine_type(backend, tf32), backend, tf32
        self._device, self._batch_size, self._threads = device, batch_size, threads
        self._lock = RLock()
        self._stepper: Stepper | None = None
        self._network: Engine | None = None
        self._on_device: Resident | None = None
        self.config = manifest.config
        self.image_shape = manifest.image_shape
        self.classes = manifest.classes

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        backend: str = "onnxruntime",
        device: str = "auto",
        batch_size: int | None = None,
        threads: int | None = None,
        cuda_graph: bool = False,
        tf32: bool = False,
    ) -> Self:
        """Open an artifact; the runtime itself starts with the first batch.

        Args:
            path: the .onnx file that export wrote.
            backend: "onnxruntime", or "openvino" (on the CPU, in float32).
            device: "auto" (CUDA where it loads, with a warning where it is there and does not),
                "cpu", "cuda" or "cuda:<i>".
            batch_size: images per call of the runtime; smaller batches are padded to it. Default:
                the size of the first batch, at most 64.
            threads: of the runtime's pool; default its own choice.
            cuda_graph: record an iteration as a CUDA graph once and replay it, which saves the
                launch of every kernel. Needs CUDA and the form step or unrolled.
            tf32: let CUDA round the products of float32 to TF32, which has three digits less.

        Raises:
            ArtifactError: no artifact, edited, truncated, or newer than this version.
            RuntimeUnavailable: the backend or the device is unknown, or has no provider here, or
                no TF32; on first use: the device did not load, or a node of the attack does not run
                on it and cannot be recorded.
        """
        check_device(backend, device, tf32)
        model, manifest = load_artifact(path)
        if manifest.weights:
            raise ArtifactError(
                f"{path}: expected an artifact with its weights inside, got one whose "
                f"{len(manifest.weights)} weights are inputs, which jataug.trainer binds"
            )
        batch_size = manifest.batch if isinstance(manifest.batch, int) else batch_size
        check_count("batch_size", batch_size)
        check_count("threads", threads)
        if cuda_graph:
            check_recordable(backend, device, manifest.form)
        return cls(model, manifest, backend, device, batch_size, threads, cuda_graph, tf32)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @one_at_a_time
    def close(self) -> None:
        """Release the runtime and its buffers; a later call starts them again."""
        self._stepper = self._network = self._on_device = None

    @property
    def manifest(self) -> dict[str, Any]:
        """The artifact's manifest, as JSON types, with the sha256 of its graph."""
        return {**self._manifest.to_dict(), "graph_sha256": self._graph_sha256}

    @cached_property
    def _graph_sha256(self) -> str:
        return graph_digest(self._model)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user must know of the artifact, a line each."""
        return tuple(filter(None, [hiding_head(self._model)]))

    @cached_property
    @one_at_a_time
    def providers(self) -> list[str]:
        """The execution providers that the runtime really loaded."""
        # While no batch has decided the batch size, an engine is compiled to ask and not kept.
        make = self._measuring_engine if self._batch_size is None else self._measurer
        return make(self._batch_size or 1).providers

    @property
    def batch_size(self) -> int | None:
        """Images per call of the runtime; None until the first batch decides it."""
        return self._batch_size

    @one_at_a_time
    def predict(self, images: Any) -> Any:
        """Return the logits: (batch, classes), where `attack` would. No gradient is computed.

        Args:
            images: as of `attack`.

        Raises:
            DataError: the images are of another type or size, or outside [0, 1].
        """
        if is_on_cuda(images):
            return self._resident().predict(images)
        return self._logits(as_images(images, self.image_shape).pixels)

    def _logits(self, pixels: Array) -> Array:
        if not len(pixels):
            return np.zeros((0, self.classes), np.float32)
        size = self._size(len(pixels))
        parts = [
            self._measure(padded(pixels[i : i + size], size))["logits"][: len(pixels) - i]
            for i in range(0, len(pixels), size)
        ]
        return np.concatenate(parts)

    @one_at_a_time
    def attack(
        self,
        images: Any,
        labels: Any = None,
        indices: Any = None,
        *,
        seed: int = 0,
        epoch: int = 0,
        targets: Any = None,
        flow: Any = None,
        pixel: Any = None,
        steps: int | None = None,
        start: Start | None = None,
    ) -> AttackResult:
        """Return adversarial images for a batch, finalised and measured.

        Args:
            images: float32 (batch, channel, height, width) in [0, 1], or uint8 (batch, height,
                width, channel), which gives uint8 adversarial images. numpy, or any array on the
                CPU that speaks DLPack; or a torch tensor or cupy array on the session's CUDA
                device, which gives such results there, no image copied (needs torch).
            labels: (batch,), integers; default the model's own prediction.
            indices: (batch,), integers; which sample of the data set each image is. Default 0 ..
                batch - 1.
            seed: with epoch and index it determines the random start and the target.
            epoch: see seed.
            targets: (batch,), integers other than the labels; default drawn uniformly. Refused
                where no objective depends on them.
            flow: flow radius in pixels, a number or one per image; at most the artifact's maximum.
                Default the config's.
            pixel: pixel radius in image units, likewise ("8/255" is accepted).
            steps: iterations; default the config's. Fixed in an artifact of the form loop or
                unrolled.
            start: what `draw` returned for the same images, indices, seed and epoch, and for the
                same radii or smaller ones.

        Raises:
            DataError: images, labels, targets, indices or start that do not fit the model or each
                other.
            BudgetError: a radius or step count that the artifact cannot serve.
        """
        if is_on_cuda(images):
            return self._resident().attack(
                images, labels, indices, seed=seed, epoch=epoch, targets=targets, flow=flow,
                pixel=pixel, steps=steps, start=start,
            )  # fmt: skip
        checked = as_images(images, self.image_shape)
        count = len(checked)
        steps = steps_of(self._manifest, steps)
        clean = self._logits(checked.pixels)
        usable = finite_rows(clean)
        labels = clean.argmax(1) if labels is None else as_labels(labels, count, self.classes)
        rows = as_indices(indices, count)
        flow_radius, pixel_radius = radii = radii_of(self._manifest, flow, pixel, count)
        given = targets is not None
        if given:
            check_targeted(self.config)
            targets = as_labels(targets, count, self.classes, "targets")
            check_targets(targets, labels)
        else:
            targets = streams.target_labels(seed, rows, labels, self.classes, epoch=epoch)
        if start is not None:
            start.check(checked.pixels.shape, self.config.branches, rows, seed, epoch, *radii)
        if not count:
            return no_results(checked, self.classes, self.config.targeted)
        size = self._size(count)
        results = []
        for first in range(0, count, size):
            part = slice(first, min(first + size, count))
            task = Task(
                padded(checked.pixels[part], size),
                padded(labels[part], size),
                # A target differs from the label, in the padding too.
                padded(targets[part], size, fill=1),
                padded(flow_radius[part], size),
                padded(pixel_radius[part], size),
                rows[part],
                seed,
                epoch,
            )
            begin = start_state(task, self.config) if start is None else start.part(part, size)
            results.append(
                self._attack(
                    task, begin, steps, checked.eight_bit, not given, padded(usable[part], size)
                )
            )
        return joined(results)

    def draw(
        self,
        images: Any,
        indices: Any = None,
        *,
        seed: int = 0,
        epoch: int = 0,
        flow: Any = None,
        pixel: Any = None,
    ) -> Start:
        """Return where `attack` would begin, for its argument `start`: the random draws need no
        runtime, and may be made in another thread while the batch before is attacked.

        Args:
            images: as of `attack`, like all others.
            indices: likewise.
            seed: likewise.
            epoch: likewise.
            flow: likewise.
            pixel: likewise.

        Raises:
            DataError, BudgetError: as `attack`.
        """
        checked = as_images(images, self.image_shape)
        count = len(checked)
        none = np.zeros(count, np.int64)
        radii = radii_of(self._manifest, flow, pixel, count)
        rows = as_indices(indices, count)
        task = Task(checked.pixels, none, none, *radii, rows, seed, epoch)
        return draw_start(task, self.config)

    def _attack(
        self,
        task: Task,
        begin: tuple[Array | None, Array | None],
        steps: int,
        eight_bit: bool,
        redraw: bool,
        usable: Array,
    ) -> AttackResult:
        stepper = self._engine(len(task.image))
        count = len(task.index)
        stepper.load(task, radii_and_steps(task, self.config, steps))
        stepper.start(*begin)
        target = task.target
        for number in range(calls_of(self._manifest, steps)):
            if number and redraw and self.config.redraw_targets:
                target = target.copy()
                target[:count] = streams.target_labels(
                    task.seed, task.index, task.label[:count], self.classes,
                    iteration=number, epoch=task.epoch,
                )  # fmt: skip
                stepper.retarget(target)
            stepper.iterate()
        flow, delta = self._kept(stepper, task, target)
        task = replace(task, target=target)
        return finished(task, flow, delta, self.config, eight_bit, usable, self._measure)

    def _kept(
        self, stepper: Stepper, task: Task, target: Array
    ) -> tuple[Array | None, Array | None]:
        if self.config.keep == "last" or self._manifest.form != "step":
            return stepper.state()
        flow, delta = stepper.state()
        final = self._measure(task.image, task.label, target, flow, delta)
        return stepper.best(final["logits"], final["loss"])

    def _measure(
        self,
        image: Array,
        label: Array | None = None,
        target: Array | None = None,
        flow: Array | None = None,
        delta: Array | None = None,
    ) -> dict[str, Array]:
        size, (_, height, width) = len(image), self.image_shape
        none = np.zeros(size, np.int64)
        zero_flow = np.zeros((size, 2, height, width), np.float32)
        feeds = {
            "image": image,
            "label": none if label is None else label,
            "target": none if target is None else target,
            "flow": zero_flow if flow is None else flow,
            "delta": np.zeros_like(image) if delta is None else delta,
        }
        return self._measurer(size).run(feeds)

    def _size(self, count: int) -> int:
        if self._batch_size is None:
            self._batch_size = max(1, min(count, _LARGEST_DEFAULT_BATCH))
        return self._batch_size

    def _engine(self, size: int) -> Stepper:
        if self._stepper is None:
            self._stepper = Stepper(self._step_engine(size), self._manifest, size)
        return self._stepper

    def _step_engine(self, size: int) -> Engine:
        sizes = {"N": size, "R": size}
        return self._engine_type(self._model, sizes, self._device, self._threads, **self._recorded)

    def _resident(self) -> "Resident":
        from .on_device.resident import Compiled, Resident

        if self._on_device is None:
            number = int(self._device.partition(":")[2] or 0)
            compiled = Compiled(self._step_engine, self._measurer, self._size, number)
            self._on_device = Resident(self._manifest, compiled)
        return self._on_device

    def _measurer(self, size: int) -> Engine:
        if self._network is None:
            self._network = self._measuring_engine(size)
        return self._network

    def _measuring_engine(self, size: int) -> Engine:
        pruned = prune(self._model, ["loss", "logits"])
        return self._engine_type(pruned, {"N": size}, self._device, self._threads)
