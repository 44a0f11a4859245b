"""Stands for srun, mpiexec or an interpreter in a job: says how it was started, and which signals it got."""

from __future__ import annotations

import json
import os
import signal
import sys

SIGNALS = (signal.SIGUSR1, signal.SIGTERM)


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
say(program=sys.argv[1], argv=sys.argv[2:], pid=os.getpid(), cwd=os.getcwd(), environ=dict(os.environ))
if "FAKE_EXIT" in os.environ and "ipmpi.cli.ipcontroller" not in sys.argv:
    sys.exit(int(os.environ["FAKE_EXIT"]))
while True:
    signum = signal.sigwait(SIGNALS)
    say(signal=signal.Signals(signum).name, to=sys.argv[1])
    if signum == signal.SIGTERM:
        sys.exit(7)
