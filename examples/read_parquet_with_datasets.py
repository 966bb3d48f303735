"""Read a data set in Parquet files with Hugging Face datasets alone; jataug need not be installed.

    jataug generate attack.onnx photos/ adversarial/ --format parquet
    python examples/read_parquet_with_datasets.py adversarial

streaming=True reads the files in place; without it, they are first copied into the cache.
"""

import argparse
import gc
from pathlib import Path

import datasets
import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("adversarial", type=Path, help="a data set of the format parquet")
    parser.add_argument("--cache", help="copy into this folder instead of streaming")
    options = parser.parse_args()
    files = sorted(str(path) for path in options.adversarial.glob("images/*.parquet"))
    if not files:
        parser.error("expected a data set of the format parquet, found no images/*.parquet")
    data = datasets.load_dataset(
        "parquet", data_files=files, split="train",
        streaming=options.cache is None, cache_dir=options.cache,
    )  # fmt: skip
    found = list(data)
    # Threads of pyarrow that outlive the interpreter abort it: huggingface/datasets issue 7566.
    del data
    gc.collect()
    shapes = sorted({np.asarray(one["image"]).shape for one in found})
    print(f"{len(found)} images {shapes[0]}, {len({one['label'] for one in found})} classes")
    fooled = sum(one["success"] for one in found)
    print(f"{fooled} change the prediction of the model that was attacked")


if __name__ == "__main__":
    main()
