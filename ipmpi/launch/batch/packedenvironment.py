"""An environment of Python in one file, from which jobs make a copy on each of their nodes.

An environment has tens of thousands of small files. If a thousand ranks look for them on a shared file system,
that takes minutes; one large file is read at once. Beside ``FILE`` is ``FILE.sum`` with one line: the SHA-256 of
the file, the time of the last change of the folder of packages (Unix time), and that folder. Job scripts compare
both.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from ipmpi.environment.filesystems import mounts, network_type
from ipmpi.errors import LauncherError

SYSTEM: Final = ("/", "/usr", "/usr/local")
"""Prefixes of Pythons that each node has."""

_LEFT_OUT: Final = {"site-packages", "test"}
"""Folders of the standard library that no engine needs: those of a venv are its own."""

_BLOCK: Final = 1 << 20
_EDITABLE: Final = ("__editable__*.pth", "*.egg-link", "easy-install.pth")


class Interpreter(NamedTuple):
    """What is packed.

    Attributes:
        prefix: the folder of the environment.
        base: the folder of the Python that it was made from; the same for one that is no venv.
        packages: the folder of its packages.
        executable: the file of that Python.
    """

    prefix: Path
    base: Path
    packages: Path
    executable: Path


class Packed(NamedTuple):
    """What was packed.

    Attributes:
        files: number of files.
        size: bytes of the archive.
        has_python: whether Python itself is in it, as it is on a shared file system, too.
        elsewhere: files of the packages that name folders outside, which are not in it.
    """

    files: int
    size: int
    has_python: bool
    elsewhere: list[Path]


def this_interpreter() -> Interpreter:
    """Return the one that runs this."""
    return Interpreter(
        Path(sys.prefix), Path(sys.base_prefix), Path(sysconfig.get_path("purelib")),
        Path(os.path.realpath(sys.executable)),
    )  # fmt: skip


def sum_file(archive: Path) -> Path:
    """Return the path of the file with its sum."""
    return archive.with_name(f"{archive.name}.sum")


def pack(archive: Path, python: Interpreter, *, with_python: bool | None = None) -> Packed:
    """Write an environment into a file. What was there is replaced when all of it is written.

    Args:
        archive: the file, which only this user may read.
        python: what to pack.
        with_python: whether to pack the Python that a venv was made from; None: if it is on a network file system.

    Raises:
        LauncherError: it is the system's Python, or a file cannot be read or written.
    """
    if str(python.prefix) in SYSTEM:
        raise LauncherError(
            f"this is the Python of the system ({python.prefix}), which each node has: make an environment with "
            "`python -m venv FOLDER`, install ipmpi there, and run its ipcluster"
        )
    if archive.absolute().is_relative_to(python.prefix):
        raise LauncherError(f"{archive} is in the environment that is packed: choose another folder")
    is_venv = python.prefix != python.base
    if not python.executable.is_file():
        raise LauncherError(f"{python.executable}, the Python of this environment, is not there")
    if with_python is None:
        with_python = is_venv and bool(network_type(python.base, mounts()))
    changed = int(python.packages.stat().st_mtime)
    unfinished = archive.with_name(f".{archive.name}.{os.getpid()}")
    count = 0
    try:
        with (
            open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream,
            tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar,
        ):
            for path, name in _entries(python, with_python and is_venv):
                count += 1
                tar.add(path, name, recursive=False)
            if with_python and is_venv:
                _add_link(tar, "env/bin/python", f"../../python/bin/{python.executable.name}")
        size = unfinished.stat().st_size
        _replace(sum_file(archive), f"{_digest(unfinished)} {changed} {python.packages}\n")
        unfinished.replace(archive)
    except OSError as error:
        raise LauncherError(
            f"the environment cannot be packed into {archive}: {error.filename or ''} {error.strerror or error}"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()
    elsewhere = [path for pattern in _EDITABLE for path in sorted(python.packages.glob(pattern))]
    return Packed(count, size, with_python and is_venv, elsewhere)


def check(archive: Path, python: Interpreter) -> None:
    """Refuse an archive that jobs could not use, while somebody is there to read why.

    Raises:
        LauncherError: it is not there, or of another environment.
    """
    again = f"write it with `ipcluster pack {archive}`"
    try:
        line = sum_file(archive).read_text("utf-8")
        size = archive.stat().st_size
    except (OSError, UnicodeDecodeError) as error:
        raise LauncherError(f"--stage-env {archive}: {error}; {again}") from None
    words = line.rstrip("\n").split(" ", 2)
    if len(words) != 3 or not size:
        raise LauncherError(f"--stage-env {archive}: this is no packed environment; {again}")
    if Path(words[2]) != python.packages:
        raise LauncherError(
            f"--stage-env {archive}: this is the environment with {words[2]}, and ipcluster runs in that with "
            f"{python.packages}; {again}"
        )
    if int(words[1]) != int(python.packages.stat().st_mtime):
        raise LauncherError(f"--stage-env {archive}: packages were installed or removed since then; {again}")


def _entries(python: Interpreter, with_python: bool) -> Iterator[tuple[Path, str]]:
    """Yield all files and folders with their names in the archive, folders first."""
    left_out = {python.prefix / "bin" / "python"} if with_python else set()
    for path in _tree(python.prefix):
        if path not in left_out:
            yield path, f"env/{path.relative_to(python.prefix)}"
    if not with_python:
        return
    library = Path(sysconfig.get_path("stdlib", vars={"installed_base": str(python.base)}))
    own = [python.executable, *python.base.glob("lib/libpython*.so*")]
    standard = (path for path in _tree(library) if not _LEFT_OUT & set(path.relative_to(library).parts[:1]))
    for path in (*own, *standard):
        yield path, f"python/{path.relative_to(python.base)}"


def _tree(top: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(top):
        folders.sort()
        yield Path(folder)
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        yield from (Path(folder, name) for name in sorted([*files, *links]))


def _add_link(tar: tarfile.TarFile, name: str, target: str) -> None:
    link = tarfile.TarInfo(name)
    link.type, link.linkname, link.mode = tarfile.SYMTYPE, target, 0o777
    tar.addfile(link)


def _replace(path: Path, text: str) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    unfinished.replace(path)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
