"""The connection of one rank of a program to the agent of its node."""

from __future__ import annotations

import _thread
import contextlib
import os
import platform
import signal
import sys
from collections.abc import Iterator
from typing import Any

from .. import communicator
from ..engine.mpi.world import World
from ..engine.rank.callring import CallRing
from ..engine.rank.controlblock import RECEIVED, ControlBlock
from ..engine.rank.outputpipes import OutputPipes
from ..engine.rank.rank import AGENT_GONE, Rank
from ..engine.rank.snapshotfiles import SnapshotFiles
from ..environment.mpienv import batch_node
from ..protocol import rankmessages as rm
from ..transport.packets import RankSocket
from .names import ProgramNamespace
from .ticking import Ticker

_SOON, _LATER = 1, 50
"""Milliseconds between two looks of a rank that holds whether MPI has something to do, at first and at last."""
_AGENT_ENDS_WITHIN = 2.0
"""Seconds that a rank waits for its agent to take note that it leaves."""
_WORDS = 512


def local_words() -> tuple[memoryview, Any]:
    """Return words, and a lock, of a rank that has no agent."""
    return memoryview(bytearray(_WORDS)).cast("q"), _thread.allocate_lock()


class Connection:
    """A rank that has met its agent.

    Args:
        world: the ranks of the program.
        socket: the socket of the agent.
        block: the memory shared with it.
        pipes: where output of commands goes.
        neighbours: number of ranks on this node.
    """

    def __init__(
        self, world: World, socket: RankSocket, block: ControlBlock, pipes: OutputPipes, neighbours: int
    ) -> None:
        self.world = world
        self._socket = socket
        self._block = block
        self._pipes = pipes
        self._neighbours = neighbours
        self._rank: Rank | None = None

    def begin(self, namespace: ProgramNamespace) -> Ticker:
        """Have commands performed in these names; return what ticks."""
        world = self.world
        namespace.snapshots = SnapshotFiles()
        world.record_calls(CallRing(self._block.calls))
        self._block.words[RECEIVED] = self._socket.received
        self._rank = rank = Rank(
            namespace, self._socket, self._block, world.rank, on_note=lambda text: None,
            neighbours=self._neighbours, pipes=self._pipes, make_shared=world.make_shared,
        )  # fmt: skip
        if rank.comm is not None:
            communicator.provide(rank.comm, world.mpi, world.comm)
        rank.interrupts.install(None)
        rank.serve_editors()
        ticker = Ticker(self._block.words, self._block.lock, self._wait, self._ended)
        rank.also_hears(ticker.handlers)
        ticker.agent = _Steered(rank)
        return ticker

    def _wait(self) -> None:
        """Return when the agent has said something. Meanwhile MPI goes on: other ranks may be waiting for it."""
        if self.world.comm is None:
            self._socket.wait()
            return
        pause = _SOON
        while not self._socket.wait(pause):
            self.world.progress()
            pause = min(2 * pause, _LATER)

    def _ended(self, stop: rm.Stop) -> None:
        rank = self.world.rank
        who = "the program" if rank == 0 else ""
        if not who and stop == AGENT_GONE and self.world.leaders[rank] == rank:  # the agents of others are there
            who = f"the program's rank {rank}{' and others' * (self._neighbours > 1)} on {os.uname().nodename}"
        if who:
            why = stop.words or stop.reason
            print(f"ipmpi: {who} is not steered any more ({why}); it goes on", file=sys.stderr, flush=True)
        self._close(rm.Leaving("it was told to"))

    def tell(self, message: rm.Sampled) -> None:
        """Tell the agent something that it may miss."""
        if self._rank is not None:
            self._rank.try_say(message)

    def leave(self, why: str) -> None:
        """Tell the agent that this rank is not steered any more."""
        self._close(rm.Leaving(why))

    def _close(self, last: rm.Leaving) -> None:
        rank, self._rank = self._rank, None
        if rank is not None:
            rank.say(last)
            self._socket.wait_for_end(_AGENT_ENDS_WITHIN)
            rank.close()
            self._pipes.close()


class _Steered:
    """A rank of a program, as its ticker needs it."""

    def __init__(self, rank: Rank) -> None:
        self._rank = rank
        self.hear = rank.hear
        self.say = rank.say

    @property
    def stopped(self) -> rm.Stop | None:
        return self._rank.stopped

    def perform(self) -> bool:
        with _no_broken_pipes():
            return self._rank.perform()


@contextlib.contextmanager
def _no_broken_pipes() -> Iterator[None]:
    """Ignore SIGPIPE: the agent may end while a command prints, and programs in C do not ignore it."""
    before = signal.getsignal(signal.SIGPIPE)
    if before is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def hello(world: World, leaders: list[int], left: float | None, job: str) -> rm.RankHello:
    """Return the first message of a rank that says who it is."""
    is_leader = leaders[world.rank] == world.rank
    return rm.RankHello(
        world.rank, world.rank, os.uname().nodename, os.getpid(), leaders.count(leaders[world.rank]),
        leaders if is_leader else [], world.mpi is not None, world.description, platform.python_version(), left,
        job, node=batch_node(os.environ),
    )  # fmt: skip
