"""Real signals to a real run: the first stops it cleanly, the second at once; both can go on."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from commands import call, finish, start, tree_hash, until

from jataug.cli.interrupt import Interrupt
from jataug.generator import generate

pytestmark = pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")


@pytest.fixture
def words(attacks, images, tmp_path):
    def of(name, *more):
        options = ("--device", "cpu", "--threads", "1", "--batch-size", "16")
        return ("generate", attacks / "strong.onnx", images, tmp_path / name, *options, *more)

    return of


@pytest.fixture(scope="module")
def once(attacks, images, tmp_path_factory):
    out = tmp_path_factory.mktemp("interrupt") / "once"
    options = {"device": "cpu", "threads": 1, "batch_size": 16, "shard_size": 64}
    generate(attacks / "strong.onnx", images, out, **options)
    return tree_hash(out)


def begun(out):
    """Whether the first shard is whole and the next one is being made."""
    return list((out / "records").glob("*.json")) and not (out / "index.json").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_first_signal_stops_after_the_batch(words, tmp_path, once, number, workers):
    command = words("out", "--shard-size", "64", "--workers", workers)
    running = start(*command)
    until(lambda: begun(tmp_path / "out"))
    running.send_signal(number)
    code, said = finish(running)
    assert code == 130, said
    assert "stopping after this batch" in said
    there = sum(1 for _ in (tmp_path / "out" / "images").rglob("*.png"))
    assert 64 <= there < 512
    kept = 64 * len(list((tmp_path / "out" / "records").glob("*.json")))
    assert f"stopped, {kept} of 512 images are there" in said
    assert "run the same command again" in said
    assert "\naccuracy so far: clean 0." in said
    assert "images attacked" not in said
    assert not (tmp_path / "out" / ".tmp").exists()
    code, said = call(*command)
    assert code == 0, said
    assert tree_hash(tmp_path / "out") == once


def test_the_second_signal_stops_at_once(words, tmp_path, once):
    command = words("out", "--shard-size", "64")
    running = start(*command)
    until(lambda: begun(tmp_path / "out"))
    # The process stands still meanwhile, so that no batch ends between the two.
    for number in (signal.SIGSTOP, signal.SIGINT):
        running.send_signal(number)
    running.send_signal(signal.SIGCONT)
    code, said = finish_after(running, "stopping after this batch", signal.SIGINT)
    assert code == 130, said
    assert call(*command)[0] == 0
    assert tree_hash(tmp_path / "out") == once


def finish_after(running, line, number):
    """Send a signal when a line was said; return the exit code and all that was said."""
    said = ""
    while line not in said:
        more = running.stderr.readline()
        assert more, said
        said += more
    running.send_signal(number)
    code, rest = finish(running)
    return code, said + rest


_STUCK = """
import sys, time
from pathlib import Path
from jataug.cli import main
import jataug.runtime
busy = Path(sys.argv.pop())
def slow(self, *args, **options):
    busy.touch()
    time.sleep(600)
jataug.runtime.Session.attack = slow
main()
"""


def test_the_second_signal_ends_a_batch_that_takes_for_ever(words, tmp_path, once):
    command = [str(word) for word in words("out", "--shard-size", "64")]
    running = subprocess.Popen(
        [sys.executable, "-c", _STUCK, *command, str(tmp_path / "busy")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until((tmp_path / "busy").exists)
    running.send_signal(signal.SIGINT)
    code, said = finish_after(running, "stopping after this batch", signal.SIGINT)
    assert code == 130, said
    assert "stopped at once" in said
    assert "same command" in said
    code, said = call(*command)
    assert code == 0, said
    assert "took over from process" in said
    assert tree_hash(tmp_path / "out") == once


_PLANNING = """
import sys, time
from pathlib import Path
from jataug.cli import main
import jataug.data
busy = Path(sys.argv.pop())
def slow(source):
    busy.touch()
    time.sleep(600)
