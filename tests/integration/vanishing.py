"""Clients in processes of their own, which are killed, and the controller that they leave behind."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from tests.integration.test_real_journal import Killed
from tests.security.cluster import LOOPBACK, Controller, engines, environment


@contextlib.contextmanager
def with_two_sets(home: Path, has_journal: bool) -> Iterator[Controller]:
    """A controller and two sets of one engine each."""
    controller = Killed(home).now if has_journal else Controller(home, LOOPBACK)
    with contextlib.ExitStack() as stack:
        stack.callback(controller.stop)
        stack.enter_context(engines(home, 2))
        controller.wait_engines(2)
        yield controller


def client_process(controller: Controller, role: str, make: str, source: str) -> subprocess.Popen[str]:
    """A process that runs ``source`` with a client called ``role``, says 'ready', and waits.

    ``make``: the class of the client in ``ipmpi.client``.
    """
    text = (
        "import os, sys, time\n"
        f"from ipmpi.client import {make}\n"
        f"{role} = {make}({str(controller.furl_file(role))!r})\n"
        f"{textwrap.dedent(source)}\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", text], env=environment(controller.home), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    """Kill it, as its machine would."""
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    assert process.stdout is not None
    process.stdout.close()
