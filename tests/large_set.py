"""An engine set of any size without processes: one link, and answers for all of its ranks.

It takes the place of a root agent, which folds equal answers: what it sends and receives is what a real set of
that size does when all its ranks do the same.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from ipmpi.errors import KernelError
from ipmpi.furl import Furl
from ipmpi.protocol import messages as m, operations
from ipmpi.protocol.connection import Event, MessageReceived
from ipmpi.protocol.frames import Buffer
from ipmpi.protocol.permissions import RECEIVES
from ipmpi.protocol.registration import parts
from ipmpi.transport.dial.dialled import Callbacks, DialledSession
from ipmpi.transport.loop import Loop

NODE = 64
"""Ranks of one node."""


class LargeSet:
    """A set of ``ranks`` engines; it runs in a thread of its own from the beginning.

    Attributes:
        received: how many messages have come, by their types, and the sum of the bytes of their headers.
        ids: those that the controller has given, by rank.
        answer: what every rank answers a pull with, as a body.
        differ: whether each rank answers by a message of its own, as if all answers were different.
        holds: while it is set, commands are not answered, but are in ``held``.
        registered, over: are set when the controller has given ids, and when the session has ended.
    """

    def __init__(self, furl: Furl, ranks: int) -> None:
        self.ranks = ranks
        self.loop = Loop()
        self.received: dict[str, int] = {}
        self.received_bytes: dict[str, int] = {}
        self.ids: Sequence[int] = []
        self.answer: Sequence[Buffer] = ()
        self.holds = threading.Event()
        self.held: list[m.Dispatch] = []
        self.differ = False
        self.registered = threading.Event()
        self.over = threading.Event()
        self._numbers = iter(range(1, 1 << 62))
        callbacks = Callbacks(self._event, self._started, lambda reason: None, self._ended)
        self.session = DialledSession(self.loop, furl, RECEIVES["engine"], callbacks)
        self.thread = threading.Thread(target=self._run, name="large-set", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        self.session.open()
        self.loop.run()
        self.loop.close()

    def infos(self) -> list[m.EngineInfo]:
        """What it says of its ranks."""
        return [
            m.EngineInfo(rank, rank, f"nid{rank // NODE:06}.cluster.example.org", 10_000 + rank % NODE)
            for rank in range(self.ranks)
        ]

    def _started(self) -> None:
        for part in parts(m.Register(self.infos(), "a simulated MPI", "3.12", list(self.ids))):
            self.session.connection.send(part)
        self.session.wake()

    def _ended(self, _error: KernelError) -> None:
        self.over.set()
        self.loop.stop()

    def _event(self, event: Event) -> None:
        assert isinstance(event, MessageReceived)
        message = event.message
        name = type(message).__name__
        self.received[name] = self.received.get(name, 0) + 1
        self.received_bytes[name] = self.received_bytes.get(name, 0) + len(m.encode(message))
        if isinstance(message, m.Registered):
            self.ids = message.ids
            self.registered.set()
        elif isinstance(message, m.Dispatch) and self.holds.is_set():
            self.held.append(message)
        elif isinstance(message, m.Dispatch):
            self._answer(message)
        elif isinstance(message, m.Goodbye):
            self.session.close("the controller has gone")
            self.over.set()
            self.loop.stop()

    def _answer(self, message: m.Dispatch) -> None:
        outcome: operations.Outcome = operations.Nothing()
        body: Sequence[Buffer] = ()
        if message.method == "execute":
            outcome = operations.Executed(next(self._numbers))
        elif message.method == "pull":
            outcome, body = operations.Value(), self.answer
        sizes = [len(each) for each in body]
        encoded = operations.encode(outcome)
        for ranks in [[rank] for rank in message.ranks] if self.differ else [message.ranks]:
            self.session.connection.send(m.Result(message.id, ranks, True, encoded, sizes), body)
        self.session.wake()

    def release(self) -> None:
        """Answer what has come meanwhile, and what comes."""
        self.holds.clear()

        def answer() -> None:
            held, self.held = self.held, []
            for message in held:
                self._answer(message)

        self.loop.call_threadsafe(answer)

    def close(self) -> None:
        """End it, with a goodbye."""

        def end() -> None:
            self.session.close("the test is over")
            self.loop.stop()

        self.loop.call_threadsafe(end)
        self.thread.join(10)
        assert not self.thread.is_alive()


def cpu_seconds(loop: Loop) -> float:
    """Processor time that the thread of a loop has used."""
    answers: list[float] = []
    done = threading.Event()

    def tell() -> None:
        answers.append(time.thread_time())
        done.set()

    loop.call_threadsafe(tell)
    assert done.wait(60)
    return answers[0]
