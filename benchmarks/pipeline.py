"""What decoding, encoding and writing cost beside the attack: images per second end to end, and of
the session alone, in turns.

    python benchmarks/pipeline.py            # 8 batches of 64, 5 rounds
    python benchmarks/pipeline.py --smoke    # 1 batch, 1 round

The session alone is what generate calls: the prediction of the clean images, and the attack.
`waited` is the part of the run in which the attack had nothing to do, as generate counts it.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from timing import machine

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


def spread(values):
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{middle:.3f} [{low:.3f}, {high:.3f}]"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--formats", nargs="+", default=["folder", "npz"])
    given = parser.parse_args()
    count, rounds = (BATCH, 1) if given.smoke else (given.batches * BATCH, given.rounds)
    print(machine())
    with np.load(DEMO / "images.npz") as arrays:
        images, labels = arrays["images"][:count, ..., None], arrays["labels"][:count]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        attack = place / "attack.onnx"
        config = jataug.AttackConfig.preset(
            "evaluation", flow=jataug.FlowBudget(0.3), pixel=jataug.PixelBudget("8/255"), steps=10
        )
        export_attack(DEMO / "classifier.onnx", config, attack, check=False)
        np.savez(place / "images.npz", images=images, labels=labels)
        with jataug.Session.open(attack, device="cpu", batch_size=BATCH) as session:
            alone(session, images[:BATCH], labels[:BATCH])
            seen = {name: [] for name in ("attack", *given.formats)}
            waits = {name: [] for name in given.formats}
            for number in range(rounds):
                predicting, attacking = alone(session, images, labels)
                seen["attack"].append((predicting, attacking))
                for format in given.formats:
                    out = place / f"{format} {number}"
                    took, waited = whole(session, attack, place / "images.npz", out, format)
                    seen[format].append(took)
                    waits[format].append(waited / took)
    calls = np.sum(seen["attack"], axis=1)
    print(f"n = {count} images, {rounds} rounds, median [quartiles]")
    print(f"  the session alone  {spread(count / calls)} images/s")
    for format in given.formats:
        took = np.array(seen[format])
        print(
            f"  {format:<8} {spread(count / took)} images/s; session/total {spread(calls / took)}; "
            f"attack/total {spread(np.array(seen['attack'])[:, 1] / took)}; "
            f"waited {spread(waits[format])}"
        )


if __name__ == "__main__":
    main()
