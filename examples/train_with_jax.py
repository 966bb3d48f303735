"""Train with plain jax on grain: clean and adversarial images, each batch warped and perturbed.

    jataug demo -o demo-out
    python examples/train_with_jax.py demo-out/dataset

The clean images are those that the demo attacked; --clean takes another source.
"""

import argparse
from importlib.resources import files

import grain
import jax
import jax.numpy as jnp
from absl import flags

import jataug
from jataug.loaders.grain import augment, dataset, mixed


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("adversarial", help="a data set that jataug generate made")
    parser.add_argument("--clean", default=str(files("jataug.demo") / "images.npz"))
    parser.add_argument("--attack", help="an artifact: attacks every batch instead")
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    return parser.parse_args()


def loss_of(weights: dict[str, jax.Array], image: jax.Array, label: jax.Array) -> jax.Array:
    return -(label * jax.nn.log_softmax(logits_of(weights, image))).sum(axis=1).mean()


def logits_of(weights: dict[str, jax.Array], image: jax.Array) -> jax.Array:
    flat = image.reshape(len(image), -1) / 255
    return jax.nn.relu(flat @ weights["first"]) @ weights["second"]


@jax.jit
def step(
    weights: dict[str, jax.Array], image: jax.Array, label: jax.Array
) -> tuple[dict[str, jax.Array], jax.Array]:
    loss, slope = jax.value_and_grad(loss_of)(weights, image, label)
    return jax.tree.map(lambda w, g: w - 0.1 * g, weights, slope), loss


def main() -> None:
    options = arguments()
    flags.FLAGS.mark_as_parsed()  # grain's workers read absl's flags, which nothing here sets
    data = mixed(options.clean, options.adversarial, options.ratio, seed=0, smoothing=0.1)
    live = augment(options.attack or jataug.AttackConfig(steps=0))
    batches = data.seed(0).shuffle().repeat(options.epochs).batch(32).map(live).to_iter_dataset()
    if options.workers:
        workers = grain.MultiprocessingOptions(num_workers=options.workers)
        batches = batches.mp_prefetch(workers)
    image, classes = data[0]["image"], len(data[0]["label"])
    keys = jax.random.split(jax.random.key(0))
    weights = {
        "first": jax.random.normal(keys[0], (image.size, 64)) / image.size**0.5,
        "second": jax.random.normal(keys[1], (64, classes)) / 8,
    }
    losses: dict[int, list[jax.Array]] = {}
    for batch in batches:
        weights, loss = step(weights, jnp.asarray(batch["image"]), jnp.asarray(batch["label"]))
        losses.setdefault(int(batch["epoch"][0]), []).append(loss)
    for epoch, found in losses.items():
        print(f"epoch {epoch}: loss {jnp.stack(found).mean():.3f}")
    stored = dataset(options.adversarial)
    hits = sum(
        int((logits_of(weights, jnp.asarray(b["image"])).argmax(1) == b["label"]).sum())
        for b in stored.batch(128)
    )
    print(f"accuracy on the adversarial images: {hits / len(stored):.3f}")


if __name__ == "__main__":
    main()
