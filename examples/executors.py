"""What the ``executor_*.py`` examples share: which executor they run on, and their exit status.

This file is not about ipmpi; read ``executor_pi.py`` first.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from screen import Screen


def new_executor(name: str) -> Executor:
    """Return the engines of the running cluster (``ipmpi``), or processes of this machine (``process``)."""
    # This is all that a program has to change.
    if name == "process":
        from concurrent.futures import ProcessPoolExecutor

        return ProcessPoolExecutor(min(4, os.cpu_count() or 1))
    from ipmpi.client.pools import Executor

    return Executor()


def run(main: Callable[[Executor, Screen], bool], arguments: Sequence[str] | None = None) -> int:
    """Run an example on the executor that the command line names; returns the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--executor", choices=["ipmpi", "process"], default="ipmpi", help="where the calls run")
    chosen = parser.parse_args(arguments)
    with new_executor(chosen.executor) as executor:
        return 0 if main(executor, Screen()) else 1
