"""Files with snapshots of namespaces: one per engine and snapshot, readable by their owner only.

A file is complete or not there. It begins with a line of JSON that says what follows: the segments of a pickle.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ...errors import KernelError
from ...folders import ipython_dir
from ...serialize import Buffer
from ..session.snapshots import SnapshotContent, SnapshotPlace

_MARK: Final = "ipmpi snapshot 1"
_SUFFIX: Final = ".snapshot"
_HEADER: Final = 16 << 20
"""Most bytes of the first line."""


class SnapshotFiles:
    """Keeps snapshots of this process's engine in ``FOLDER/KEY/ENGINE.snapshot``."""

    def save(self, place: SnapshotPlace, key: str, engine: int, content: SnapshotContent) -> dict[str, Any]:
        """Save one.

        Raises:
            OSError: it cannot be written.
        """
        import json  # for snapshots alone

        folder = _folder(place)
        path = _file(folder, key, engine)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        sizes = [memoryview(segment).nbytes for segment in content.segments]
        said = {"is": _MARK, "names": content.names, "left out": content.left_out, "sizes": sizes}
        unfinished = path.with_suffix(f".{os.getpid()}")
        try:
            unfinished.unlink(missing_ok=True)
            with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(json.dumps(said).encode() + b"\n")
                for segment in content.segments:
                    file.write(segment)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
        return {"folder": str(folder), "bytes": sum(sizes)}

    def saved(self, place: SnapshotPlace, engine: int) -> list[tuple[str, float]]:
        """Return the keys of all that are there, and the times when they were saved, since the epoch."""
        found = []
        for key in _keys(_folder(place)):
            with contextlib.suppress(OSError):
                found.append((key, _file(_folder(place), key, engine).stat().st_mtime))
        return found

    def load(self, place: SnapshotPlace, key: str, engine: int) -> SnapshotContent:
        """Return one; its segments can be written to.

        Raises:
            OSError: it is not there, or cannot be read.
            KernelError: it is no snapshot, or somebody else's: reading it would run their code.
        """
        import json

        path = _file(_folder(place), key, engine)
        with path.open("rb") as file:
            about = os.fstat(file.fileno())
            if about.st_uid != os.geteuid() or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise KernelError(
                    f"{path} belongs to somebody else, or others can write to it: it is not loaded, as loading it "
                    "runs code. If you trust it, copy the folder and make the copy your own: chmod -R go-w FOLDER"
                )
            try:
                said = json.loads(file.readline(_HEADER))
                sizes = [int(size) for size in said["sizes"]]
                if said["is"] != _MARK or about.st_size - file.tell() != sum(sizes):
                    raise ValueError
            except (ValueError, TypeError, KeyError):
                raise KernelError(
                    f"{path} is no snapshot of this release of ipmpi, or is damaged, so the names in it are lost: "
                    "make them again, and save them with mec.snapshot()"
                ) from None
            segments: list[Buffer] = []
            for size in sizes:
                segment = bytearray(size)
                if file.readinto(segment) != size:
                    raise KernelError(f"{path} has changed while it was read: call mec.restore() again")
                segments.append(segment)
        return SnapshotContent(list(said["names"]), dict(said["left out"]), segments)

    def drop_others(self, place: SnapshotPlace, key: str, engine: int) -> None:
        """Remove all snapshots of this engine but one."""
        folder = _folder(place)
        for other in _keys(folder):
            if other != key:
                _file(folder, other, engine).unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # those of other engines
                    (folder / other).rmdir()


def _folder(place: SnapshotPlace) -> Path:
    if place.folder:
        return Path(place.folder).expanduser().absolute()
    return ipython_dir().absolute() / "snapshots" / place.cluster


def _keys(folder: Path) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for entry in folder.iterdir():
            if entry.is_dir():
                yield entry.name


def _file(folder: Path, key: str, engine: int) -> Path:
    if os.sep in key or key in ("", ".", ".."):
        raise ValueError(f"{key!r} is no key of a snapshot")
    return folder / key / f"{engine}{_SUFFIX}"
