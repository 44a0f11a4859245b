"""A namespace whose output goes the way it goes in a rank: through pipes, to the reader that an agent has."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ipmpi.engine.agent.rankoutput import RankOutput
from ipmpi.engine.rank.outputpipes import OutputPipes
from ipmpi.engine.session.namespace import CommandAnswer, Namespace
from ipmpi.protocol import messages as m
from ipmpi.protocol.operations import Executed, decode_outcome
from ipmpi.serialize import Buffer
from ipmpi.transport.loop import Loop


class Ran(NamedTuple):
    """What a command printed and displayed."""

    number: int
    stdout: str = ""
    stderr: str = ""
    display_pprint: str | None = None
    display_repr: str | None = None
    source: str = ""


class PrintingNamespace(Namespace):
    """A namespace, the rank's pipes, and an agent's end of them in a thread. Close it."""

    def __init__(self, redirect: bool = False) -> None:
        super().__init__(0)
        self._commands = 0
        self._lines: list[tuple[int, int, bytes]] = []
        self._notes: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.pipes = OutputPipes(redirect)
        self._loop = Loop()
        self._thread = threading.Thread(target=self._loop.run, daemon=True)
        self._thread.start()
        files = list(self.pipes.read_ends)
        self.pipes.read_ends = ()
        self._output: RankOutput = self._in_loop(
            lambda: RankOutput(self._loop, files, self._tell, self._notes.put, lambda: None)
        )

    def close(self) -> None:
        """Stop reading."""
        self.pipes.close()
        self._in_loop(self._output.close)
        self._loop.stop()
        self._thread.join()
        self._loop.close()

    def _tell(self, command: int, kind: int, number: int, data: bytes) -> None:
        if command == self._commands:
            self._lines.append((kind, number, data))

    def _in_loop(self, call: Callable[[], Any]) -> Any:
        done = threading.Event()
        given: list[Any] = []
        self._loop.call_threadsafe(lambda: (given.append(call()), done.set()))
        assert done.wait(30)
        return given[0]

    def run(
        self, method: str, operation: bytes, body: Sequence[Buffer], number: int = 0
    ) -> CommandAnswer:  # the number is that of the agent
        self._commands += 1
        number, self._lines = self._commands, []
        self._in_loop(lambda: self._output.begin(number))
        with self.pipes:
            answer = super().run(method, operation, body, number)
        self._in_loop(self._output.end)
        if answer.again:
            self._in_loop(lambda: self._output.again(answer.again, number))
        return answer

    def first_note(self) -> bytes:
        """What was printed first while no command ran, of what was not asked for before."""
        return self._notes.get(timeout=30)

    @property
    def stdout(self) -> str:
        """Of the last command."""
        return self._text(m.STDOUT)

    @property
    def stderr(self) -> str:
        """Of the last command."""
        return self._text(m.STDERR)

    def _text(self, wanted: int) -> str:
        return b"".join(data for kind, _, data in self._lines if kind == wanted).decode(errors="backslashreplace")

    def ran(self, executed: Executed | None) -> Ran:
        """What the last command printed, with what it displayed."""
        assert executed is not None
        return Ran(
            executed.number, self.stdout, self.stderr,
            executed.display_pprint, executed.display_repr, executed.source,
        )  # fmt: skip


def outcome_of(answer: CommandAnswer) -> Any:
    """The decoded outcome."""
    return decode_outcome(answer.outcome)
