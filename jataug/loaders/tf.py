"""Data sets and live augmentation for TensorFlow: tf.data pipelines, eager or symbolic tensors.

Images are channels last: (height, width, channel), uint8.
"""

import math
import os
from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any

import numpy as np

from ..config import AttackConfig
from ..errors import DataError, MissingExtra
from .augmenter import Attack, Augmenter
from .check import Verify
from .labels import Convention
from .numpy import RandomJoint as _RandomJoint
from .numpy import stacked
from .samples import Clean, Samples, Stored, open_mixed, opened

try:
    import tensorflow as tf
except ImportError as error:
    raise MissingExtra(
        "jataug.loaders.tf needs tensorflow, which is not installed: pip install 'jataug[tf]'"
    ) from error

__all__ = ["RandomJoint", "TensorAugmenter", "augment", "dataset", "mixed"]

_AT_ONCE = 32
"""Samples that one call reads in Python: calls from TensorFlow to Python take turns."""

_CHUNK_BYTES = 4 << 20
"""Of the images that TensorFlow reads between two looks at what failed."""


_IN_FLIGHT = 4
"""Chunks, or one for each processor where there are more."""


def dataset(
    path: str | PathLike[str],
    *,
    smoothing: float | None = None,
    convention: Convention = "authors",
    verify: Verify = "quick",
    shuffle: int | None = None,
    shard: tuple[int, int] = (0, 1),
    epoch: int = 0,
    epochs: int | None = 1,
) -> tf.data.Dataset:
    """Return a generated data set as a tf.data.Dataset of {"image", "label", "index", "epoch"}.

    Args:
        path: of the data set, of any format.
        smoothing: of the labels, which are then (classes,), float32; None keeps them integers.
        convention: of the smoothing: "authors" or "torch", see jataug.loaders.labels.Smoothing.
        verify: "quick", "read" or "full", see docs/loaders.md.
        shuffle: the seed of the order, another one in every epoch; None keeps that of the source.
        shard: (i, n): every n-th sample from the i-th, for host i of n.
        epoch: the first one.
        epochs: how many follow each other; None goes on for ever, for Keras with steps_per_epoch.

    Raises:
        DataError: there is no finished data set, or an option is outside its domain.
        CheckError: the data set does not verify.
    """
    samples = opened(path, smoothing, convention, verify)
    # What is hashed is read in Python; everything else TensorFlow can decode itself.
    files = samples.stored.files if verify != "read" else None
    return _pipeline(samples, files, shuffle, shard, epoch, epochs)


def mixed(
    clean: Clean,
    adversarial: str | PathLike[str],
    ratio: float = 0.5,
    seed: int = 0,
    *,
    smoothing: float | None = None,
    convention: Convention = "authors",
    verify: Verify = "quick",
    shuffle: int | None = None,
    shard: tuple[int, int] = (0, 1),
    epoch: int = 0,
    epochs: int | None = 1,
) -> tf.data.Dataset:
    """Return clean and adversarial samples joined by index: each one is adversarial in an epoch
    with probability `ratio`, drawn from (seed, epoch, index).

    Args:
        clean: the source of the data set: its path, or a sequence of its 8-bit samples.
        adversarial: the path of the data set.
        ratio: in [0, 1].
        seed: of the draws.
        smoothing: see dataset.
        convention: likewise.
        verify: likewise.
        shuffle: likewise.
        shard: likewise.
        epoch: likewise.
        epochs: likewise.

    Raises:
        DataError: as for dataset; the ratio is outside [0, 1]; another source.
        CheckError: the data set does not verify.
    """
    samples = opened(adversarial, smoothing, convention, verify)
    joined = open_mixed(clean, samples, ratio, seed)
    return _pipeline(joined, None, shuffle, shard, epoch, epochs)


class TensorAugmenter(Augmenter):
    """The augmenter of tensors, channels last; in a tf.data pipeline after batch()."""

    def __call__(
        self, images: Any, labels: Any = None, indices: Any = None, *, epoch: Any = 0
    ) -> Any:
        """Return the images, or the batch {"image": ..., ...}, augmented; see Augmenter.run."""
        if isinstance(images, Mapping):
            return self.batch(images)
        return self.images(images, labels, indices, epoch)

    def images(self, images: Any, labels: Any = None, indices: Any = None, epoch: Any = 0) -> Any:
        """Return augmented images, tensors."""
        names = [name for name, value in (("labels", labels), ("indices", indices))
                 if value is not None]  # fmt: skip
        given = [value for value in (labels, indices) if value is not None]

        def run(array: Any, epochs: Any, *values: Any) -> Any:
            options = dict(zip(names, values, strict=True))
            return self.run(array, options.get("labels"), options.get("indices"), epochs)

        images = tf.convert_to_tensor(images)
        if tf.executing_eagerly():
            held = [_host(value) for value in (images, epoch, *given)]
            return _tensor(run(*held))
        # Without indices the images are counted: two calls with one batch are not the same.
        counted = indices is None
        moved = tf.numpy_function(run, [images, epoch, *given], images.dtype, stateful=counted)
        return tf.ensure_shape(moved, images.shape)


