"""Stands for srun, mpiexec or an interpreter in a job: says how it was started, and which signals it got.

With ``FAKE_IDS`` its engines are registered with these ids; with ``FAKE_EXIT`` it ends at once, with this code.
With ``FAKE_ASKED`` a client has asked for a restart the first time.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

SIGNALS = (signal.SIGUSR1, signal.SIGTERM)


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
former = ""
if "--ids-dir" in sys.argv:
    ids = Path(sys.argv[sys.argv.index("--ids-dir") + 1])
    before = ids.with_name(f"{ids.name}.before") / "0"
    former = before.read_text() if before.exists() else ""
    if "FAKE_IDS" in os.environ:
        ids.mkdir()
        (ids / "0").write_text(os.environ["FAKE_IDS"])
    if former == "" and "FAKE_ASKED" in os.environ:
        (ids / "asked").write_text("a client has asked for a restart\n", "utf-8")
say(
    program=sys.argv[1], argv=sys.argv[2:], pid=os.getpid(), cwd=os.getcwd(), environ=dict(os.environ),
    former=former,
)  # fmt: skip
if "FAKE_EXIT" in os.environ and "ipmpi.cli.ipcontroller" not in sys.argv:
    sys.exit(int(os.environ["FAKE_EXIT"]))
while True:
    signum = signal.sigwait(SIGNALS)
    say(signal=signal.Signals(signum).name, to=sys.argv[1])
    if signum == signal.SIGTERM:
        sys.exit(7)
