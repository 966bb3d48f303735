"""However many work, and wherever: the same bytes."""

import functools
import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import call, finish, start, tree_hash, until

from jataug.dataset.formats import FORMATS
from jataug.errors import DataError, MissingExtra
from jataug.generator import generate

OPTIONS = ("--device", "cpu", "--threads", "1", "--shard-size", "64", "--limit", "320")


@pytest.fixture(scope="module")
def command(attacks, images):
    return ("generate", attacks / "strong.onnx", images)


@pytest.fixture(scope="module")
def by_one(command, tmp_path_factory):
    """The hash of what one worker makes, of a format."""

    @functools.cache
    def made(kind):
        out = tmp_path_factory.mktemp("engines") / kind
        code, said = call(*command, out, *OPTIONS, "--format", kind)
        assert code == 0, said
        return tree_hash(out)

    return made


@pytest.fixture(scope="module")
def once(by_one):
    return by_one("folder")


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_make_the_same_bytes(command, tmp_path, once, workers):
    code, said = call(*command, tmp_path / "out", *OPTIONS, "--workers", workers)
    assert code == 0, said
    assert "320 images made, 320 in all; complete" in said
    assert tree_hash(tmp_path / "out") == once


def shares(command, out, *options):
    both = [start(*command, out, *OPTIONS, *options, "--shard", f"{k}/2") for k in (1, 2)]
    ends = [finish(process) for process in both]
    assert [code for code, _ in ends] == [0, 0], ends
    assert any("complete" in said for _, said in ends)
    return tree_hash(out)


def test_shares_at_once_make_the_same_bytes(command, tmp_path, once):
    assert shares(command, tmp_path / "out") == once


@pytest.mark.heavy
@pytest.mark.parametrize("kind", [name for name in FORMATS if name != "folder"])
def test_every_way_makes_the_same_bytes_of_a_format(command, tmp_path, by_one, kind):
    has_ray()
    ways = {
        "workers": ("--workers", "2"),
        "more": ("--workers", "4"),
        "ray": ("--engine", "ray", "--workers", "2"),
    }
    found = {"shares": shares(command, tmp_path / "shares", "--format", kind)}
    for name, options in ways.items():
        code, said = call(*command, tmp_path / name, *OPTIONS, "--format", kind, *options)
        assert code == 0, said
        found[name] = tree_hash(tmp_path / name)
    assert set(found.values()) == {by_one(kind)}, found


def test_what_a_worker_refuses_is_one_line(attacks, tmp_path, images):
    broken = tmp_path / "images.npz"
    broken.write_bytes(images.read_bytes()[:-300_000] + bytes(300_000))
    words = ("generate", attacks / "weak.onnx", broken, tmp_path / "out", "--workers", "2")
    code, said = call(*words, "--device", "cpu")
    assert code == 2
    (line,) = said.strip().splitlines()
    assert line.startswith("Error: ")
    assert "images.npz" in line


def test_ray_is_an_extra(attacks, images, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"pip install 'jataug\[ray\]'"):
        generate(attacks / "weak.onnx", images, tmp_path / "out", engine="ray", limit=4)


def has_ray():
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'jataug[ray]'")


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.heavy)])
def test_ray_makes_the_same_bytes(command, tmp_path, once, workers):
    has_ray()
    words = (*command, tmp_path / "out", *OPTIONS, "--engine", "ray", "--workers", workers)
    code, said = call(*words)
    assert code == 0, said
    assert "320 images made, 320 in all; complete" in said
    assert tree_hash(tmp_path / "out") == once


def processes_of(parent: int) -> dict[int, str]:
    """The command lines of all descendants of a process, by number."""
    below, found = {parent}, {}
    for _ in range(5):
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                above = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                if above in below:
                    below.add(int(folder.name))
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().decode()
            except OSError:
                continue
    return found


@pytest.mark.heavy
def test_a_ray_worker_that_is_killed_is_replaced(command, tmp_path, once):
    has_ray()
    if not Path("/proc/self/stat").exists():
        pytest.skip("needs /proc to find the processes of the workers")
    words = (*command, tmp_path / "out", *OPTIONS, "--engine", "ray", "--workers", "2")
    running = start(*words)
    tries = tmp_path / "out" / ".tmp"
    # Both at work: one that is lost while it opens has no shard to be made again.
    until(
        lambda: (
            len(list(tries.glob("*.tries/[0-9]*"))) >= 2
            and not list(tries.glob("*.tries/opening*"))
        )
    )
    actors = [pid for pid, name in processes_of(running.pid).items() if "MapWorker" in name]
    time.sleep(0.3)
    os.kill(actors[0], 9)
    code, said = finish(running)
    assert code == 0, said
    assert "a Ray worker was lost and replaced; its shard was made again" in said
    assert tree_hash(tmp_path / "out") == once


def test_a_shard_that_kills_every_worker_is_given_up(tmp_path):
    from jataug.errors import RuntimeUnavailable
    from jataug.generator.engines.ray import _Actor

    actor = _Actor.__new__(_Actor)
    actor._tries = tmp_path / "tries"
    for _ in range(4):
        actor._count("7", "shard 7: its worker died")
    with pytest.raises(RuntimeUnavailable, match="shard 7: its worker died 4 times"):
        actor._count("7", "shard 7: its worker died")
    assert actor._count("8", "").stat().st_size == 1


def test_workers_that_die_while_they_open_are_given_up(tmp_path, monkeypatch):
    """Ray starts an actor again without end."""
    from jataug.generator.engines import ray as engine

    class Killed(BaseException):
        pass

    class Dying:
        def __init__(self, assignment, name):
            raise Killed

    assignment = SimpleNamespace(request=SimpleNamespace(root=tmp_path), scratch="run")
    monkeypatch.setattr(engine, "Worker", Dying)
    for _ in range(4):
        with pytest.raises(Killed):
            engine._Actor(assignment, "one")
    answer = json.loads(engine._Actor(assignment, "one")({"number": [3]})["said"][0])
    assert answer["error"][0] == "RuntimeUnavailable"
    assert "a worker died while it opened 4 times" in answer["error"][1]
    with pytest.raises(Killed):
        engine._Actor(assignment, "another")


def test_gpus_are_placed_by_ray_alone(attacks, images, tmp_path):
    with pytest.raises(DataError, match="expected --engine ray, which places workers"):
        generate(attacks / "weak.onnx", images, tmp_path / "out", gpus_per_worker=1)


@pytest.mark.heavy
def test_a_cluster_without_gpus_says_so(command, tmp_path):
    has_ray()
    words = (*command, tmp_path / "out", *OPTIONS, "--engine", "ray", "--gpus-per-worker", "0.5")
    code, said = call(*words)
    assert code == 2
    assert "expected 0.5 GPU a worker, its cluster has none" in said
