"""Short-lived processes that do work of an agent, each in a session of its own.

The kernel gives each session the same share of the processors (autogroups). Launchers like hydra start each rank
in a session, so on a node whose ranks are all busy the agent has the share of one rank, whatever it has to do.
Several processes with sessions of their own have several shares.

They end when their work is done, with the agent, or after some seconds. They have none of its files.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import os
import pickle
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from ...transport.loop import READ, Loop
from ...transport.packets import Socket, packet_pair

Item = TypeVar("Item")

_AUTOGROUPS: Final = Path("/proc/sys/kernel/sched_autogroup_enabled")
_LOAD: Final = Path("/proc/loadavg")
_CROWDED: Final = 4
"""Processes that want to run, for each processor, from which on the agent may have to wait."""
_END_AFTER: Final = 4
"""Seconds after which the system ends them."""
_PACKET: Final = 1 << 20
_AGAIN: Final = 0.05
_PR_SET_PDEATHSIG: Final = 1


def may_help(autogroups: Path = _AUTOGROUPS, load: Path = _LOAD) -> bool:
    """Return whether other sessions take the processors from this one, now."""
    try:
        if autogroups.read_text(encoding="ascii").strip() != "1":
            return False
        running = int(load.read_text(encoding="ascii").split()[3].partition("/")[0])
    except (OSError, ValueError, IndexError):
        return False
    return running >= _CROWDED * (os.cpu_count() or 1)


def read_apart(
    loop: Loop,
    shares: Sequence[Sequence[Item]],
    work: Callable[[Item], bytes],
    came: Callable[[list[tuple[bytes, list[Item]]]], None],
    ended: Callable[[], None],
) -> None:
    """Do ``work`` for all items, in one process for each share. For the main thread.

    Args:
        loop: of the agent; the callbacks are called in its thread.
        shares: not empty.
        work: is called in a forked process of one thread: it must not need a lock that a thread of this process
            may have. If it raises, there is no result for its item.
        came: called with results and the items that have them.
        ended: called once, when nothing more comes.

    Raises:
        OSError: there is no memory, or no process is left to the user.
    """
    ours, theirs = packet_pair()
    numbered = [[(index, item) for index, item in enumerate(share)] for share in shares]
    agent = os.getpid()
    try:
        first = os.fork()
    except OSError:
        ours.close()
        theirs.close()
        raise
    if not first:
        _be_reader(theirs, agent, list(enumerate(numbered)), work)
    theirs.close()
    ours.setblocking(False)

    def ready(_events: int) -> None:
        while True:
            try:
                packet = ours.recv(_PACKET)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if not packet:
                loop.unregister(ours)
                ours.close()
                _reap(loop, first)
                ended()
                return
            share, results = pickle.loads(packet)
            came([(data, [shares[share][index] for index in indices]) for data, indices in results])

    loop.register(ours, READ, ready)


def _reap(loop: Loop, pid: int) -> None:
    """It has closed its end, so it ends."""
    with contextlib.suppress(ChildProcessError):
        if os.waitpid(pid, os.WNOHANG)[0] == 0:
            loop.call_later(_AGAIN, lambda: _reap(loop, pid))


# --- in the forked processes -----------------------------------------------------------------------------------

_Numbered = list[tuple[int, list[tuple[int, Item]]]]


def _be_reader(theirs: Socket, parent: int, shares: _Numbered[Item], work: Callable[[Item], bytes]) -> None:
    """Do the first share, and have the others done by processes that this one starts. Does not return."""
    try:
        os.setsid()
        _settle(theirs, parent)
        children = []
        while len(shares) > 1:
            half = len(shares) // 2
            shares, others = shares[:-half], shares[-half:]
            me = os.getpid()
            child = os.fork()
            if not child:
                _be_reader(theirs, me, others, work)
            children.append(child)
        _do(theirs, *shares[0], work)
        theirs.close()
        for child in children:
            os.waitpid(child, 0)
    finally:
        os._exit(0)


def _settle(theirs: Socket, parent: int) -> None:
    """End with the parent, soon, and by any signal; keep nothing of the agent's but the socket."""
    gc.disable()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.alarm(_END_AFTER)
    os.closerange(3, theirs.fileno())
    os.closerange(theirs.fileno() + 1, os.sysconf("SC_OPEN_MAX"))


def _do(theirs: Socket, number: int, items: list[tuple[int, Item]], work: Callable[[Item], bytes]) -> None:
    found: dict[bytes, list[int]] = {}
    for index, item in items:
        with contextlib.suppress(Exception):
            found.setdefault(work(item), []).append(index)
    try:
        theirs.send(pickle.dumps((number, list(found.items()))))
    except OSError as error:
        if error.errno != errno.EMSGSIZE:
            raise
        for result in found.items():
            with contextlib.suppress(OSError):
                theirs.send(pickle.dumps((number, [result])))
