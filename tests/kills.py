"""Kill a run before each of its changes to a folder in turn, and go on with another.

The runs are forked from a process that has imported all they need. As this process must have
nothing else in it, each test has a program of its own, which calls `main`, and calls it by
`killed_before_every_change`.

What Python opens, renames and removes is a change. What native code opens is none (a draft by
safetensors or pyarrow), and none lies inside a write: kills at random moments meet those.
"""

import os
import random
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

_CHANGES = {
    "open", "os.chmod", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate", "os.utime",
    "shutil.rmtree",
}  # fmt: skip

Make = Callable[[Path], object]
Content = Callable[[Path], Mapping[str, Any]]


def killed_before_every_change(program: Path, place: Path, *words: object) -> int:
    """Run a program and return how many changes it found; none may have ended otherwise."""
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    # No accelerator: where torch sees one, a process that has differentiated must not be forked.
    settings = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    running = subprocess.Popen(
        [sys.executable, str(program), str(place), *map(str, words)],
        env={**os.environ, **settings, "PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        said, complained = running.communicate(timeout=500)
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, signal.SIGKILL)  # with what it has forked
        raise
    assert running.returncode == 0, complained
    *differ, changes = said.splitlines()
    assert not differ, "\n".join(differ)
    return int(changes)


def main(make: Make, content: Content, place: Path, seed: int | None = None) -> None:
    """Print the changes before which a kill is not made good, and last their number.

    Args:
        make: what is run, with a folder; run again with it, it goes on.
        content: what must come out the same, by name.
        place: where the folders are made.
        seed: kill the run that goes on too, before a change drawn from this.
    """
    moments = None if seed is None else random.Random(seed)
    for line in _differences(make, content, place, moments):
        print(line, flush=True)


def _differences(
    make: Make, content: Content, place: Path, moments: random.Random | None
) -> Iterator[str]:
    # In this process, so that those that it forks need not import anything.
    make(place / "once")
    expected = content(place / "once")
    for number in count(1):
        out = place / str(number)
        if not _killed(make, out, number):
            yield str(number - 1)
            return
        if moments is not None:
            _killed(make, out, moments.randint(1, number))
        assert not _killed(make, out)
        found = content(out)
        names = {*expected, *found}
        if differ := sorted(n for n in names if expected.get(n, ...) != found.get(n, ...)):
            yield f"killed before change {number}: {', '.join(differ)} differ"


def _killed(make: Make, out: Path, number: int = 0) -> bool:
    """Make it in a process of its own; return whether that was killed."""
    child = os.fork()
    if child == 0:
        sys.addaudithook(_Kill(out, number))
        try:
            make(out)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), f"{out}: a run failed"
    return status != 0


class _Kill:
    """Ends this process before its n-th change under a folder.

    Args:
        root: the folder.
        number: n, from 1; 0 for never.
    """

    def __init__(self, root: Path, number: int) -> None:
        self._root, self._left = str(root), number
        self._lock = threading.Lock()

    def __call__(self, event: str, args: tuple[object, ...]) -> None:
        """Hear of an event of the interpreter, before it happens."""
        if event not in _CHANGES or not str(args[0]).startswith(self._root):
            return
        if event == "open" and not _writes(args[2]):
            return
        with self._lock:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def _writes(flags: object) -> bool:
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
