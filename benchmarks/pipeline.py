"""What decoding, encoding and writing cost beside the attack: images per second end to end, and of
the session alone, in turns.

    python benchmarks/pipeline.py [--rounds 5] [--steps 10]    # 8 batches of 64

The session alone is what generate calls: the prediction of the clean images, and the attack.
`waited` is the part of the run in which the attack had nothing to do, as generate counts it.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from timing import Row, machine, spread

import jataug
from jataug.export import export_attack

DEMO = Path(jataug.__file__).parent / "demo"
BATCH = 64


def alone(session, images, labels):
    """Seconds of predict and of attack."""
    predicting = attacking = 0.0
    for start in range(0, len(images), BATCH):
        part = slice(start, start + BATCH)
        began = time.perf_counter()
        session.predict(images[part])
        predicting += time.perf_counter() - began
        began = time.perf_counter()
        session.attack(images[part], labels[part], np.arange(len(images))[part])
        attacking += time.perf_counter() - began
    return predicting, attacking


def whole(session, attack, source, out, format):
    """Seconds of generate, and those that the attack waited."""
    began = time.perf_counter()
    report = jataug.generate(
        attack, source, out, session=session, format=format, batch_size=BATCH, shard_size=256
    )
    return time.perf_counter() - began, report.waited


def measure(count, rounds, formats, steps):
    """Return seconds of predict and attack, (rounds, 2), of generate and waited, a format each."""
    with np.load(DEMO / "images.npz") as arrays:
        images, labels = arrays["images"][:count, ..., None], arrays["labels"][:count]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        attack = place / "attack.onnx"
        config = jataug.AttackConfig.preset(
            "evaluation",
            flow=jataug.FlowBudget(0.3),
            pixel=jataug.PixelBudget("8/255"),
            steps=steps,
        )
        export_attack(DEMO / "classifier.onnx", config, attack, check=False)
        np.savez(place / "images.npz", images=images, labels=labels)
        with jataug.Session.open(attack, device="cpu", batch_size=BATCH) as session:
            alone(session, images[:BATCH], labels[:BATCH])
            calls, took, waits = [], {f: [] for f in formats}, {f: [] for f in formats}
            for number in range(rounds):
                calls.append(alone(session, images, labels))
                for format in formats:
                    out = place / f"{format} {number}"
                    seconds, waited = whole(session, attack, place / "images.npz", out, format)
                    took[format].append(seconds)
                    waits[format].append(waited / seconds)
    return np.array(calls), took, waits


def rows(rounds, smoke=False):
    """Yield the rows of benchmarks/README.md."""
    for steps in (1,) if smoke else (10, 1):
        count = BATCH if smoke else 8 * BATCH
        calls, took, _ = measure(count, rounds, ["folder", "npz"], steps)
        for format, seconds in took.items():
            yield Row(
                f"generate, demo classifier, {steps} steps, {format}",
                "the session alone",
                *spread(np.array(seconds) / calls.sum(axis=1)),
                most=1 / 0.95,
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--formats", nargs="+", default=["folder", "npz"])
    given = parser.parse_args()
    count = given.batches * BATCH
    print(machine())
    calls, took, waits = measure(count, given.rounds, given.formats, given.steps)
    print(f"n = {count} images, {given.rounds} rounds, median [quartiles]")
    print(f"  the session alone  {shown(count / calls.sum(axis=1))} images/s")
    for format in given.formats:
        seconds = np.array(took[format])
        print(
            f"  {format:<8} {shown(count / seconds)} images/s; "
            f"session/total {shown(calls.sum(axis=1) / seconds)}; "
            f"attack/total {shown(calls[:, 1] / seconds)}; waited {shown(waits[format])}"
        )


def shown(values):
    middle, low, high = spread(values)
    return f"{middle:.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    main()
