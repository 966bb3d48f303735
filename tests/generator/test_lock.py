"""Who may work on a destination, when somebody else does, or did."""

import functools
import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from jataug.errors import DataError
from jataug.generator import generate
from jataug.generator.lock import SILENT, Claim, Lock

PLAN = "a" * 64


def lock(root: Path, part=(1, 1), plan=PLAN, shards=8) -> Lock:
    return Lock(root, plan, part, shards)


def claim_of(held: Lock) -> Path:
    (path,) = (held._root / ".tmp").glob(f"{held.name}.claim")
    return path


def plant(root: Path, claim: Claim, *, age: float = 0.0, name: str = "00000000000000000001-dead"):
    """Leave a claim behind, and what its run was writing."""
    folder = root / ".tmp"
    (folder / f"{name}.0").mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.0" / "7").write_bytes(b"half a file")
    (folder / f"{name}.held").touch()
    path = folder / f"{name}.claim"
    path.write_text(json.dumps(asdict(claim)))
    then = path.stat().st_mtime - age
    os.utime(path, (then, then))
    return path


def mine(tmp_path: Path) -> Claim:
    with lock(tmp_path / "elsewhere") as held:
        value = json.loads(claim_of(held).read_text())
    return Claim(**{**value, "part": tuple(value["part"])})


