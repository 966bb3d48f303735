"""What workers in processes of their own say, and what it takes when one is killed."""

import multiprocessing
import os
import threading

import dying_worker
import pytest

from jataug.errors import RuntimeUnavailable
from jataug.generator.engines import local

HOW = ["at once", "with a shard", "in the middle of a message"]


@pytest.fixture
def hired():
    """Start one process per function and arguments; yields a function."""
    processes = {}

    def hire(*work):
        context = multiprocessing.get_context("spawn")
        for target, *arguments in work:
            ours, theirs = context.Pipe()
            process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
            process.start()
            theirs.close()
            processes[ours] = process
        return processes

    yield hire
    for channel, process in processes.items():
        process.kill()
        process.join()
        channel.close()


def listened(processes, shards, stop=lambda: False):
    """What came of it within a minute: an error, or None."""
    found = []

    def listen():
        try:
            local._listen(processes, iter(shards), lambda event: None, stop)
        except RuntimeUnavailable as error:
            found.append(error)
        else:
            found.append(None)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    thread.join(60)
    assert found, "still waiting"
    return found[0]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("how", HOW)
def test_a_worker_that_is_killed_anywhere_is_named(hired, how):
    error = listened(hired((dying_worker.dies, how), (dying_worker.works,)), range(100))
    assert "worker 1 (process" in str(error)
    assert "killed by signal 9, as happens where memory runs out" in str(error)


def test_workers_take_all_shards(hired):
    left = iter(range(50))
    assert listened(hired(*[(dying_worker.works,)] * 3), left) is None
    assert next(left, None) is None


def test_stopped_workers_end_and_leave_the_rest(hired):
    left = iter(range(1_000_000))
    assert listened(hired(*[(dying_worker.works,)] * 2), left, stop=lambda: True) is None
    assert next(left) < 10
