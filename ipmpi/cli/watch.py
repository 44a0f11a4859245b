"""News about a controller that is not a process of ours (layer L5)."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Final

from ipmpi.client import MultiEngineClient
from ipmpi.errors import KernelError
from ipmpi.launch.controller import Told
from ipmpi.launch.job import Job

LOOK: Final = 1.0
"""Seconds between looks for the furl file, which comes by a shared file system, and for engines."""


class InJob(Told):
    """A controller inside the job. A thread looks for its furl file, connects, and counts its engines.

    Args:
        mec_furl_file: where the controller will write the furl for clients.
        job: the job, which may be submitted later.
    """

    def __init__(self, mec_furl_file: Path, job: Job) -> None:
        super().__init__()
        self._file = mec_furl_file
        self._job = job
        self._begin = time.time()
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="ipcluster-watch", daemon=True).start()

    def close(self) -> None:
        """No more news."""
        self._closed.set()
        super().close()

    def _watch(self) -> None:
        while not self._closed.wait(LOOK):
            if not self._job.job or not self._is_new():
                continue
            try:
                with MultiEngineClient(str(self._file)) as mec:
                    self._tell({"multiengine_furl_file": str(self._file)})
                    self._count(mec)
            except (KernelError, ValueError, OSError):
                continue  # not there yet, or not any more; the batch system will tell

    def _count(self, mec: MultiEngineClient) -> None:
        known = -1
        while not self._closed.wait(LOOK):
            engines = len(mec.get_ids())
            if engines != known:
                self._tell({"engines": engines})
                known = engines

    def _is_new(self) -> bool:
        """Clocks of file servers may differ from ours."""
        try:
            return self._file.stat().st_mtime > self._begin - 60
        except OSError:
            return False

    def _tell(self, what: dict[str, object]) -> None:
        if not self._closed.is_set():
            os.write(self._write_end, json.dumps(what).encode() + b"\n")
