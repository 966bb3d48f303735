"""images/<shard>.tar in the WebDataset convention: for each image key.png, key.cls, key.json, and
where they are saved key.flow.npy and key.float.npy.

Written header by header: tarfile alone is in Python, opens with no other package, and its bytes
depend on nothing but what is put in (no date, no user, one mode).
"""

import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ...atomic import name_write_errors
from ...checks import canonical
from ...data import Member, decode_bytes, read_array, read_member, tar_members
from ...errors import DataError
from ..encode import png
from ..finished_batch import Finished
from ..plan import Plan
from .arrays import Entry, Records
from .target import Target, described

__all__ = ["CARD", "LOADED", "PICTURES", "Reader", "Writer", "prepare", "stem"]

PICTURES = True
CARD = "`images/*.tar`: shards in the WebDataset convention, `.png`, `.cls` and `.json` an image;"
LOADED = "images/*.tar"
_BLOCK = tarfile.BLOCKSIZE


def prepare(plan: Plan) -> dict[str, str]:
    """Return nothing: the format needs no other package."""
    del plan
    return {}


def stem(key: str) -> str:
    """Return the name of a sample in a tar: its key, percent-encoded where a reader would cut it.

    WebDataset cuts a name at the first dot after the last slash, and leaves out names that begin
    with two underscores; two keys never get one name.
    """
    *folders, base = key.replace("%", "%25").split("/")
    parts = [*map(_folder, folders), base.replace(".", "%2E") or "%2F"]
    name = "/".join(parts)
    return f"%5F{name[1:]}" if name.startswith("__") else name


def _folder(name: str) -> str:
    if name == "":
        return "%2F"
    return name.replace(".", "%2E") if name in (".", "..") else name


class Writer:
    """Appends to a temporary file, which is open only while a batch is written."""

    def __init__(self, target: Target) -> None:
        self._store, self._plan, self._pool = target.store, target.plan, target.pool
        self._name, self._draft = f"images/{target.shard.name}.tar", target.store.temporary()
        self._size = 0
        with name_write_errors(self._draft):
            self._draft.write_bytes(b"")

    def add(self, batch: Finished) -> list[dict[str, Any]]:
        """Write a batch."""
        pictures = list(self._pool.map(png, batch.images))
        places = []
        with name_write_errors(self._store.root / self._name), self._draft.open("ab") as file:
            for row, (record, picture) in enumerate(zip(batch.records, pictures, strict=True)):
                arrays = self._arrays(batch, row)
                for name, data in _members(record, picture, arrays).items():
                    head = _header(name, len(data))
                    if data is picture:
                        places.append(self._place(name, self._size + len(head), picture))
                    block = head + data + b"\0" * (-len(data) % _BLOCK)
                    file.write(block)
                    self._size += len(block)
        return places

    def finish(self, records: list[dict[str, Any]]) -> dict[str, str]:
        """Close the archive as tar does: two empty blocks, then up to a whole record."""
        del records
        end = 2 * _BLOCK + -(self._size + 2 * _BLOCK) % tarfile.RECORDSIZE
        with name_write_errors(self._store.root / self._name), self._draft.open("ab") as file:
            file.write(b"\0" * end)
        return {self._name: self._store.publish(self._draft, self._name)}

    def _arrays(self, batch: Finished, row: int) -> dict[str, NDArray[Any]]:
        flow = {"flow.npy": batch.flow[row].astype("<f2")} if self._plan.save_flow else {}
        exact = {"float.npy": batch.exact[row].astype("<f4")} if self._plan.save_float else {}
        return {**flow, **exact}

    def _place(self, member: str, offset: int, picture: bytes) -> dict[str, Any]:
        value = hashlib.sha256(picture).hexdigest()
        place = {"file": self._name, "member": member, "offset": offset, "size": len(picture)}
        return {**place, "sha256": value}


class Reader:
    """Reads members at their offsets."""

    def __init__(self, root: Path, entry: Entry, records: Records) -> None:
        self._name, self._records = f"images/{entry['name']}.tar", records
        self._path = root / self._name
        self._members: dict[str, Member] | None = None

    def data(self, row: int) -> bytes:
        """Return a PNG file."""
        record = self._records[row]
        place = Member(record["member"], record["offset"], record["size"])
        return read_member(self._path, place)

    def image(self, row: int, data: bytes) -> NDArray[np.uint8]:
        """Return the image in a PNG file."""
        return decode_bytes(data, f"{self._path}:{self._records[row]['member']}")

    def flow(self, row: int) -> NDArray[np.float16] | None:
        """Return a flow, or None."""
        return self._array(row, "flow.npy")

    def exact(self, row: int) -> NDArray[np.float32] | None:
        """Return a float image, or None."""
        return self._array(row, "float.npy")

    def problems(self) -> Iterator[str]:
        """Yield members that are missing, or are not what the records say."""
        members = self._index()
        for record in self._records:
            for suffix, data in _texts(record).items():
                name = f"{stem(record['key'])}.{suffix}"
                if name not in members or read_member(self._path, members[name]) != data:
                    yield f"{record['key']}: expected {name} as in the records, got another"
            place = Member(record["member"], record["offset"], record["size"])
            if members.get(place.name) != place:
                yield f"{record['key']}: expected {place.name} where the records have it"

    def _array(self, row: int, suffix: str) -> NDArray[Any] | None:
        name = f"{stem(self._records[row]['key'])}.{suffix}"
        member = self._index().get(name)
        if member is None:
            return None
        where = f"{self._path}:{name}"
        try:
            return read_array(read_member(self._path, member))
        except DataError:
            raise
        except ValueError as error:
            raise DataError(f"{where}: expected an array, got a damaged one ({error})") from None

    def _index(self) -> dict[str, Member]:
        if self._members is None:
            self._members = {member.name: member for member in tar_members(self._path)}
        return self._members


def _members(
    record: Mapping[str, Any], picture: bytes, arrays: Mapping[str, NDArray[Any]]
) -> dict[str, bytes]:
    parts = {"png": picture, **_texts(record)}
    for suffix, array in arrays.items():
        file = io.BytesIO()
        npy.write_array(file, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
        parts[suffix] = file.getvalue()
    name = stem(record["key"])
    return {f"{name}.{suffix}": data for suffix, data in parts.items()}


def _texts(record: Mapping[str, Any]) -> dict[str, bytes]:
    return {
        "cls": str(record["label"]).encode(),
        "json": canonical(described(record)).encode(),
    }


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
