"""The default furl files, for clients that name no cluster.

Each cluster has furl files of its own, ``security/NAME/ipcontroller-mec.furl`` and so on. ``security`` itself has
copies of those of the newest cluster without a name. When that ends, they are replaced by those of the next older
one, or by the previous files: of a controller that was started by hand, or copied from another machine.
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
from ipmpi.locks import locked

_EARLIER: Final = ".earlier"
_COPIED: Final = ".copied.json"


def publish(record: ClusterRecord) -> None:
    """Make the furl files of a cluster the default ones.

    Raises:
        FurlError, SecurityError: one of the files cannot be read or written.
    """
    with locked(security_dir()):
        _publish(record)


def refresh(record: ClusterRecord) -> None:
    """The furl files of a cluster were written anew: do the same with its copies, if the copies are its own.

    Raises:
        FurlError, SecurityError: one of the files cannot be read or written.
    """
    with locked(security_dir()):
        if record.unnamed and _copied().get("name") == record.name:
            _publish(record)


def release(name: str = "") -> None:
    """A cluster ends: replace its copies by the previous files. Also do this for clusters that were killed.

    Args:
        name: the cluster that ends; "" for killed ones only.
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
    """Keep the present files, unless they are copies, until :func:`give_back`.

    Raises:
        OSError: a file cannot be moved.
    """
    if security_dir().is_dir():
        with locked(security_dir()):
            _set_aside()


def give_back(written: Mapping[Path, bytes]) -> None:
    """A controller that has written default files itself ends: restore the previous files.

    Args:
        written: path and contents. If one of them was replaced meanwhile, all stay as they are.
    """
    with locked(security_dir()), contextlib.suppress(FurlError, SecurityError, OSError):
        if all(read_private(path) == content for path, content in written.items()):
            _give_back()


def _publish(record: ClusterRecord) -> None:
    contents = {}
    for role, path in records.furl_files(record.name).items():
        with contextlib.suppress(FileNotFoundError):
            if record.furl_files.get(role) == str(path):  # files that the user wanted elsewhere are not copied
                contents[role] = read_private(path)
    _set_aside()
    for role in FILES:
        if role in contents:
            write_private(default_furl_file(role), contents[role])
        else:
            default_furl_file(role).unlink(missing_ok=True)  # another cluster's would not match the others
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
        return  # they are copies
    earlier = security_dir() / _EARLIER
    earlier.mkdir(mode=0o700, exist_ok=True)
    for role in FILES:
        kept = earlier / default_furl_file(role).name
        kept.unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.rename(default_furl_file(role), kept)


def _copied() -> dict[str, Any]:
    """Return which cluster's files were copied, and their digests."""
    try:
        told = json.loads(read_private(security_dir() / _COPIED))
    except (OSError, ValueError, FurlError, SecurityError):
        return {}
    return told if isinstance(told, dict) else {}


def _digests() -> dict[str, str]:
    """Return the digests of the default files."""
    found = {}
    for role in FILES:
        with contextlib.suppress(FileNotFoundError):
            try:
                found[role] = _digest(read_private(default_furl_file(role)))
            except (FurlError, SecurityError):
                found[role] = ""  # not a furl file of ours
    return found


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
