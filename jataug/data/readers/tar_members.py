"""Members of plain tar archives, found once and then read at their offsets."""

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ...errors import DataError

__all__ = ["Member", "read_member", "tar_members"]


class Member(NamedTuple):
    """A file in an archive: its name, where its bytes begin, and how many they are."""

    name: str
    offset: int
    size: int


def tar_members(path: Path) -> Iterator[Member]:
    """Yield the regular files of a tar archive, in order.

    Raises:
        DataError: the file is no plain tar archive, or is damaged or truncated; the message has the
            offset.
    """
    place, size = 0, 0
    try:
        size = path.stat().st_size
        with tarfile.open(path, "r:") as archive:
            while (info := archive.next()) is not None:
                vars(archive)["members"] = []  # else every header stays in memory
                if info.offset_data + info.size > size:
                    raise DataError(_truncated(path, info, size))
                place = info.offset_data + -(-info.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                if info.isreg():
                    yield Member(info.name, info.offset_data, info.size)
            # tarfile takes the end of the file, and any damaged header, for the end of the archive.
            if (rest := _block(path, place)) != bytes(tarfile.BLOCKSIZE):
                found = "a damaged header" if len(rest) == tarfile.BLOCKSIZE else "no end mark"
                raise DataError(_cut(path, place, found))
    except tarfile.TarError as error:
        raise DataError(_cut(path, place, f"{error}")) from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"{path}: cannot be read: {reason}") from None


def read_member(path: Path, member: Member) -> bytes:
    """Return the bytes of a member.

    Raises:
        DataError: the file is missing or truncated.
    """
    try:
        with path.open("rb") as file:
            file.seek(member.offset)
            data = file.read(member.size)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) != member.size:
        raise DataError(
            f"{path}:{member.name}: expected {member.size} bytes at offset {member.offset}, got "
            f"{len(data)}: the tar is truncated; copy it again"
        )
    return data


def _block(path: Path, place: int) -> bytes:
    with path.open("rb") as file:
        file.seek(place)
        return file.read(tarfile.BLOCKSIZE)


def _truncated(path: Path, info: tarfile.TarInfo, size: int) -> str:
    return (
        f"{path}:{info.name}: expected {info.size} bytes at offset {info.offset_data}, got "
        f"{max(0, size - info.offset_data)}: the tar is truncated; copy it again"
    )


def _cut(path: Path, place: int, found: str) -> str:
    return (
        f"{path}: expected a plain tar archive, got {found} at offset {place}: it is damaged, "
        "truncated or compressed; copy it again, or decompress it"
    )
