"""Train with Keras 3 on tf.data: clean and adversarial images, each batch warped and perturbed.

    jataug demo -o demo-out
    python examples/train_with_keras.py demo-out/dataset

The clean images are those that the demo attacked; --clean takes another source.
"""

import argparse
from importlib.resources import files

import keras
import tensorflow as tf

import jataug
from jataug.loaders.tf import augment, dataset, mixed


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("adversarial", help="a data set that jataug generate made")
    parser.add_argument("--clean", default=str(files("jataug.demo") / "images.npz"))
    parser.add_argument("--attack", help="an artifact: attacks every batch instead")
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--epochs", type=int, default=6)
    return parser.parse_args()


def pairs(batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.cast(batch["image"], tf.float32) / 255, batch["label"]


def main() -> None:
    options = arguments()
    keras.utils.set_random_seed(0)
    live = augment(options.attack or jataug.AttackConfig(steps=0))
    # epochs=None goes on for ever, so that every epoch of fit draws anew; one data set for a single
    # epoch would be the same each time that it is started again.
    data = mixed(
        options.clean, options.adversarial, options.ratio, seed=0, smoothing=0.1, shuffle=0,
        epochs=None,
    )  # fmt: skip
    train = data.batch(32).map(live, num_parallel_calls=tf.data.AUTOTUNE).map(pairs)
    stored = dataset(options.adversarial)
    shape, classes = data.element_spec["image"].shape, data.element_spec["label"].shape[0]
    model = keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Conv2D(16, 3, strides=2, padding="same", activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(classes),
        ]
    )
    model.compile(keras.optimizers.Adam(3e-3), keras.losses.CategoricalCrossentropy(True))
    steps = -(-len(stored) // 32)
    run = model.fit(
        train.prefetch(2), epochs=options.epochs, steps_per_epoch=steps, shuffle=False, verbose=0
    )
    for epoch, loss in enumerate(run.history["loss"]):
        print(f"epoch {epoch}: loss {loss:.3f}")
    hits = 0
    for images, labels in stored.batch(128).map(pairs):
        found = tf.argmax(model(images, training=False), 1)
        hits += int(tf.reduce_sum(tf.cast(found == labels, tf.int64)))
    print(f"accuracy on the adversarial images: {hits / len(stored):.3f}")


if __name__ == "__main__":
    main()
