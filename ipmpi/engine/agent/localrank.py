"""The agent's representation of a rank of its node.

Nothing here waits for the rank: messages that it does not read are queued, and what it does is read from shared
memory.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from ... import limits
from ...protocol import messages as m, operations, rankmessages as rm
from ...protocol.debugging import PROMPT
from ...protocol.frames import Buffer, split
from ...protocol.mpicalls import MpiCall
from ...transport.loop import Loop
from ...transport.packetlink import PacketLink
from ...transport.packets import Socket
from ..rank.callring import read_calls
from ..rank.controlblock import (
    ABORT_CODE,
    ABORTED,
    CURRENT,
    JOINING,
    SENT,
    SINCE,
    SKIP,
    ControlBlock,
)
from .crashfile import CrashFile
from .deathcertificate import Evidence, MemoryFacts, certificate, command_in_words, last_lines
from .debuggers import Debuggers
from .debugport import DebugPort
from .interrupter import Interrupter
from .itembook import ItemBook
from .largestreams import LargeAnswer
from .lastpacket import LastPacket as LastPacket
from .rankoutput import RankOutput
from .rankparts import RankParts
from .setoutput import SetOutput
from .stackpipe import StackPipeEnd
from .taskagent import ReportChannel, TaskAgent

_GONE = m.EngineInfo(-1, -1, "", 0)


class RankCommand(NamedTuple):
    """A command without a reply: the controller's number (0: no reply is expected), method and operation."""

    id: int
    method: str
    operation: bytes = b""


class Node(Protocol):
    """The agent of the ranks: see :class:`ipmpi.engine.agent.agent.Agent`."""

    loop: Loop

    def rank_said(self, local: LocalRank, message: rm.ToAgent) -> None:
        """A rank has sent a message about itself."""

    def rank_gone(self, local: LocalRank, reason: str) -> None:
        """The process of a rank has ended, or its socket broke."""


class Answers(Protocol):
    """Receives the replies to commands: see :class:`ipmpi.engine.agent.agent.Agent`."""

    def rank_answered(
        self,
        local: LocalRank,
        command: RankCommand,
        message: rm.CommandDone,
        body: Sequence[Buffer],
        large: LargeAnswer | None,
    ) -> None:
        """A rank has ended a command; ``large`` is its body if that is large."""

    def properties_changed(self, local: LocalRank) -> None:
        """The properties of an engine were set or deleted."""

    @property
    def output(self) -> SetOutput:
        """Who hears what ranks print."""

    @property
    def debuggers(self) -> Debuggers:
        """Who hears what debuggers say."""


