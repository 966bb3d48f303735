"""SIGKILL, then the same command: the bytes of a run that was left alone."""

import os
import random
import time
from pathlib import Path

import pytest
from commands import file_hashes, finish, start
from kills import killed_before_every_change

from jataug.dataset import verify
from jataug.generator import generate

FORMATS = ("folder", "npz", "tar", "parquet")
OPTIONS = {"batch_size": 16, "shard_size": 32, "save_flow": True, "limit": 256, "threads": 1}
WORDS = ("--batch-size", "16", "--shard-size", "32", "--save-flow", "--limit", "256")


def kill_and_go_on(command, out, kills, moments):
    """Kill the command `kills` times, a new set whenever one is finished; return each one's files.

    A moment is drawn from a time that is the same for all, so that early and late ones come up.
    """
    hashes, killed, number = [], 0, 0
    while killed < kills or hashes == []:
        place = out / str(number)
        running = start(*command, place)
        if killed < kills:
            time.sleep(moments.uniform(0.2, 3.0))
            running.kill()
        code, said = finish(running)
        if code == -9:
            killed += 1
            continue
        assert code == 0, said
        assert verify(place).ok
        hashes.append(file_hashes(place))
        number += 1
    if (out / str(number)).exists():
        code, said = finish(start(*command, place))
        assert code == 0, said
        hashes.append(file_hashes(place))
    return hashes


def check(attacks, images, tmp_path, format, kills, seed):
    attack = attacks / "strong.onnx"
    generate(attack, images, tmp_path / "once", device="cpu", format=format, **OPTIONS)
    command = ("generate", *WORDS, "--format", format, "--device", "cpu", "--threads", "1")
    found = kill_and_go_on(
        (*command, attack, images), tmp_path / "killed", kills, random.Random(seed)
    )
    expected = file_hashes(tmp_path / "once")
    for number, files in enumerate(found):
        differ = {name for name, _ in expected.items() ^ files.items()}
        assert not differ, f"run {number} of {len(found)}: {sorted(differ)}"


@pytest.mark.parametrize("format", FORMATS)
def test_killed_twice(attacks, images, tmp_path, format):
    check(attacks, images, tmp_path, format, kills=2, seed=1)


@pytest.mark.heavy
@pytest.mark.parametrize("format", FORMATS)
def test_killed_twenty_times(attacks, images, tmp_path, format):
    """Eighty kills over the formats."""
    check(attacks, images, tmp_path, format, kills=20, seed=2)


PROGRAM = Path(__file__).with_name("every_kill.py")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no fork")
@pytest.mark.parametrize("format", FORMATS)
def test_killed_before_every_change_of_a_file(folder, tmp_path, format):
    """A claim, a plan, what the source is, two shards, the card, the index, and the way out."""
    assert killed_before_every_change(PROGRAM, tmp_path / "killed", folder, format) > 60


@pytest.mark.heavy
@pytest.mark.skipif(os.name == "nt", reason="Windows has no fork")
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("seed", [1, 2])
def test_killed_again_while_it_goes_on(folder, tmp_path, format, seed):
    assert killed_before_every_change(PROGRAM, tmp_path / "killed", folder, format, seed) > 60
