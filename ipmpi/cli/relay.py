"""``ipcluster relay``: the far end of ``MultiEngineClient(ssh=...)``, started by ssh."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from .. import furl
from ..errors import FurlError
from ..launch.cluster import records
from ..launch.cluster.follow import IPCLUSTER
from ..launch.cluster.records import ClusterRecord
from ..transport.dial.dialled import SOFTWARE
from ..transport.loop import Loop
from ..transport.ssh.relay import RelayServer

_ROLE = re.compile(r"[a-z0-9-]{1,32}", re.ASCII)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve standard input and output until the input ends; return the exit code."""
    del arguments
    if sys.stdin is None or os.isatty(0):
        print(
            "ipcluster relay is started by ssh, for MultiEngineClient(ssh=...) and `ipcluster ... --ssh` on "
            "another machine; there is nothing to type here.",
            file=sys.stderr,
        )
        return 2
    # Only frames may be written to standard output; print() goes to standard error.
    writer = os.dup(1)
    os.dup2(2, 1)
    loop = Loop()
    try:
        relay = RelayServer(loop, os.dup(0), writer, SOFTWARE, IPCLUSTER, read_furl)
    except OSError as error:  # the local end has disconnected, or it is not a pipe
        print(f"ipcluster relay cannot serve its standard input and output: {error}", file=sys.stderr)
        return 1
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda got, frame: relay.stop(f"got {signal.Signals(got).name}"))
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    loop.wake_on_signals()
    loop.run()
    return 0


def read_furl(role: str, cluster: str) -> str:
    """Return the furl of a role as text: of the given cluster, or of the default file."""
    if not _ROLE.fullmatch(role):
        raise FurlError(f"{role!r} is not a role")
    record = records.load(cluster) if cluster else None
    if record is not None:
        return str(furl.load(_file_of(record, role), role))
    return str(furl.load_furl_or_file("", role, cluster))


def _file_of(record: ClusterRecord, role: str) -> Path:
    """Return the furl file in the record of a cluster."""
    if not record.furl_files.get(role):
        raise FurlError(f"the cluster {record.name!r} has no furl file for {role} yet; it is not up")
    return Path(record.furl_files[role])


if __name__ == "__main__":
    sys.exit(main())
