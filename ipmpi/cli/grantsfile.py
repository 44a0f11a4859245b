"""The file with the furls that a controller has given out, for its next start.

It lies beside the furl file of ``MultiEngineClient``, and is kept where certificates are kept: with fixed ports,
and for a controller that is started again when it was killed.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from .. import processid
from ..bootclock import since_boot
from ..controller.entry import Entry
from ..errors import ControllerStartError
from ..furl import GRANTS, read_private, write_private

LARGEST: Final = 16 << 20
"""Bytes that are read."""

log = logging.getLogger("ipcontroller")


def restore_grants(entry: Entry, furl_files: Mapping[str, Path], fixed: Sequence[str], start: str) -> None:
    """Restore the grants of the last start, and have those of this one saved.

    Args:
        entry: has the grants.
        furl_files: the furl files by role.
        fixed: the roles whose ports are fixed.
        start: the value of ``--start``.

    Raises:
        ControllerStartError: the file has something else.
        SecurityError, FurlError: it cannot be trusted or read.
    """
    if not fixed and start == "once":
        return
    path = furl_files["mec"].parent / GRANTS
    boot = processid.place().partition("/")[0]

    def save(data: bytes) -> None:
        when = {"boot": boot, "since_boot": since_boot(), "time": time.time()}
        write_private(path, json.dumps({**when, "grants": json.loads(data)}).encode())

    try:
        said = json.loads(read_private(path, LARGEST))
        past = elapsed(said, boot, since_boot(), time.time())
        entry.restore(json.dumps(said["grants"]).encode(), past, list(furl_files) if start == "again" else fixed)
    except FileNotFoundError:
        pass
    except (ValueError, TypeError, KeyError) as error:
        raise ControllerStartError(
            f"{path} is not what a controller has written ({error}): delete it. Furls that were given out then end"
        ) from None
    entry.save = save


def elapsed(said: Mapping[str, object], boot: str, since_boot: float, now: float) -> float:
    """Return the seconds since grants were saved; 0 if the clock on the wall was ahead then.

    Args:
        said: ``boot``, ``since_boot`` and ``time`` when they were saved.
        boot: identifies the start of this machine.
        since_boot: seconds since then.
        now: the time of day.

    Raises:
        KeyError, TypeError, ValueError: something is missing.
    """
    before, wall = float(str(said["since_boot"])), float(str(said["time"]))
    if boot and said["boot"] == boot and since_boot >= before:
        return since_boot - before
    return max(0.0, now - wall)
