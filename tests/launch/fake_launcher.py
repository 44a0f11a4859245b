"""Stands for srun, mpiexec or an interpreter in a job: says how it was started, and which signals it got."""

from __future__ import annotations

import json
import os
import signal
import sys


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


def heard(signum: int, frame: object) -> None:
    say(signal=signal.Signals(signum).name, to=sys.argv[1])
    if signum == signal.SIGTERM:
        sys.exit(7)


signal.signal(signal.SIGUSR1, heard)
signal.signal(signal.SIGTERM, heard)
say(program=sys.argv[1], argv=sys.argv[2:], pid=os.getpid(), cwd=os.getcwd(), environ=dict(os.environ))
if "FAKE_EXIT" in os.environ and "ipmpi.cli.ipcontroller" not in sys.argv:
    sys.exit(int(os.environ["FAKE_EXIT"]))
while True:
    signal.pause()