class LocalRank:
    """One rank: its socket, its control block, and its work.

    Args:
        send_signal: sends it the signal of interrupts.

    Attributes:
        info: its description, once it has registered.
        hello: its first message.
        tasks: its task items.
        parts: its parts of gang tasks.
        is_stopping: whether it was told to end.
        farewell: why it was told to end, or "".
        has_left: whether it has announced its end.
        exit_status: how its process has ended, as of ``os.waitpid``; None while that is not known.
        on_sent: called after each packet for it.
        crash_file: what it leaves that cannot speak any more.
        stack_pipe: through which it tells its stack on a signal.
        debug_port: where debugpy is attached to it, once it has registered.
    """

    debug_port: DebugPort
    tasks: TaskAgent
    parts: RankParts
    _answers: Answers

    def __init__(
        self,
        node: Node,
        sock: Socket,
        last: LastPacket,
        send_signal: Callable[[int], None],
    ) -> None:
        self._node = node
        self._loop = node.loop
        self._heard_last = last
        self._send_signal = send_signal
        self.info = _GONE
        self.hello: rm.RankHello | None = None
        self.pid = 0
        self.is_stopping = False
        self.farewell = ""
        self.has_left = False
        self.exit_status: int | None = None
        self.on_sent: Callable[[], object] = lambda: None
        self.crash_file = CrashFile()
        self._block: ControlBlock | None = None
        self._block_file = -1
        self._output_files: list[int] = []
        self._commands: dict[int, RankCommand] = {}
        self._properties = 0
        self._large: LargeAnswer | None = None
        """The large reply that is arriving."""
        self._prompt: tuple[int, int] | None = None
        """The command in which a debugger waits for a line, and the number of its prompt."""
        self._output: RankOutput | None = None
        self.stack_pipe: StackPipeEnd | None = None
        self._link = PacketLink(node.loop, sock, self._packet, self._closed)

    @property
    def rank(self) -> int:
        """Its number in the set."""
        return self.info.rank

    @property
    def given_up(self) -> str:
        """Why its agent has closed its socket, or ""."""
        return self._link.failure

    # --- its start -----------------------------------------------------------------------------------------

    def join(self, answers: Answers, way: ReportChannel) -> None:
        """Make it a part of the set, after its Hello."""
        hello = self.hello
        assert hello is not None
        self._answers = answers
        self.info = m.EngineInfo(hello.rank, hello.wanted, hello.host, hello.pid, hello.node)
        self._block = block = ControlBlock(self._block_file)
        signalling = (lambda: self._send_signal(self.pid)), (lambda: self._link.is_open)
        self._interrupter = Interrupter(self._loop, block, *signalling)
        self.debug_port = DebugPort(self._loop, hello.rank, block, *signalling)
        os.close(self._block_file)
        words = block.words

        def sent(count: int) -> None:
            words[SENT] = max(count, words[SENT])
            self.on_sent()

        sent(self._link.sent)
        self._link.on_sent = sent
        items = ItemBook(block, self.send, self._interrupt_if)
        self.tasks = TaskAgent(self._loop, items, hello.rank, way)
        self.parts = RankParts(
            self._loop, block, items, hello.rank, way, self.tasks, self.send, self._interrupt_if
        )
        self._items = items
        if self._output_files:
            output = answers.output
            self._output = RankOutput(
                self._loop, self._output_files, self._printed, lambda data: output.noted(self.rank, data),
                output.wait_for_line,
            )  # fmt: skip
            output.add_rank(self._output)
            self._output_files = []

    # --- to the rank ---------------------------------------------------------------------------------------

    def send(self, message: rm.ToRank, body: Sequence[Buffer] = (), files: tuple[int, ...] = ()) -> None:
        """Send it a message."""
        self._link.send(rm.encode(message, body), files)

    def announce(self) -> memoryview:
        """Have a rank of a program know of all packets for it, also those still on their way; return the words."""
        assert self._block is not None
        self._block.words[SENT] = self._link.promised
        self._block.fence()
        return self._block.words

    def run(self, number: int, packet: bytes, command: RankCommand, files: tuple[int, ...] = ()) -> None:
        """Send it a command; ranks that get the same command share the packet."""
        self._commands[number] = command
        if self._output is not None:
            self._output.begin(number)
        self._link.send(packet, files)

    def debugger_line(self, command: int, text: str | None) -> None:
        """Give its debugger a line, if it waits for one in this command of the controller; 0: in any."""
        if self._prompt is not None and command in (0, self._prompt[0]):
            number, self._prompt = self._prompt[1], None
            self.send(rm.DebuggerAnswer(number, text))

    def leave(self, command_id: int, rank: int, failure: str) -> None:
        """Another rank has failed in a command: calls of the communicator in this command raise PeerError."""
        for number, command in self._commands.items():
            if command.id == command_id and self._block is not None:
                self._block.leave_command(number, rank, failure)

    def stop(self, message: rm.Stop) -> None:
        """Tell it to end, and interrupt what it runs."""
        self.is_stopping = True
        self.send(message)
        self.interrupt_all()

    def retire(self, number: int, joined: bool) -> None:
        """End its engine. The process of a joined one stays and sleeps, as MPI_Finalize is collective."""
        self.tasks.retire()
        self.parts.retire()
        if not joined:
            self.farewell = "ended on request"
            self.stop(rm.Stop("this engine was ended"))
            return
        self.interrupt_all()
        reset = rm.RunCommand(number, "reset", operations.encode(operations.Reset()))
        self.run(number, rm.encode(reset), RankCommand(0, "reset"))

    def close(self) -> None:
        """Close its socket and its control block."""
        self._link.close()
        self.crash_file.close()
        self._close_output()
        self._close_stack_pipe()

    # --- interrupts ----------------------------------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """Whether it runs user code, or waits inside MPI for other ranks."""
        block = self._block
        return block is not None and bool(block.words[CURRENT] or block.words[JOINING])

    @property
    def began(self) -> float | None:
        """When it began what it runs (time.monotonic); None if it runs nothing."""
        block = self._block
        return None if block is None or not block.words[CURRENT] else float(block.words[SINCE] * 1e-9)

    @property
    def is_wanted(self) -> bool:
        """Whether commands or tasks wait for it."""
        return bool(self._commands) or self._items.is_active or self.parts.is_active

    def running(self) -> tuple[str, float] | None:
        """What runs, as text, and since when (time.monotonic); None while it is idle."""
        if self._block is None:
            return None
        current, since = self._block.words[CURRENT], self._block.words[SINCE] * 1e-9
        if current < 0:
            command = self._commands.get(-current)
            return (command.method if command is not None else "a command"), since
        if current > 0:
            _, item, _ = self._items.running()
            label = item[0].label if item is not None else self.parts.label(current)
            return f"task {label}".rstrip(), since
        return None

    @property
    def has_aborted(self) -> bool:
        """Whether it has called MPI_Abort."""
        return self._block is not None and bool(self._block.words[ABORTED])

    @property
    def operation(self) -> bytes:
        """The encoded operation of the command that runs; empty if none does."""
        current = 0 if self._block is None else self._block.words[CURRENT]
        command = self._commands.get(-current)
        return b"" if command is None else command.operation

    def calls(self, most: int, *, of_this: bool = False) -> list[MpiCall]:
        """Return its last MPI calls, the newest one last; with ``of_this``, only those of what runs now."""
        if self._block is None:
            return []
        words = self._block.words
        after = words[SINCE] if words[CURRENT] else time.monotonic_ns()
        return read_calls(self._block.calls, most, time.monotonic_ns(), after if of_this else 0)

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt in the running command, if any; never in a task.

        If none runs, the next queued command ends as if it had been interrupted at once.
        """
        if self._block is None or not self._commands:
            return
        words = self._block.words
        words[SKIP] = min(self._commands)
        self._block.fence()
        current = words[CURRENT]
        if current < 0:
            self._interrupter.interrupt(current)

    def interrupt_all(self) -> None:
        """Raise KeyboardInterrupt in whatever runs now."""
        if self._block is not None:
            self.interrupt()
            current = self._block.words[CURRENT]
            if current > 0:
                self._interrupter.interrupt(current)

    def _interrupt_if(self, serial: int) -> bool:
        """Interrupt an item or a part if it runs; return whether it did."""
        assert self._block is not None
        if self._block.words[CURRENT] != serial:
            return False
        self._interrupter.interrupt(serial)
        return True

    # --- from the rank -------------------------------------------------------------------------------------

    def _packet(self, data: bytes, files: list[int]) -> None:
        try:
            # Ranks that do the same send equal packets.
            message, body = self._heard_last.understood(data)
            if isinstance(message, rm.CommandDone) and self._block is not None:  # most are
                self._answered(message, body)
            elif isinstance(message, rm.DataPiece):
                self._take_piece(message, body, files)
            elif isinstance(message, rm.RankHello):
                self.hello, self.pid = message, message.pid
                self._block_file = os.dup(files[0])
                self.crash_file = CrashFile(*map(os.dup, files[1:]))
                self._node.rank_said(self, message)
            elif isinstance(message, rm.OutputPipes):
                self._output_files, files[:] = list(files), []
            elif isinstance(message, rm.StackPipe):
                self.stack_pipe = StackPipeEnd(files.pop(), message.signal)
            elif isinstance(message, rm.DebuggerAttached) and self._block is not None:
                self.debug_port.attached(message, files.pop() if files else -1)
            elif self._block is None:
                self._node.rank_said(self, message)
            else:
                self._heard(message, body)
        finally:
            for descriptor in files:
                os.close(descriptor)

    def _heard(self, message: rm.ToAgent, body: memoryview) -> None:
        if isinstance(message, rm.Bell):
            self.tasks.collect()
        elif isinstance(message, rm.Displayed):
            if self._output is not None:
                self._output.displayed(message.data)
            self.send(rm.DisplayTaken(message.number))
        elif isinstance(message, rm.DebuggerTold):
            self._debugger_told(message)
        elif isinstance(message, rm.ItemDone):
            self._large = self._new_large(message.sizes)
            self.tasks.large_result(message, self._large)
        elif isinstance(message, rm.PartDone):
            if message.streamed:
                self._large = self._new_large(message.sizes)
            self.parts.ended(message, self._large if message.streamed and self._large else bytes(body))
        else:
            self._node.rank_said(self, message)

    def _debugger_told(self, message: rm.DebuggerTold) -> None:
        if self._output is not None:
            self._output.tell_all()
        assert self._block is not None
        command = self._commands.get(-self._block.words[CURRENT])
        number = 0 if command is None else command.id
        self._prompt = (number, message.number) if message.state == PROMPT else None
        if number:
            self._answers.debuggers.told(self, number, message)
        else:  # it is no client's
            self.debugger_line(0, None)

    def _printed(self, number: int, kind: int, line: int, data: bytes) -> None:
        command = self._commands.get(number)
        if command is not None and command.id:  # else nobody waits for it
            self._answers.output.printed(self.rank, command.id, kind, line, data)

    def _answered(self, message: rm.CommandDone, body: memoryview) -> None:
        if self._output is not None:
            self._output.end()
            if message.again:
                self._output.again(message.again, message.number)
        command = self._commands.pop(message.number, None)
        if command is None:
            return
        large = None
        if message.streamed:
            large = self._large = self._new_large(message.sizes)
        if message.version != self._properties:
            self._properties = message.version
            self._answers.properties_changed(self)
        self._answers.rank_answered(
            self, command, message, split(body, message.sizes) if large is None else [], large
        )

    def _new_large(self, sizes: list[int]) -> LargeAnswer:
        return LargeAnswer(self._loop, sizes, self._freed, lambda: self.is_wanted)

    def _freed(self, size: int) -> None:
        self.send(rm.Freed(size))

    def _take_piece(self, message: rm.DataPiece, body: memoryview, files: list[int]) -> None:
        large = self._large
        if large is None:
            self._freed(message.size)
            return
        large.add(message.size, None if message.shared else body, files[0] if files else -1)
        if large.is_complete:
            self._large = None

    def _closed(self, reason: str) -> None:
        self.break_off()
        self._node.rank_gone(self, reason)

    def certificate(self, now: float, memory: MemoryFacts, reason: str) -> tuple[m.Death | None, str]:
        """Its process has ended: return what is known of that, and a sentence; ``reason`` if nothing is."""
        try:
            if self.hello is None or self.given_up:
                return None, reason
            return certificate(self.hello.rank, self.pid, self.hello.host, self._evidence(now, memory))
        finally:
            self.crash_file.close()

    def _evidence(self, now: float, memory: MemoryFacts) -> Evidence:
        """Return what is found here of its end. Everything that it has printed is read, and told."""
        abort = int(self._block.words[ABORT_CODE]) if self._block is not None and self.has_aborted else None
        printed = b"" if self._output is None else self._output.last_words(limits.DEATH_LINES)
        if not printed and self._output is not None:
            printed = self._answers.output.log_of([self.rank], limits.DEATH_PRINTED)[self.rank]
        ran, since = self.running() or ("", now)
        ran = command_in_words(ran, self.operation)
        return Evidence(
            self.exit_status, abort, memory, ran, now - since, last_lines(printed), self.crash_file.read(),
            next(iter(self.calls(1)), None),
        )  # fmt: skip

    def gone(self) -> None:
        """Its process has ended: report its last output and results, and expect nothing more."""
        if self._output is not None:
            self._output.end()
            self._close_output()
        self.tasks.collect()
        self.tasks.retire()
        self.parts.gone()

    def _close_output(self) -> None:
        for descriptor in self._output_files:
            os.close(descriptor)
        self._output_files = []
        if self._output is not None:
            self._answers.output.rank_gone(self._output)
            self._output.close()
            self._output = None

    def _close_stack_pipe(self) -> None:
        if self.stack_pipe is not None:
            self.stack_pipe.close()
            self.stack_pipe = None

    def break_off(self) -> None:
        """It is lost: replies that it has begun to send are not completed."""
        self._close_stack_pipe()
        if self._block is not None:
            self.debug_port.close()
        if self._large is not None:
            self._large.break_off()
            self._large = None
        if self._block is None and self._block_file >= 0:
            os.close(self._block_file)
            self._block_file = -1
        self._link.close()
        if self._output is None:
            self._close_output()
