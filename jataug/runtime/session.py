"""A session runs an artifact on batches of images and returns finalised, measured results."""

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
    """An open artifact. Use `Session.open`.

    A result does not depend on earlier calls, but the session keeps state for speed. It keeps the
    compiled engines and their buffers, and the first batch fixes the batch size unless `open` was
    given one. The engine of the attack and the engine that measures logits each hold their own copy
    of the network's weights.

    Several threads may share a session; their calls run one after the other. One session per thread
    is faster. Each process needs its own.

    Attributes:
        backend: the runtime that it uses.
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
        """Open an artifact. The runtime starts with the first batch.

        Args:
            path: the .onnx file that export wrote.
            backend: "onnxruntime", or "openvino" (on the CPU, in float32).
            device: "auto" (CUDA where it loads, with a warning where it is there and does not),
                "cpu", "cuda" or "cuda:<i>".
            batch_size: images per call of the runtime; smaller batches are padded to it. Default:
                the size of the first batch, at most 64.
            threads: threads of the runtime. Default: the runtime's own choice.
            cuda_graph: record an iteration as a CUDA graph once and replay it, which saves the
                launch of every kernel. It needs CUDA and the form step or unrolled.
            tf32: allow TF32 on CUDA: faster, about three fewer significant digits. Changes the
                output.

        Raises:
            ArtifactError: the file is not an artifact, was edited or truncated, or is newer than
                this version.
            RuntimeUnavailable: the backend or the device is unknown, or has no provider or no TF32
                here. On first use: the device did not load, or the attack cannot be recorded as a
                CUDA graph.
        """
        check_device(backend, device, tf32)
        model, manifest = load_artifact(path)
        if manifest.weights:
            raise ArtifactError(
                f"{path}: its {len(manifest.weights)} weights are inputs, which jataug.trainer "
                "binds; export it without weights='input' to open it in a session"
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
        """Release the runtime and its buffers. A later call starts the runtime again."""
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
        """Warnings about the artifact, one line each."""
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
        """Images per call of the runtime; None until the first batch fixes it."""
        return self._batch_size

    @one_at_a_time
    def predict(self, images: Any) -> Any:
        """Return the logits, (batch, classes), float32. No gradient is computed.

        They are a numpy array, or an array on the session's CUDA device if the images are there.

        Args:
            images: see `attack`.

        Raises:
            DataError: the images have another type or size, or values outside [0, 1].
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
                width, channel), which gives uint8 adversarial images. They are a numpy array or any
                DLPack array on the CPU. With torch installed, they may be a torch tensor or cupy
                array on the session's CUDA device; results are then there too, and no image is
                copied.
            labels: (batch,), integers. Default: the model's own prediction.
            indices: (batch,), integers; the sample of the data set that each image is. Default: 0
                to batch - 1.
            seed: determines, with epoch and index, the random start and the target.
            epoch: see seed.
            targets: (batch,), integers other than the labels. Default: drawn uniformly. They are
                refused if no objective depends on them.
            flow: flow radius in pixels, a number or one per image, at most the artifact's maximum.
                Default: the config's.
            pixel: pixel radius in image units, a number or one per image; "8/255" is accepted.
                Default: the config's.
            steps: iterations. Default: the config's. An artifact of the form loop or unrolled has a
                fixed number.
            start: the result of `draw` for the same images, indices, seed and epoch, and for the
                same or smaller radii.

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
        """Return the random start of `attack`, to be passed as its argument `start`.

        Drawing needs no runtime, so another thread may draw while the previous batch is attacked.
        Arguments and errors are those of `attack`.
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
