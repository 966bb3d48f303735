"""Build wheel and sdist so that the same tree gives the same bytes.

    python .ci/dist.py [FOLDER]

The time in both is SOURCE_DATE_EPOCH, or that of the last commit. setuptools keeps to it in wheels;
an sdist has the times and owners of the files on the disk, so it is packed again without them.
"""

import gzip
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "dist").resolve()
    epoch = os.environ.get("SOURCE_DATE_EPOCH") or last_commit()
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": epoch}
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    for path in folder.glob("*.tar.gz"):
        path.write_bytes(repacked(path, int(epoch)))


def last_commit() -> str:
    command = ["git", "log", "-1", "--format=%ct"]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def repacked(path: Path, epoch: int) -> bytes:
    """The same files in order of their names, all of one time, of nobody, 644 or 755."""
    data, packed = io.BytesIO(), io.BytesIO()
    with tarfile.open(path) as old, tarfile.open(fileobj=data, mode="w") as new:
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            member.mtime, member.uid, member.gid, member.uname, member.gname = epoch, 0, 0, "", ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=epoch) as file:
        file.write(data.getvalue())
    return packed.getvalue()


if __name__ == "__main__":
    main()