def in_threads(together: threading.Barrier, work) -> list[BaseException]:
    """Run functions side by side; return what they raised. One that fails lets the others go."""
    raised: list[BaseException] = []

    def guarded(one):
        try:
            one()
        except BaseException as error:
            raised.append(error)
            together.abort()

    threads = [threading.Thread(target=guarded, args=(one,), daemon=True) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    return raised


def test_the_second_is_told_who_holds_it(tmp_path):
    with lock(tmp_path), pytest.raises(DataError) as error, lock(tmp_path):
        pass
    said = str(error.value)
    own = mine(tmp_path)
    assert f"process {os.getpid()} on {own.host}, since 20" in said
    assert "--shard i/n" in said
    assert ".claim" in said


def test_a_released_lock_leaves_nothing(tmp_path):
    with lock(tmp_path):
        assert len(list((tmp_path / ".tmp").iterdir())) == 2
    assert not (tmp_path / ".tmp").exists()
    with lock(tmp_path) as held:
        assert held.notes == []


@pytest.mark.parametrize(
    ("one", "other", "refused"),
    [
        ((1, 2), (2, 2), False),
        ((1, 2), (1, 2), True),
        ((1, 2), (3, 4), True),
        ((1, 2), (2, 4), False),
        ((1, 3), (2, 2), True),
        ((1, 1), (2, 2), True),
    ],
)
def test_shares_meet_or_do_not(tmp_path, one, other, refused):
    with lock(tmp_path, one):
        if not refused:
            with lock(tmp_path, other):
                return
        with (
            pytest.raises(DataError, match=r"is in use by .* Wait for it, or .*--shard i/n"),
            lock(tmp_path, other),
        ):
            pass


def test_shares_of_two_plans_exclude_each_other(tmp_path):
    with (
        lock(tmp_path, (1, 2)),
        pytest.raises(DataError, match=r"with other options\. Wait for it, or use another folder"),
        lock(tmp_path, (2, 2), plan="b" * 64),
    ):
        pass


def test_a_process_that_is_gone_is_replaced(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    plant(tmp_path, replace(mine(tmp_path), pid=gone.pid))
    with lock(tmp_path) as held:
        (note,) = held.notes
        assert f"took over from process {gone.pid} on" in note
        assert "has ended" in note
        left = {path.name.split(".")[0] for path in (tmp_path / ".tmp").iterdir()}
        assert left == {held.name}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux says when it began")
def test_another_process_of_the_same_number_is_not_the_holder(tmp_path):
    plant(tmp_path, replace(mine(tmp_path), started="12"))
    with lock(tmp_path) as held:
        assert "has ended" in held.notes[0]


def test_another_machine_is_believed_as_long_as_it_gives_signs_of_life(tmp_path):
    claim = replace(mine(tmp_path), host="elsewhere", pid=1)
    plant(tmp_path, claim, age=SILENT / 2)
    with pytest.raises(DataError, match="process 1 on elsewhere, since"), lock(tmp_path):
        pass


def test_another_machine_that_is_silent_is_replaced(tmp_path):
    claim = replace(mine(tmp_path), host="elsewhere", pid=1)
    plant(tmp_path, claim, age=SILENT + 30)
    with lock(tmp_path) as held:
        assert "took over from process 1 on elsewhere" in held.notes[0]
        assert "silent for 1" in held.notes[0]


def test_a_container_of_the_same_name_is_another_machine(tmp_path):
    plant(tmp_path, replace(mine(tmp_path), space="another", pid=2**22 + 1))
    with pytest.raises(DataError, match="is in use by process"), lock(tmp_path):
        pass


@pytest.mark.parametrize("text", ["", "{", '{"host": 3}', "[]"])
def test_a_damaged_claim_counts_until_it_is_old(tmp_path, text):
    path = plant(tmp_path, mine(tmp_path))
    path.write_text(text)
    with pytest.raises(DataError, match="an unknown machine"), lock(tmp_path):
        pass
    then = path.stat().st_mtime - SILENT - 1
    os.utime(path, (then, then))
    with lock(tmp_path) as held:
        assert len(held.notes) == 1


def test_a_claim_that_comes_while_another_run_tidies_up_stays(tmp_path, monkeypatch):
    other, real = replace(mine(tmp_path), part=(2, 2)), Path.iterdir
    planted = []

    def late(folder):
        if folder.name == ".tmp" and not planted:
            planted.append(plant(folder.parent, other, name="99999999999999999999-late"))
        return real(folder)

    monkeypatch.setattr(Path, "iterdir", late)
    with lock(tmp_path, (1, 2)):
        assert planted[0].exists()


def test_of_many_at_once_one_gets_it(tmp_path):
    for turn in range(5):
        root, won, lost = tmp_path / str(turn), [], []
        together, done = threading.Barrier(6, timeout=60), threading.Barrier(6, timeout=60)

        def try_it(root=root, won=won, lost=lost, together=together, done=done):
            together.wait()
            try:
                with lock(root) as held:
                    won.append(held.name)
                    done.wait()
            except DataError as error:
                lost.append(str(error))
                done.wait()

        assert not in_threads(together, [try_it] * 6)
        assert (len(won), len(lost)) == (1, 5)
        assert not (root / ".tmp").exists()


def run(session, source, destination, **options):
    options = {"batch_size": 2, "shard_size": 2, **options}
    return generate(None, source, destination, session=session, **options)


def test_a_run_that_was_taken_for_dead_stops(new_session, folder, tmp_path, files_of):
    def bury(progress):
        if progress.done == 4:
            for path in (tmp_path / "out" / ".tmp").glob("*.claim"):
                path.unlink()

    with pytest.raises(DataError, match="another run took this one for dead"):
        run(new_session(), folder, tmp_path / "out", progress=bury)
    assert run(new_session(), folder, tmp_path / "out").complete
    run(new_session(), folder, tmp_path / "once")
    assert files_of(tmp_path / "out") == files_of(tmp_path / "once")


def test_shares_that_end_together_write_one_right_index(new_session, folder, tmp_path, files_of):
    run(new_session(), folder, tmp_path / "once")
    for turn in range(4):
        out, reports = tmp_path / f"out {turn}", []
        together = threading.Barrier(3, timeout=60)

        def share(part, out=out, reports=reports, together=together):
            def wait(progress):
                if progress.done == progress.total:
                    together.wait()

            reports.append(run(new_session(), folder, out, shard=part, progress=wait))

        shares = [functools.partial(share, f"{k}/3") for k in (1, 2, 3)]
        assert not in_threads(together, shares)
        assert sum(report.generated for report in reports) == 11
        assert any(report.complete for report in reports)
        assert files_of(out) == files_of(tmp_path / "once")


def test_what_another_run_made_meanwhile_is_not_made_again(new_session, folder, tmp_path):
    first = new_session()

    def other(progress):
        # Told before the lock is taken, after it was seen that everything is missing.
        if progress.done == 0 and not first.calls:
            run(new_session(), folder, tmp_path / "out")

    report = run(first, folder, tmp_path / "out", progress=other)
    assert first.calls == []
    assert (report.complete, report.images, report.generated) == (True, 11, 0)


def test_a_finished_data_set_is_only_read(new_session, folder, tmp_path, monkeypatch):
    run(new_session(), folder, tmp_path / "out")
    monkeypatch.setattr("jataug.generator.coordinator.Lock", None)
    assert run(new_session(), folder, tmp_path / "out").generated == 0
