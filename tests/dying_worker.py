"""Workers for tests/generator/test_workers.py, in a module that a spawned process can import."""

import os
import signal
import struct
from typing import Any


def dies(channel: Any, how: str) -> None:
    """Get killed before or after the first shard, or in the middle of saying something."""
    if how != "at once":
        channel.send("next")
        channel.recv()
    if how == "in the middle of a message":
        os.write(channel.fileno(), struct.pack("!i", 100_000) + b"x" * 5_000)
    os.kill(os.getpid(), signal.SIGKILL)


def works(channel: Any) -> None:
    """Take shards until there is none, or until it is told to stop."""
    heard = 0
    while heard is not None:
        channel.send("next")
        heard = channel.recv()
        while heard == "halt":
            heard = channel.recv()
    channel.send("end")
