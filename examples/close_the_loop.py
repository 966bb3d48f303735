"""Rounds of train, export, generate: each round trains on attacks on the model of the round before.

    python examples/close_the_loop.py [--data SOURCE] [--output loop] [--rounds 3] [--epochs 2]

The first round trains without attacks. Every later round starts from the weights of the round
before. Half of each batch is attacked on the fly, a quarter comes from the data set generated
against the round before, and a quarter is clean. A stopped run resumes when it is started again.
"""

import argparse
from pathlib import Path

import jataug
from jataug.export import export_attack
from jataug.trainer import Part, TrainConfig, load_run, train

SOURCE = Path("/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz")
ATTACK = jataug.AttackConfig(flow=jataug.FlowBudget(1), pixel=jataug.PixelBudget(0.1), steps=1)


def main() -> None:
    options = parse()
    options.output.mkdir(parents=True, exist_ok=True)
    for number in range(options.rounds):
        report = train(configuration(number, options))
        print(
            f"round {number}: held out {report.clean_accuracy:.3f}, attacked "
            f"{report.robust_accuracy:.3f}"
        )
        if number + 1 < options.rounds:
            generate(number, options)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=SOURCE, help="what jataug train takes")
    parser.add_argument("--output", type=Path, default=Path("loop"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2, help="of a round")
    parser.add_argument("--images", type=int, default=4000, help="of the source to use")
    parser.add_argument("--batch-size", type=int, default=64)
    return parser.parse_args()


def configuration(number: int, options: argparse.Namespace) -> TrainConfig:
    """Natural training in round 0; then the mixture, from the weights of the round before."""
    mixture = (
        Part("attack", 0.5),
        Part("dataset", 0.25, str(options.output / f"adversarial-{number - 1}")),
        Part("clean", 0.25),
    )
    return TrainConfig(
        source=options.data,
        output=options.output / f"run-{number}",
        model="small-cnn",
        mode="joint" if number else "natural",
        mixture=mixture if number else (),
        init=str(options.output / f"run-{number - 1}") if number else None,
        attack=ATTACK,
        epochs=options.epochs,
        batch_size=options.batch_size,
        lr=0.05,
        schedule="cosine",
        label_smoothing=0.1,
        pad=0,
        limit=options.images,
        validation=options.images // 10,
        evaluation_images=100,
        seed=0,  # every round holds out the same images
    )


def generate(number: int, options: argparse.Namespace) -> None:
    """Export the attack on a round's model, and attack the training images with it."""
    run = load_run(options.output / f"run-{number}")
    artifact = options.output / f"attack-{number}.onnx"
    if not artifact.exists():
        export_attack(run.module, ATTACK.replace(steps=5), artifact, example=run.example)
    destination = options.output / f"adversarial-{number}"
    report = jataug.generate(
        artifact, options.data, destination, format="npz", limit=options.images
    )
    print(report.message)


if __name__ == "__main__":
    main()
