"""Kill a run before each of its changes to the destination in turn, and go on with another.

A program of its own, as it forks: python every_kill.py SOURCE PLACE FORMAT [SEED]. It prints the
changes before which a kill is not made good by the same run once more, and last their number.
With a seed that run is killed too, before a change drawn from it.
"""

import os
import random
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from conftest import FakeSession

from jataug.generator import generate

_CHANGES = {
    "open", "os.chmod", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate", "os.utime",
    "shutil.rmtree",
}  # fmt: skip


class Kill:
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


def make(source: Path, out: Path, format: str) -> None:
    """Make a small data set of two shards, with all that there can be in it."""
    options = {"batch_size": 2, "shard_size": 2, "limit": 3, "save_flow": True, "save_float": True}
    generate(None, source, out, session=FakeSession(), format=format, **options)  # type: ignore[arg-type]


def killed(source: Path, out: Path, format: str, number: int = 0) -> bool:
    """Make it in a process of its own; return whether that was killed."""
    child = os.fork()
    if child == 0:
        sys.addaudithook(Kill(out, number))
        try:
            make(source, out, format)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), f"{out}: a run failed"
    return status != 0


def differences(
    source: Path, place: Path, format: str, moments: random.Random | None
) -> Iterator[str]:
    """Yield a line for every change before which a kill is not made good."""
    # In this process, so that those that it forks need not import anything.
    make(source, place / "once", format)
    expected = _content(place / "once")
    for number in count(1):
        out = place / str(number)
        if not killed(source, out, format, number):
            yield str(number - 1)
            return
        if moments is not None:
            killed(source, out, format, moments.randint(1, number))
        assert not killed(source, out, format)
        if differ := {name for name, _ in expected.items() ^ _content(out).items()}:
            yield f"killed before change {number}: {', '.join(sorted(differ))} differ"


def _content(root: Path) -> dict[str, bytes | None]:
    """Return what every file holds, and None for folders, by name."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in root.rglob("*")
    }


if __name__ == "__main__":
    seed = random.Random(int(sys.argv[4])) if len(sys.argv) > 4 else None
    for line in differences(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], seed):
        print(line, flush=True)
