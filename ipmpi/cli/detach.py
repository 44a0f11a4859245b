"""``ipcluster ... --detach``: the cluster is run by a process in the background."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ipmpi.launch.cluster.follow import Followed
from ipmpi.launch.processes.process import STOP_SIGNALS


def detach(words: Sequence[str], log_dir: Path, until: str) -> int:
    """Run an ``ipcluster`` in the background, and show its output until it has reached a state.

    Before that, it ends with this process: by Ctrl-C, SIGTERM (as when ssh dies), the end of the terminal, or
    SIGKILL.

    Args:
        words: its command line, from the sub-command on.
        log_dir: folder for the file with its later output.
        until: ``submitted`` or ``up``.

    Returns:
        An exit code.
    """
    log = log_dir / f"ipcluster-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"  # until its name is known
    followed = Followed([*words, "--own-log", str(log)], log)
    stays = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else set()  # nohup
    before = {
        number: signal.signal(number, lambda *_: followed.process.terminate())
        for number in {*STOP_SIGNALS} - stays
    }
    try:
        for news in followed.news():
            if "say" in news:
                print(news["say"], flush=True)
            if "complain" in news:
                print(f"ipcluster: {news['complain']}", file=sys.stderr, flush=True)
            if news.get("state") == until:
                followed.let_stay()
                print(f"It goes on in the background; stop it with: ipcluster stop {news['name']}")
                print(f"What it says from now on: {news.get('log', log)}", flush=True)
                return 0
        return followed.process.wait() or 1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        followed.close()
