"""One node of an engine set in this process: its agent in a loop, its ranks in threads.

Sockets and shared memory are real. Interrupts are signals, and reach the main thread only: a rank that runs there
can be interrupted, and what others run goes on until it ends by itself.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any

from ipmpi.engine.agent.agent import Agent
from ipmpi.engine.agent.localrank import LastPacket, LocalRank
from ipmpi.engine.rank.controlblock import ControlBlock
from ipmpi.engine.rank.interrupts import SIGNAL
from ipmpi.engine.rank.outputpipes import OutputPipes
from ipmpi.engine.rank.rank import Rank
from ipmpi.engine.session.namespace import Namespace
from ipmpi.protocol import rankmessages as rm
from ipmpi.transport.loop import Loop
from ipmpi.transport.packets import RankSocket


def hit_main_thread(_pid: int) -> None:
    """Send the signal of interrupts to the main thread of the tests, where a rank runs."""
    ident = threading.main_thread().ident
    assert ident is not None
    signal.pthread_kill(ident, SIGNAL)


def no_signal(_pid: int) -> None:
    """The rank is in a thread that no signal reaches."""


class Node:
    """Does for an agent what its process does, with ranks that are not processes.

    Args:
        numbers: of the ranks here.
        expected: how many agents are right below.
        on_ready: called when all ranks have said who they are.
        make_teams: makes the communicators of a rank.
        wanted: the id that a rank's engine would like.
        in_main_thread: the rank whose :meth:`Rank.run` is called in the main thread, by whoever made this.
    """

    def __init__(
        self,
        loop: Loop,
        numbers: Sequence[int],
        expected: int = 0,
        log: Callable[[str], object] = lambda line: None,
        on_stop: Callable[[str, bool], object] = lambda reason, orphaned: None,
        on_ready: Callable[[], object] = lambda: None,
        *,
        host: str = "host",
        mpi: str = "MPI",
        joined: bool = False,
        leaders: Sequence[int] = (),
        make_teams: Callable[[int, Callable[[], str | None]], Any] = lambda number, left: None,
        wanted: Callable[[int], int] = lambda number: number,
        in_main_thread: int = -1,
    ) -> None:
        self.loop = loop
        self.agent = Agent(
            loop, host, mpi, "3", expected, lambda line: log(line),
            lambda reason, orphaned: on_stop(reason, orphaned), joined=joined, leaders=leaders,
        )  # fmt: skip
        self._on_ready = on_ready
        self._in_main_thread = in_main_thread
        self.said: list[rm.ToAgent] = []
        """What ranks have said of themselves beside who they are."""
        self.local: dict[int, LocalRank] = {}
        self.ranks: dict[int, Rank] = {}
        self.sockets: dict[int, RankSocket] = {}
        self.pipes: list[OutputPipes] = []
        for number in numbers:
            self._add(number, host, joined, leaders, make_teams, wanted(number))
        self.threads = [
            threading.Thread(target=_work, args=(rank,), name=f"rank {number}", daemon=True)
            for number, rank in self.ranks.items()
            if number != in_main_thread
        ]

    def _add(
        self, number: int, host: str, joined: bool, leaders: Sequence[int],
        make_teams: Callable[[int, Callable[[], str | None]], Any], wanted: int,
    ) -> None:  # fmt: skip
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        send_signal = hit_main_thread if number == self._in_main_thread else no_signal
        self.local[number] = LocalRank(self, ours, LastPacket(), send_signal)
        block, descriptor = ControlBlock.create()
        self.sockets[number] = rank_socket = RankSocket(theirs)
        pipes = OutputPipes(redirect=False)
        assert rank_socket.send(rm.encode(rm.OutputPipes()), pipes.read_ends)
        pipes.handed_over()
        self.ranks[number] = Rank(
            Namespace(-1, None), rank_socket, block, number, lambda left: make_teams(number, left), pipes=pipes
        )
        self.pipes.append(pipes)
        hello = rm.RankHello(number, wanted, host, os.getpid(), 1, list(leaders), joined, "MPI", "3")
        assert rank_socket.send(rm.encode(hello), (descriptor,))
        os.close(descriptor)

    def start(self) -> None:
        """Have the ranks run."""
        for thread in self.threads:
            thread.start()

    @property
    def is_alive(self) -> bool:
        return all(thread.is_alive() for thread in self.threads)

    def die(self, number: int) -> None:
        """A rank's process ends without a word; its thread sees that as the end of its agent."""
        self.sockets[number]._sock.shutdown(socket.SHUT_RDWR)

    def close(self, patience: float) -> None:
        """Wait for the ranks, which have been told to end; then nothing is left."""
        for thread in self.threads:
            thread.join(patience)
            assert not thread.is_alive()
        for pipes in self.pipes:
            pipes.close()
        if self._in_main_thread in self.ranks:
            self.ranks[self._in_main_thread].close()

    # --- what ranks say ------------------------------------------------------------------------------------

    def rank_said(self, local: LocalRank, message: rm.ToAgent) -> None:
        """A rank has said something about itself."""
        del local
        if not isinstance(message, rm.RankHello):
            self.said.append(message)
            return
        if all(one.hello is not None for one in self.local.values()):
            for one in self.local.values():
                self.agent.add_rank(one)
            self._on_ready()

    def rank_gone(self, local: LocalRank, reason: str) -> None:
        """A rank's socket is closed."""
        self.agent.rank_lost(local, local.farewell or reason, bool(local.farewell))


def _work(rank: Rank) -> None:
    rank.run()
    rank.close()