class RandomJoint:
    """A random flow and perturbation of one image inside the budgets of `config`, for map().

    Images are (height, width[, channel]), uint8 or floating in [0, 1]; the draws come from
    TensorFlow's random source (tf.random.set_seed).
    """

    def __init__(self, config: AttackConfig | Mapping[str, Any]) -> None:
        self._transform = _RandomJoint(config)
        self.config = self._transform.config

    def __call__(self, image: Any) -> Any:
        """Return an image, or {"image": ..., ...}, augmented."""
        if isinstance(image, Mapping):
            return {**image, "image": self(image["image"])}
        image = tf.convert_to_tensor(image)
        word = tf.random.uniform((), maxval=np.iinfo(np.int64).max, dtype=tf.int64)

        def run(array: Any, seed: Any) -> Any:
            return self._transform(array, np.random.default_rng(int(seed)))

        moved = tf.numpy_function(run, [image, word], image.dtype)
        return tf.ensure_shape(moved, image.shape)


def augment(attack: Attack, **options: Any) -> TensorAugmenter:
    """Return a function of batches: augmenter(images, labels, indices, epoch=0), or of
    {"image": ..., "label": ..., "index": ..., "epoch": ...}. Options are those of Augmenter.
    """
    return TensorAugmenter(attack, **options)


def _pipeline(
    samples: Samples,
    files: list[str] | None,
    shuffle: int | None,
    shard: tuple[int, int],
    epoch: int,
    epochs: int | None,
) -> tf.data.Dataset:
    part, parts = shard
    if not 0 <= part < parts:
        raise DataError(f"shard: expected (i, n) with 0 <= i < n, got {shard}")
    if epoch < 0 or (epochs is not None and epochs < 1):
        raise DataError(f"epoch, epochs: expected >= 0 and >= 1, got {epoch} and {epochs}")

    def order(number: Any) -> tf.data.Dataset:
        places = tf.range(len(samples), dtype=tf.int64)
        if shuffle is not None:
            seed = tf.stack([tf.constant(shuffle, tf.int64), number])
            places = tf.random.experimental.stateless_shuffle(places, seed=seed)
        mine = places[part::parts]
        return tf.data.Dataset.from_tensor_slices((mine, tf.fill(tf.shape(mine), number)))

    numbers = tf.data.Dataset.range(epoch, epoch + epochs if epochs else np.iinfo(np.int64).max)
    places = numbers.flat_map(order)
    if files is None or not isinstance(samples, Stored):
        chunks, python = places.batch(_AT_ONCE), _python(samples)
        read = chunks.map(python, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    else:
        count = min(max(_CHUNK_BYTES // math.prod(samples.shape), 16), 256)
        read = places.batch(count).interleave(
            _native(samples, files),
            cycle_length=max(_IN_FLIGHT, os.cpu_count() or 1),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
    own = len(range(part, len(samples), parts))
    count = tf.data.INFINITE_CARDINALITY if epochs is None else epochs * own
    return read.unbatch().apply(tf.data.experimental.assert_cardinality(count))


def _python(samples: Samples) -> Callable[..., Any]:
    """Return a function that reads samples of any kind, several at a time."""
    spec = stacked([samples.sample(0)])
    names = list(spec)

    def read(places: Any, epochs: Any) -> list[Any]:
        found = stacked(
            [samples.sample(int(p), int(e)) for p, e in zip(places, epochs, strict=True)]
        )
        return [found[name] for name in names]

    def call(places: Any, epochs: Any) -> dict[str, Any]:
        types = [spec[name].dtype for name in names]
        parts = tf.numpy_function(read, [places, epochs], types, stateful=False)
        shaped = zip(names, parts, strict=True)
        return {name: tf.ensure_shape(p, (None, *spec[name].shape[1:])) for name, p in shaped}

    return call


def _native(samples: Stored, files: list[str]) -> Callable[..., Any]:
    """Return a function from a chunk to a data set of its one batch, images read without Python.

    Where that fails, Python reads the chunk: its error names the sample, as TensorFlow's does not.
    """
    names, given = tf.constant(files), tf.constant(samples.given_labels())
    labels, indices = tf.constant(samples.stored.labels), tf.constant(samples.stored.indices)
    python = _python(samples)

    def image(name: Any) -> Any:
        decoded = tf.io.decode_png(tf.io.read_file(name), channels=samples.shape[2])
        return tf.ensure_shape(decoded, samples.shape)

    def read(places: Any, epochs: Any) -> tf.data.Dataset:
        images = tf.data.Dataset.from_tensor_slices(tf.gather(names, places)).map(image)
        # After an error the rest of the chunk is no whole batch, and is dropped with it.
        whole = images.batch(tf.size(places, tf.int64), drop_remainder=True).ignore_errors()
        fast = whole.map(
            lambda found: {
                "image": found,
                "label": tf.gather(given, tf.gather(labels, places)),
                "index": tf.gather(indices, places),
                "epoch": epochs,
            }
        )
        again = tf.data.Dataset.from_tensors((places, epochs)).map(python)
        return fast.concatenate(again).take(1)

    return read


def _host(value: Any) -> Any:
    """Return a numpy array, over the same memory where DLPack can."""
    if not isinstance(value, tf.Tensor):
        return np.asarray(value)
    try:
        # Newer tensors speak DLPack; those of 2.19 lend their memory as a buffer.
        if not hasattr(value, "__dlpack__"):
            return np.asarray(memoryview(value))
        return np.from_dlpack(value)
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError):
        return value.numpy()


def _tensor(array: Any) -> Any:
    try:
        return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
    except (BufferError, RuntimeError, TypeError, ValueError, tf.errors.InvalidArgumentError):
        return tf.convert_to_tensor(array)
