"""Train the classifier that `jataug demo` attacks, and write the files that the package ships.

    python examples/train_demo_classifier.py [--data DIR] [--output DIR] [--epochs N] [--seed N]

The data are the four idx.gz files of Fashion-MNIST (Debian: apt install dataset-fashion-mnist).
The training uses no adversarial examples. It takes about ten minutes on one CPU core. The seed
fixes the result for one build of torch and one processor type.
"""

import argparse
import gzip
import json
import platform
from pathlib import Path

import numpy as np
import onnx
import torch
from demo_classifier import DemoClassifier
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (the name every torch script uses)

CLASSES = [
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle-boot",
]
SHIPPED = 512
BATCH = 128
PEAK_RATE = 0.1
LICENCE = "Fashion-MNIST, Copyright (c) 2017 Zalando SE, MIT licence"


def main() -> None:
    options = parse()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True)
    train_images, train_labels = read(options.data, "train")
    test_images, test_labels = read(options.data, "t10k")

    model = DemoClassifier()
    train(model, train_images, train_labels, options.epochs)
    model.eval()

    right = predict(model, test_images) == test_labels
    report = {
        "classes": CLASSES,
        "accuracy": {"test_10000": share(right), f"shipped_{SHIPPED}": share(right[:SHIPPED])},
        "training": {
            "script": "examples/train_demo_classifier.py",
            "kind": "natural",
            "epochs": options.epochs,
            "batch": BATCH,
            "seed": options.seed,
            "optimizer": "SGD, Nesterov momentum 0.9, weight decay 2e-4, one cycle",
            "peak_rate": PEAK_RATE,
            "augmentation": "horizontal flip, crop after padding by 1",
        },
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "onnx": onnx.__version__,
        },
        "licence": LICENCE,
    }
    options.output.mkdir(parents=True, exist_ok=True)
    export(model, options.output / "classifier.onnx")
    np.savez_compressed(
        options.output / "images.npz",
        images=test_images[:SHIPPED, 0].numpy(),
        labels=test_labels[:SHIPPED].numpy(),
    )
    text = json.dumps(report, indent=2) + "\n"
    (options.output / "demo.json").write_text(text, encoding="utf-8")
    print(text)


def parse() -> argparse.Namespace:
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--output", type=Path, default=root / "jataug" / "demo")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def read(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    """Images (n, 1, 28, 28) uint8 and labels (n,) int64 of the part "train" or "t10k"."""
    with gzip.open(folder / f"{part}-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8).astype(np.int64)
    return torch.tensor(pixels), torch.tensor(labels)


def train(model: DemoClassifier, images: Tensor, labels: Tensor, epochs: int) -> None:
    batches = len(images) // BATCH
    optimizer = torch.optim.SGD(
        model.parameters(), lr=PEAK_RATE, momentum=0.9, nesterov=True, weight_decay=2e-4
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=PEAK_RATE, total_steps=epochs * batches, pct_start=0.2
    )
    for epoch in range(epochs):
        model.train()
        total = 0.0
        for index in torch.randperm(len(images))[: batches * BATCH].split(BATCH):
            loss = F.cross_entropy(model(augment(images[index])), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}/{epochs}  loss {total / batches:.4f}", flush=True)


def augment(images: Tensor) -> Tensor:
    """Float images, each flipped with probability 1/2; the batch is moved by one pixel."""
    flipped = torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, images.flip(3), images)
    top, left = torch.randint(0, 3, (2,)).tolist()
    padded = F.pad(flipped, (1, 1, 1, 1))
    return padded[:, :, top : top + 28, left : left + 28].float() / 255


@torch.no_grad()
def predict(model: DemoClassifier, images: Tensor) -> Tensor:
    return torch.cat([model(part.float() / 255).argmax(1) for part in images.split(500)])


def share(right: Tensor) -> float:
    return round(right.float().mean().item(), 4)


def export(model: DemoClassifier, path: Path) -> None:
    """Write opset 18, symbolic batch, weights inside, no trace of the machine it was made on."""
    program = torch.onnx.export(
        model,
        (torch.zeros(2, 1, 28, 28),),
        dynamo=True,
        opset_version=18,
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
        verbose=False,
    )
    proto = program.model_proto
    for item in (proto.graph, *proto.graph.node, *proto.graph.input, *proto.graph.output):
        item.ClearField("metadata_props")  # the exporter leaves stack traces with local paths
        item.ClearField("doc_string")
    for value in (*proto.graph.value_info, *proto.graph.initializer):
        value.ClearField("metadata_props")
    proto.graph.name = "demo_classifier"
    onnx.checker.check_model(proto, full_check=True)
    onnx.save_model(proto, path)


if __name__ == "__main__":
    main()
