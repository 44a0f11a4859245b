"""Memory control groups of Linux: what a batch system or container allows a process, and what was used of it.

Version 2 and version 1 are read, wherever they are mounted. A limit of an outer group holds for the inner ones.
"""

from __future__ import annotations

import functools
import os
import re
from typing import Final, NamedTuple

_LONGEST: Final = 65_536
_NO_LIMIT: Final = 1 << 60
"""Version 1 says the largest number of pages for "no limit"."""
_LIMITS: Final = {1: "memory.limit_in_bytes", 2: "memory.max"}
_USAGES: Final = {1: "memory.usage_in_bytes", 2: "memory.current"}
_PEAKS: Final = {1: "memory.max_usage_in_bytes", 2: "memory.peak"}
_EVENTS: Final = {1: "memory.oom_control", 2: "memory.events"}
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """Where groups are to be seen: the version, the folder, and which group that folder is."""

    version: int
    folder: str
    root: str


class MemoryGroup(NamedTuple):
    """One group. What cannot be read is None: another user's, a kernel without it, or a group that is gone."""

    folder: str
    version: int

    def limit(self) -> int | None:
        """Bytes that all its processes may have together; None without a limit."""
        found = self._number(_LIMITS)
        return None if found is None or found >= _NO_LIMIT else found

    def usage(self) -> int | None:
        """Bytes that they have now, with the page cache."""
        return self._number(_USAGES)

    def peak(self) -> int | None:
        """The most that they have had; in version 2 since Linux 5.19."""
        return self._number(_PEAKS)

    def oom_kills(self) -> int | None:
        """How many of its processes the kernel has ended for want of memory."""
        for line in _read(f"{self.folder}/{_EVENTS[self.version]}").splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return _number(count)
        return None

    def _number(self, names: dict[int, str]) -> int | None:
        return _number(_read(f"{self.folder}/{names[self.version]}"))


def _number(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:  # "max", or nothing
        return None


def _read(path: str) -> str:
    """A small file of the kernel's; "" if it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(descriptor, _LONGEST).decode(errors="replace")
    except OSError:
        return ""
    finally:
        os.close(descriptor)


def memory_groups(pid: int | str = "self", proc: str = "/proc") -> list[MemoryGroup]:
    """The group of a process, and those around it, from the inner to the outer ones; empty if they are hidden."""
    mount = _mount(proc)
    own = None if mount is None else _path(_read(f"{proc}/{pid}/cgroup").splitlines(), mount.version)
    return [] if mount is None or own is None else list(_from_inner_to_outer(mount, own))


@functools.lru_cache(maxsize=256)
def _from_inner_to_outer(mount: Mount, own: str) -> tuple[MemoryGroup, ...]:
    outside = mount.root.rstrip("/")
    inside = own[len(outside) :] if f"{own}/".startswith(f"{outside}/") else "/"
    names = [name for name in inside.split("/") if name]
    folders = ["/".join([mount.folder, *names[:count]]) for count in range(len(names), -1, -1)]
    return tuple(
        MemoryGroup(folder, mount.version)
        for folder in folders
        if os.path.exists(f"{folder}/{_EVENTS[mount.version]}")  # where nobody counts memory there is none
    )


def _path(lines: list[str], version: int) -> str | None:
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if (version == 2 and number == "0" and not controllers) or (
            version == 1 and "memory" in controllers.split(",")
        ):
            path = path.removesuffix(" (deleted)")
            return "/" if path.startswith("/..") else path  # outside of this process's namespace
    return None


@functools.lru_cache(maxsize=4)
def _mount(proc: str) -> Mount | None:
    """Where the memory groups are mounted. A system that has both versions counts memory in one of them."""
    second = None
    try:
        with open(f"{proc}/self/mountinfo", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    for line in lines:
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        root, folder = (_ESCAPED.sub(lambda code: chr(int(code[1], 8)), text) for text in fields[3:5])
        root = "/" if root.startswith("/..") else root
        if kind[0] == "cgroup" and "memory" in kind[2].split(","):
            return Mount(1, folder, root)
        if kind[0] == "cgroup2":
            second = second or Mount(2, folder, root)
    return second
