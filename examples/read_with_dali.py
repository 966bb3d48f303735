"""Read clean and adversarial images with an NVIDIA DALI pipeline, which runs on the CPU too.

    jataug demo -o demo-out
    pip install nvidia-dali-cuda120
    python examples/read_with_dali.py demo-out/dataset

DALI gives a source the epoch and the position of each sample. jataug's random draws depend on
nothing else. Each worker opens its own files.
"""

import argparse
from importlib.resources import files
from typing import Any

import numpy as np
from nvidia.dali import fn, pipeline_def, types

from jataug.loaders.numpy import ArrayDataset, mixed


class Source:
    """One sample at a time, in an order that changes with the epoch."""

    def __init__(self, data: ArrayDataset) -> None:
        self.data = data

    def __call__(self, wanted: types.SampleInfo) -> tuple[np.ndarray, ...]:
        if wanted.idx_in_epoch >= len(self.data):
            raise StopIteration
        order = np.random.default_rng(wanted.epoch_idx).permutation(len(self.data))
        self.data.epoch = wanted.epoch_idx
        sample = self.data[order[wanted.idx_in_epoch]]
        kept = (sample["image"], sample["label"], sample["index"], sample["adversarial"])
        return tuple(np.asarray(value) for value in kept)


@pipeline_def
def pipeline(source: Source, workers: int) -> tuple[Any, ...]:
    images, *rest = fn.external_source(
        source,
        num_outputs=4,
        batch=False,
        parallel=workers > 0,
        dtype=[types.UINT8, types.INT64, types.INT64, types.BOOL],
    )
    planes = fn.crop_mirror_normalize(
        images, mirror=fn.random.coin_flip(), dtype=types.FLOAT, output_layout="CHW", std=[255.0]
    )
    return planes, *rest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("adversarial", help="a data set that jataug generate made")
    parser.add_argument("--clean", default=str(files("jataug.demo") / "images.npz"))
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    data = mixed(options.clean, options.adversarial, options.ratio, seed=0)
    pipe = pipeline(
        Source(data), options.workers, batch_size=32, num_threads=2, device_id=None, seed=0,
        py_num_workers=max(1, options.workers), py_start_method="spawn",
    )  # fmt: skip
    pipe.build()
    for epoch in range(options.epochs):
        images, chosen, total = 0, 0, 0.0
        while True:
            try:
                planes, _, _, adversarial = pipe.run()
            except StopIteration:
                break
            batch = planes.as_array()
            images, total = images + len(batch), total + float(batch.mean(axis=(1, 2, 3)).sum())
            chosen += int(adversarial.as_array().sum())
        pipe.reset()
        print(f"epoch {epoch}: {images} images, {chosen} adversarial, mean {total / images:.4f}")


if __name__ == "__main__":
    main()