jataug.data.open_source = slow
main()
"""


def planned(words, tmp_path, code=_PLANNING):
    """Start a command whose planning does not end, and wait until it is there."""
    running = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words), str(tmp_path / "busy")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until((tmp_path / "busy").exists)
    return running


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_is_enough_before_the_first_batch(words, tmp_path, number):
    running = planned(words("out"), tmp_path)
    running.send_signal(number)
    code, said = finish(running)
    assert (code, said.strip()) == (130, "stopped")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def deaf():
    """An interrupt whose main thread has not turned to its handler yet; what it said."""
    said = []
    with Interrupt(said.append) as interrupt:
        signal.signal(signal.SIGINT, lambda *_: None)
        yield interrupt, said


def test_a_signal_just_before_the_run_begins_ends_it(deaf):
    interrupt, said = deaf
    progress = interrupt.begins(said.append)
    os.kill(os.getpid(), signal.SIGINT)
    until(lambda: interrupt._early)  # the thread that waits for signals has heard it
    with pytest.raises(KeyboardInterrupt):
        progress("now")
    assert (said, interrupt()) == ([], False)


def test_a_signal_just_after_it_began_stops_it(deaf):
    interrupt, said = deaf
    interrupt.begins(said.append)("now")
    os.kill(os.getpid(), signal.SIGINT)
    until(interrupt)
    assert said[0] == "now"
    assert len(said) == 2
    assert "stopping after this batch" in said[1]


_HANGING = """
import hashlib, sys
from pathlib import Path
from jataug.cli import main
import jataug.data
busy = Path(sys.argv.pop())
def slow(source):
    busy.touch()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 300_000_000)  # minutes in one call of C
jataug.data.open_source = slow
main()
"""


def test_two_signals_are_enough_where_planning_hangs(words, tmp_path):
    running = planned(words("out"), tmp_path, _HANGING)
    running.send_signal(signal.SIGINT)
    time.sleep(1)  # signals that come together are one
    running.send_signal(signal.SIGINT)
    code, said = finish(running, seconds=60)
    assert code == 130, said
    assert "stopped at once" in said


def test_machines_read_that_it_was_stopped_before_it_began(words, tmp_path):
    running = planned(words("out", "--log-json"), tmp_path)
    running.send_signal(signal.SIGINT)
    code, said = finish(running)
    assert code == 130
    assert json.loads(said) == {"complete": False, "event": "stopped", "stopped": True}


def test_machines_read_that_it_was_stopped(words, tmp_path):
    running = start(*words("out", "--shard-size", "64", "--log-json"))
    until(lambda: begun(tmp_path / "out"))
    running.send_signal(signal.SIGINT)
    code, said = finish(running)
    events = [json.loads(line) for line in said.splitlines()]
    assert code == 130
    assert "note" in {event["event"] for event in events}
    assert events[-1]["event"] == "stopped"
    assert events[-1]["stopped"] is True
    assert events[-1]["complete"] is False


def test_a_run_asked_to_stop_says_so(new_session, folder, tmp_path, files_of):
    asked = []

    def stop():
        asked.append(None)
        return len(asked) >= 3

    options = {"batch_size": 2, "shard_size": 4, "save_flow": True}
    report = generate(None, folder, tmp_path / "out", session=new_session(), stop=stop, **options)
    assert (report.stopped, report.complete) == (True, False)
    assert report.images == 4
    again = generate(None, folder, tmp_path / "out", session=new_session(), **options)
    assert (again.stopped, again.complete, again.generated) == (False, True, 7)
    generate(None, folder, tmp_path / "once", session=new_session(), **options)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "once")


def test_a_stop_at_the_end_is_none(new_session, folder, tmp_path):
    report = generate(None, folder, tmp_path / "out", session=new_session(), stop=lambda: True)
    assert (report.stopped, report.complete) == (False, True)
