"""Read a data set in tar shards with webdataset alone; jataug need not be installed.

jataug generate attack.onnx photos/ adversarial/ --format tar
python examples/read_tar_with_webdataset.py adversarial
"""

import argparse
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import webdataset
from PIL import Image


def sample(raw: dict[str, Any]) -> dict[str, Any]:
    """Return image (height, width[, channel]), label, and what is recorded about the sample."""
    with Image.open(io.BytesIO(raw["png"])) as file:
        image = np.asarray(file)
    return {"image": image, "label": int(raw["cls"]), **json.loads(raw["json"])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("adversarial", type=Path, help="a data set of the format tar")
    shards = sorted(str(path) for path in parser.parse_args().adversarial.glob("images/*.tar"))
    if not shards:
        parser.error("expected a data set of the format tar, found no images/*.tar")
    # Each epoch: the shards in another order, and the samples within a buffer of 1000.
    data = webdataset.WebDataset(shards, shardshuffle=len(shards), seed=0).shuffle(1000).map(sample)
    found = list(data)
    fooled = sum(one["success"] for one in found)
    shapes = sorted({one["image"].shape for one in found})
    print(f"{len(found)} images {shapes[0]}, {len({one['label'] for one in found})} classes")
    print(f"{fooled} change the prediction of the model that was attacked")


if __name__ == "__main__":
    main()
