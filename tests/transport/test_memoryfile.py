"""Files in memory that come from somebody else are used only if they cannot be cut off."""

from __future__ import annotations

import fcntl
import gc
import os
from pathlib import Path

import pytest

from ipmpi import limits
from ipmpi.errors import RemoteProtocolError
from ipmpi.transport.memoryfile import MemoryFile, in_memory

DATA = bytes(range(256)) * 64


def unsealed(seals: int = 0) -> int:
    descriptor = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(descriptor, DATA)
    if seals:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def test_what_was_sealed_can_be_used_and_stays_as_it_is() -> None:
    file = MemoryFile(in_memory([DATA[:100], DATA[100:]], sealed=True))
    file.claim(len(DATA))
    assert bytes(file.part(0, len(DATA))) == DATA
    assert bytes(file.part(5, 7)) == DATA[5:12]
    with pytest.raises(PermissionError):
        os.ftruncate(file.descriptor, 1)
    with pytest.raises(PermissionError):
        os.write(file.descriptor, b"x")
    with pytest.raises(PermissionError):
        os.ftruncate(file.descriptor, 1 << 20)


@pytest.mark.parametrize(
    "seals",
    [
        0,
        fcntl.F_SEAL_SHRINK,
        fcntl.F_SEAL_GROW,
        fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_WRITE,
        fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE,
    ],
)
def test_a_file_that_its_sender_could_cut_off_is_not_used(seals: int) -> None:
    """Who maps it would die by SIGBUS."""
    file = MemoryFile(unsealed(seals))
    with pytest.raises(RemoteProtocolError, match="could still be cut off by its sender"):
        file.claim(len(DATA))


def test_files_that_are_not_in_memory_are_not_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    for name in (tmp_path / "file", tmp_path, "/dev/zero"):
        with pytest.raises(RemoteProtocolError, match="could still be cut off"):
            MemoryFile(os.open(name, os.O_RDONLY)).claim(1)
    reader, writer = os.pipe()
    os.close(writer)
    with pytest.raises(RemoteProtocolError, match="could still be cut off"):
        MemoryFile(reader).claim(1)


def test_a_size_that_lies_is_not_believed() -> None:
    with pytest.raises(RemoteProtocolError, match=f"a file of {len(DATA)} bytes for a part of a body that has"):
        MemoryFile(in_memory([DATA], sealed=True)).claim(len(DATA) + 1)


def test_a_large_file_is_read_and_not_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the controller would seem to have all of it."""
    monkeypatch.setattr("ipmpi.transport.memoryfile._MAPPED", 1000)
    before = mapped_bodies()  # of other tests
    file = MemoryFile(in_memory([DATA], sealed=True), len(DATA))
    assert bytes(file.part(1000, limits.CHUNK)) == DATA[1000:]
    assert mapped_bodies() <= before


def mapped_bodies() -> set[str]:
    """The inodes of bodies that are mapped in this process."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line.split()[4] for line in lines if "memfd:ipmpi-body" in line}


@pytest.mark.parametrize("mapped", [False, True])
def test_it_is_free_when_neither_file_nor_parts_are_needed(mapped: bool) -> None:
    freed: list[int] = []
    descriptor = in_memory([DATA], sealed=True)
    file = MemoryFile(descriptor, len(DATA), lambda: freed.append(1))
    part = file.part(0, 10) if mapped else None
    del file
    gc.collect()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(descriptor)
    assert freed == ([] if mapped else [1])
    assert part is None or bytes(part) == DATA[:10]
    del part
    gc.collect()
    assert freed == [1]
