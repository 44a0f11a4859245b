"""The furl files that those find who name no cluster.

Each cluster has furl files of its own, ``security/NAME/ipcontroller-mec.furl`` and so on. In ``security`` itself
are copies of those of the newest cluster without a name. When that ends, the copies become those of the next older
one, or the files come back that were there before: of a controller that was started by hand, or copied from
another machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from ipmpi.errors import FurlError, SecurityError
from ipmpi.furl import FILES, default_furl_file, read_private, security_dir, write_private
from ipmpi.launch.cluster import records
from ipmpi.launch.cluster.records import ClusterRecord
from ipmpi.launch.processes.locks import locked

_EARLIER: Final = ".earlier"
_COPIED: Final = ".copied.json"


def publish(record: ClusterRecord) -> None:
    """Make the furl files of a cluster those that are found without a name.

    Raises:
        FurlError, SecurityError: one of the files cannot be read or written.
    """
    with locked(security_dir()):
        _publish(record)


def release(name: str = "") -> None:
    """A cluster ends: its copies give way to what was there before. So do those of one that was killed.

    Args:
        name: of the cluster that ends; without it, only killed ones are looked for.
    """
    if not security_dir().is_dir():
        return
    with locked(security_dir()), contextlib.suppress(FurlError, SecurityError, OSError):
        copied = _copied()
        owner = copied.get("name", "")
        has_ended = owner and (owner == name or all(record.name != owner for record in records.living()))
        if has_ended and _digests() == copied.get("digests"):
            _give_back(besides=(name, owner))


def set_aside() -> None:
    """Keep the files that are there now, and are no copies, until :func:`give_back`.

    Raises:
        OSError: that is not possible.
    """
    if security_dir().is_dir():
        with locked(security_dir()):
            _set_aside()


def give_back(written: Mapping[Path, bytes]) -> None:
    """A controller ends that has written default files by itself: what was there before comes back.

    Args:
        written: path and contents. If somebody has replaced one of them meanwhile, all stay as they are.
    """
    with locked(security_dir()), contextlib.suppress(FurlError, SecurityError, OSError):
        if all(read_private(path) == content for path, content in written.items()):
            _give_back()


def _publish(record: ClusterRecord) -> None:
    contents = {}
    for role, path in records.furl_files(record.name).items():
        with contextlib.suppress(FileNotFoundError):
            if record.furl_files.get(role) == str(path):  # what the user wanted elsewhere is not put here
                contents[role] = read_private(path)
    _set_aside()
    for role in FILES:
        if role in contents:
            write_private(default_furl_file(role), contents[role])
        else:
            default_furl_file(role).unlink(missing_ok=True)  # that of another cluster would not fit to the others
    digests = {role: _digest(content) for role, content in contents.items()}
    write_private(security_dir() / _COPIED, json.dumps({"name": record.name, "digests": digests}).encode())


def _give_back(besides: Collection[str] = ()) -> None:
    for role in FILES:
        default_furl_file(role).unlink(missing_ok=True)
    (security_dir() / _COPIED).unlink(missing_ok=True)
    for record in reversed(records.clusters()):
        if record.unnamed and record.name not in besides and record.is_alive() is not False and _is_ready(record):
            _publish(record)
            return
    earlier = security_dir() / _EARLIER
    for role in FILES:
        with contextlib.suppress(FileNotFoundError):
            os.rename(earlier / default_furl_file(role).name, default_furl_file(role))
    with contextlib.suppress(OSError):
        earlier.rmdir()


def _is_ready(record: ClusterRecord) -> bool:
    return records.furl_files(record.name)["mec"].exists()


def _set_aside() -> None:
    if not any(os.path.lexists(default_furl_file(role)) for role in FILES):
        return
    if _digests() == _copied().get("digests"):
        return  # copies of files that are elsewhere
    earlier = security_dir() / _EARLIER
    earlier.mkdir(mode=0o700, exist_ok=True)
    for role in FILES:
        kept = earlier / default_furl_file(role).name
        kept.unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.rename(default_furl_file(role), kept)


def _copied() -> dict[str, Any]:
    """Which cluster's files have been copied, and what was in them."""
    try:
        told = json.loads(read_private(security_dir() / _COPIED))
    except (OSError, ValueError, FurlError, SecurityError):
        return {}
    return told if isinstance(told, dict) else {}


def _digests() -> dict[str, str]:
    """What is in the default files now."""
    found = {}
    for role in FILES:
        with contextlib.suppress(FileNotFoundError):
            try:
                found[role] = _digest(read_private(default_furl_file(role)))
            except (FurlError, SecurityError):
                found[role] = ""  # not one of ours
    return found


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
