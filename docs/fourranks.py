"""The cluster that runs what the pages show: sessions, notebooks and figures."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def cluster() -> Iterator[Path]:
    """Four ranks, in an IPYTHONDIR and a current folder of their own, which is yielded.

    ``IPYTHONDIR`` is set in this process, so clients that are made here, or in children, find them.
    """
    import ipmpi

    variable, here = os.environ.get("IPYTHONDIR"), os.getcwd()
    with tempfile.TemporaryDirectory(prefix="ipmpi-docs-") as folder:
        os.environ["IPYTHONDIR"] = folder
        os.chdir(folder)
        try:
            with ipmpi.Cluster("local", n=4, client_ip="127.0.0.1", echo=None) as started:
                started.wait(60)
                yield Path(folder)
        finally:
            os.chdir(here)
            if variable is None:
                del os.environ["IPYTHONDIR"]
            else:
                os.environ["IPYTHONDIR"] = variable
