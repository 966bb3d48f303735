"""Train with torch on clean and adversarial images, each batch warped and perturbed as it comes.

    jataug demo -o demo-out
    python examples/train_with_torch.py demo-out/dataset

The clean images are those that the demo attacked; --clean takes another source.
"""

import argparse
from importlib.resources import files

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader

import jataug
from jataug.loaders.torch import augment, dataset, mixed


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("adversarial", help="a data set that jataug generate made")
    parser.add_argument("--clean", default=str(files("jataug.demo") / "images.npz"))
    parser.add_argument("--attack", help="an artifact: attacks every batch instead")
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--workers", type=int, default=2)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    torch.manual_seed(0)
    # The authors' label smoothing; the labels come as distributions, as cross_entropy takes them.
    data = mixed(options.clean, options.adversarial, options.ratio, seed=0, smoothing=0.1)
    loader = DataLoader(data, batch_size=32, shuffle=True, num_workers=options.workers)
    live = augment(options.attack or jataug.AttackConfig(steps=0))
    image = data[0]["image"]
    model = nn.Sequential(
        nn.Conv2d(image.shape[0], 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.LazyLinear(len(data[0]["label"])),
    )
    model(image[None] / 255)  # gives the lazy layer its size
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for epoch in range(options.epochs):
        data.set_epoch(epoch)
        total = 0.0
        for batch in map(live, loader):
            loss = F.cross_entropy(model(batch["image"] / 255), batch["label"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch["image"])
        print(f"epoch {epoch}: loss {total / len(data):.3f}")
    print(f"accuracy on the adversarial images: {accuracy(model, options.adversarial):.3f}")


@torch.no_grad()
def accuracy(model: nn.Module, path: str) -> float:
    stored = dataset(path)
    hits = [
        (model(batch["image"] / 255).argmax(1) == batch["label"]).sum().item()
        for batch in DataLoader(stored, batch_size=128)
    ]
    return sum(hits) / len(stored)


if __name__ == "__main__":
    main()
