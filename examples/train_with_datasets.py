"""Train on a Hugging Face data set of clean and adversarial images, warped as they are read.

    jataug demo -o demo-out
    python examples/train_with_datasets.py demo-out/dataset

The model is a softmax regression in numpy: the extra needs no other framework. The clean images are
those that the demo attacked; --clean takes another source.
"""

import argparse
from importlib.resources import files

import numpy as np

import jataug
from jataug.loaders.datasets import augment, dataset, mixed


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("adversarial", help="a data set that jataug generate made")
    parser.add_argument("--clean", default=str(files("jataug.demo") / "images.npz"))
    parser.add_argument("--attack", help="an artifact: attacks every batch instead")
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--epochs", type=int, default=12)
    return parser.parse_args()


def pixels(images: list[np.ndarray]) -> np.ndarray:
    return np.stack(images).reshape(len(images), -1).astype(np.float32) / 255


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def main() -> None:
    options = arguments()
    live = augment(options.attack or jataug.AttackConfig(steps=0))
    stored = dataset(options.adversarial)
    # The epochs follow each other in one table.
    data = mixed(
        options.clean, options.adversarial, options.ratio, seed=0, smoothing=0.1,
        epochs=options.epochs, transform=live,
    )  # fmt: skip
    weights: np.ndarray | None = None
    for epoch in range(options.epochs):
        rows = data.select(range(epoch * len(stored), (epoch + 1) * len(stored)))
        losses = []
        for batch in rows.shuffle(seed=epoch).iter(batch_size=32):
            x, y = pixels(batch["image"]), np.stack(batch["label"])
            if weights is None:
                weights = np.zeros((x.shape[1], y.shape[1]), np.float32)
            found = softmax(x @ weights)
            losses.append(-(y * np.log(found + 1e-9)).sum(axis=1).mean())
            weights -= 0.05 * x.T @ (found - y) / len(x)
        print(f"epoch {epoch}: loss {np.mean(losses):.3f}")
    # map() computes a column and keeps it in Arrow.
    guesses = stored.map(
        lambda batch: {
            "hit": ((pixels(batch["image"]) @ weights).argmax(1) == batch["label"]).tolist()
        },
        batched=True,
        batch_size=128,
    )
    hits = guesses.with_format(None)["hit"]
    print(f"accuracy on the adversarial images: {np.mean(hits):.3f}")


if __name__ == "__main__":
    main()
