"""A rank of an engine set: it runs user code, and nothing else.

The process has no threads of ipmpi, and does no network I/O: its main thread reads a message from the socket of
its node agent, runs a command or task, and replies. Commands and parts of gang tasks are run in the order of
arrival. When there are none it runs task items, so a command waits for one item at most.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

import msgspec

from ... import limits
from ...protocol import operations, packed, rankmessages as rm
from ...protocol.frames import Buffer, size_of, split
from ...protocol.functions import DefineFunction, ForgetFunctions
from ...shortage import FILES_FOR_ENGINES, is_out_of_files, too_many_files
from ...transport.packets import RankSocket
from ..session.namespace import CommandAnswer, Namespace, failed_answer
from .commandcomm import CommandComm, MakeShared
from .controlblock import BELL, CURRENT, RECEIVED, SENT, SINCE, SKIP, ControlBlock
from .debuggerlink import DebuggerLink
from .gangmember import GangMember, GangPart, MakeTeams
from .interrupts import Interrupts
from .items import Item, ItemRunner
from .largeanswers import LargeAnswers
from .lifeline import Lifeline
from .outcomes import LARGE, Payload
from .outputpipes import OutputPipes
from .remotedebugger import RemoteDebugger
from .taskrunner import TaskRunner

_BELL = rm.encode(rm.Bell())

_MORE_FILES: Final = f"close some there, or {FILES_FOR_ENGINES}"
_NOT_SENT: Final = f"the engine has too many open files ({_MORE_FILES}), or no memory"

AGENT_GONE = rm.Stop("the agent of this node is gone", 1, "", True)


class Rank:
    """The namespace, and the thread that works on it.

    Args:
        namespace: the engine's namespace.
        socket: the socket of the node agent.
        block: the memory shared with it.
        number: this rank's number in its set.
        make_teams: called for the first gang task.
        make_shared: makes the communicator of all ranks.
        on_id: called with the id that the controller gives to this engine.
        on_note: called with lines for the log.
        neighbours: number of ranks that share the memory of this node.
        lifeline: ends this process if the agent ends while user code runs.
        pipes: where output goes while a command runs.
    """

    def __init__(
        self,
        namespace: Namespace,
        socket: RankSocket,
        block: ControlBlock,
        number: int = 0,
        make_teams: MakeTeams = lambda left: None,
        on_id: Callable[[int], None] = lambda number: None,
        on_note: Callable[[str], None] = lambda text: None,
        neighbours: int = 1,
        lifeline: Lifeline | None = None,
        pipes: OutputPipes | None = None,
        make_shared: MakeShared = lambda why_not: None,
    ) -> None:
        self.namespace = namespace
        self._socket = socket
        self._block = block
        self._on_id = on_id
        self._on_note = on_note
        self._lifeline = lifeline
        self._pipes = contextlib.nullcontext() if pipes is None else pipes
        self._process = namespace.process
        self._displays_sent = self._displays_taken = 0
        namespace.displays.connect(self._display)
        self._debugger = DebuggerLink(namespace.debugging, self._say, self._hear_during_part)
        self.interrupts = interrupts = Interrupts(block)
        self._runner = TaskRunner(namespace)
        self._comm = CommandComm(block, make_shared)
        if self._comm.comm is not None:
            namespace.give_communicator(self._comm.comm)
        self._large = LargeAnswers(socket, self._hear, neighbours)
        self._items = ItemRunner(self._runner, block, self.interrupts, self._ring, self._send_large_item)
        self._performer = GangMember(self._runner, block, interrupts, number, make_teams, self._hear_during_part)
        self._inbox: deque[Callable[[], None]] = deque()
        """The commands and parts to run, in this order."""
        self._parts: dict[int, GangPart] = {}
        self._stop: rm.Stop | None = None
        self._process.around_forks(self.interrupts.hold_back, self.interrupts.let_through)
        self._process.in_child(self.interrupts.uninstall)
        self._process.in_child(socket.abandon)
        if lifeline is not None:
            self._process.in_child(lifeline.close)
        if pipes is not None:
            self._process.in_child(pipes.forked)
        self._handlers: dict[type, Callable[[Any, memoryview, list[int]], None]] = {
            rm.NewEngineId: self._take_id,
            rm.RunCommand: self._take_command,
            rm.RunItems: self._take_items,
            rm.RunItem: self._take_item,
            rm.RunPart: self._take_part,
            rm.PartBody: self._take_part_body,
            rm.PartLeft: self._leave_part,
            rm.DisplayTaken: self._display_was_taken,
            rm.DebuggerAnswer: lambda message, _body, _files: self._debugger.answered(message),
            rm.Freed: lambda message, _body, _files: self._large.freed(message.size),
            rm.LogLine: lambda message, _body, _files: self._on_note(message.text),
            rm.Stop: self._take_stop,
            DefineFunction: lambda message, body, _files: self._runner.define(message, body),
            ForgetFunctions: lambda message, _body, _files: self._runner.forget(message.keys),
        }

    @property
    def comm(self) -> Any:
        """The communicator of all ranks; None if they are not joined."""
        return self._comm.comm

    def also_hears(self, handlers: Mapping[type, Callable[[Any], None]]) -> None:
        """Have messages of these types handled, which only ranks of a program get."""
        self._handlers.update({kind: _without_body(handler) for kind, handler in handlers.items()})

    @property
    def stopped(self) -> rm.Stop | None:
        """The agent's last message, if it has come, or one that says that the agent has ended."""
        return self._stop

    def hear(self) -> bool:
        """Wait for the next packet and handle it; commands are only put into the queue. False: the agent ended."""
        heard = self._hear()
        self._block.words[RECEIVED] = self._socket.received
        return heard

    def say(self, message: rm.ToAgent) -> bool:
        """Tell the agent something; False if it has ended."""
        return self._say(message)

    def try_say(self, message: rm.ToAgent) -> bool:
        """As :meth:`say`, but say nothing if the agent does not listen at this moment."""
        return self._socket.try_send(rm.encode(message))

    def perform(self) -> bool:
        """Run the next command of the queue; return False if there is none."""
        if not self._inbox:
            return False
        self.interrupts.install_again()
        self._inbox.popleft()()
        self._block.words[RECEIVED] = self._socket.received
        return True

    def install_signals(self) -> None:
        """Handle SIGINT, SIGTERM, SIGUSR1 and the agent's signal."""
        self.serve_editors()
        self.interrupts.install(self._signalled)

    def serve_editors(self) -> None:
        """Attach debugpy when the agent asks for it, by the same signal as interrupts."""
        debugger = RemoteDebugger(self._say)
        self.interrupts.on_debugger = debugger.wanted
        self._process.in_child(debugger.forked)

    def _signalled(self, name: str) -> None:
        self._say(rm.Signalled(name))

    def run(self) -> rm.Stop:
        """Run until the agent sends Stop, or has ended; return its message."""
        inbox, items = self._inbox, self._items
        lifeline = self._lifeline
        while self._stop is None:
            if not inbox and not items.has_items:
                self._hear()
                continue
            self.interrupts.install_again()
            if lifeline is not None:
                lifeline.let_through()
            if inbox:
                inbox.popleft()()
            else:
                items.work(self._nobody_speaks)
            if lifeline is not None:
                lifeline.hold()
            self._hear_what_is_there()
        return self._stop

    def close(self) -> None:
        """Close the socket and the lifeline: this process exits."""
        if self._lifeline is not None:
            self._lifeline.close()
        self._socket.close()

    # --- receiving -----------------------------------------------------------------------------------------

    def _nobody_speaks(self) -> bool:
        return bool(self._block.words[SENT] <= self._socket.received)

    def _hear_what_is_there(self) -> None:
        while self._stop is None and not self._nobody_speaks():
            self._hear()

    def _hear(self) -> bool:
        """Wait for the next packet and handle it; return False if the agent has ended."""
        while (pause := self._large.give_back()) is not None and not self._socket.wait(pause):
            pass
        packet = self._socket.receive()
        if packet is None:
            self._stop = AGENT_GONE
            return False
        data, files = packet
        try:
            message, body = rm.for_rank(data)
            self._handlers[type(message)](message, body, files)
        finally:
            for descriptor in files:
                os.close(descriptor)
        return self._stop is None

    def _hear_during_part(self) -> bool:
        """As :meth:`_hear`, while a part runs: an interrupt may end the wait, but must not lose a packet."""
        self._socket.wait()
        self.interrupts.shielded = True
        try:
            return self._hear()
        finally:
            self.interrupts.shielded = False

    def _say(self, message: rm.ToAgent, body: Sequence[Buffer] = (), files: tuple[int, ...] = ()) -> bool:
        return self._socket.send(rm.encode(message, body), files)

    def _ring(self) -> None:
        self._block.fence()
        if not self._block.words[BELL]:
            self._block.words[BELL] = 1
            self._socket.send(_BELL)

    def _take_id(self, message: rm.NewEngineId, _body: memoryview, _files: list[int]) -> None:
        self.namespace.engine_id = message.id
        self._on_id(message.id)

    def _take_stop(self, message: rm.Stop, _body: memoryview, _files: list[int]) -> None:
        self._stop = message

    # --- commands ------------------------------------------------------------------------------------------

    def _take_command(self, message: rm.RunCommand, body: memoryview, files: list[int]) -> None:
        failure = ""
        segments: list[Buffer] = []
        try:
            segments = _mapped(files, message.sizes) if message.shared else _writable(body, message.sizes)
        except (OSError, ValueError, MemoryError) as error:
            failure = f"the data of this {message.method} did not arrive: {_why_not_taken(error, 'it')}"
        taken = [segments]  # the only reference, so that the command can free them
        del segments
        self._inbox.append(lambda: self._command(message, taken.pop(), failure))

    def _command(self, message: rm.RunCommand, body: list[Buffer], failure: str) -> None:
        if failure:
            outcome = operations.encode(operations.Failed("ConnectionError", failure, ""))
            answer = CommandAnswer(False, outcome, [])
        else:
            with self._pipes:
                answer = self._run(message, body)
        del body
        self._process.leave_if_child()
        self._runner.names_changed()
        sizes = [size_of([buffer]) for buffer in answer.body]
        version = self.namespace.properties_version
        streamed = sum(sizes) > limits.INLINE_BODY
        said = rm.CommandDone(
            message.number,
            answer.ok,
            answer.outcome,
            version,
            sizes,
            streamed,
            answer.again,
            self._comm.was_used(),
        )
        if not streamed and self._say(said, answer.body):
            return
        if answer.body:  # also a small one without a descriptor for its packet
            self._say(msgspec.structs.replace(said, streamed=True))
            self._large.send(answer.body)
        else:
            text = f"its reply could not be sent: {_NOT_SENT}"
            failed = operations.encode(operations.Failed("OSError", text, ""))
            self._say(rm.CommandDone(message.number, False, failed, version))

    def _run(self, message: rm.RunCommand, body: list[Buffer]) -> CommandAnswer:
        words, answer = self._block.words, _INTERRUPTED
        try:
            words[SINCE] = time.monotonic_ns()
            words[CURRENT] = -message.number
            self._block.fence()
            if words[SKIP] < message.number:
                answer = self._with_communicator(message) or self.namespace.run(
                    message.method, message.operation, body, message.number
                )
            words[CURRENT] = 0
        except KeyboardInterrupt:
            # No second one can come so soon.
            words[CURRENT] = 0
        return answer

    def _with_communicator(self, message: rm.RunCommand) -> CommandAnswer | None:
        """Do first what the command says about the communicator; return an answer if that has failed."""
        try:
            self._comm.prepare(message.renew, list(message.members))
        except Exception as error:
            return failed_answer(error)
        return None

    def _display(self, display: operations.Display) -> None:
        """Send it, and wait for the agent: what is printed next goes another way, and must not overtake it."""
        number = self._displays_sent = self._displays_sent + 1
        if not self._say(rm.Displayed(operations.encode(display), number)):
            print(f"ipmpi: what this displays cannot be sent: {_NOT_SENT}", file=sys.stderr)
        elif threading.current_thread() is threading.main_thread():
            # By its number: an interrupt may have kept an earlier one from being sent.
            while self._displays_taken < number and self._hear_during_part():
                pass

    def _display_was_taken(self, message: rm.DisplayTaken, _body: memoryview, _files: list[int]) -> None:
        self._displays_taken = message.number

    # --- task items ----------------------------------------------------------------------------------------

    def _take_items(self, message: rm.RunItems, body: memoryview, _files: list[int]) -> None:
        program = self._runner.program(message.operation)
        data, lengths = bytes(body), packed.unpack(message.lengths)
        last = message.first + len(lengths) - 1
        start = 0
        items: list[Item] = []
        for serial, end in enumerate(accumulate(lengths), message.first):
            items.append((serial, program, data[start:end], serial == last))
            start = end
        self._items.give(items)

    def _take_item(self, message: rm.RunItem, _body: memoryview, files: list[int]) -> None:
        program = self._runner.program(message.operation)
        self._items.give([(message.serial, program, _arguments(files, message.sizes), True)])

    def _send_large_item(self, serial: int, seconds: float, segments: Sequence[Buffer]) -> None:
        hit = self.interrupts.hit == serial
        self._say(rm.ItemDone(serial, hit, seconds, [size_of([segment]) for segment in segments]))
        self._large.send(segments)

    # --- parts of gang tasks -------------------------------------------------------------------------------

    def _take_part(self, message: rm.RunPart, body: memoryview, _files: list[int]) -> None:
        payload: Payload | None = None
        if not message.large:
            payload = bytes(body)
        elif message.sizes:
            payload = list(_writable(body, message.sizes))
        program = self._runner.program(message.operation)
        ranks = list(message.ranks)
        part = GangPart(message.serial, program, ranks, message.communicator, payload, message.has_lost)
        self._parts[message.serial] = part
        self._inbox.append(lambda: self._part(part))

    def _take_part_body(self, message: rm.PartBody, _body: memoryview, files: list[int]) -> None:
        part = self._parts.get(message.serial)
        if part is not None:
            part.payload = _arguments(files, message.sizes)

    def _leave_part(self, message: rm.PartLeft, _body: memoryview, _files: list[int]) -> None:
        part = self._parts.get(message.serial)
        if part is not None:
            part.reason = message.text

    def _part(self, part: GangPart) -> None:
        (kind, data), seconds = self._performer.perform(part)
        del self._parts[part.serial]
        self._process.leave_if_child()
        hit = self.interrupts.hit == part.serial
        if kind == LARGE:
            sizes = [size_of([segment]) for segment in data]
            self._say(rm.PartDone(part.serial, kind, hit, seconds, sizes, True))
            self._large.send(data)
        else:
            payload = data.encode() if isinstance(data, str) else data
            self._say(rm.PartDone(part.serial, kind, hit, seconds, [len(payload)]), [payload])


def _without_body(handle: Callable[[Any], None]) -> Callable[[Any, memoryview, list[int]], None]:
    return lambda message, _body, _files: handle(message)


def _arguments(files: list[int], sizes: Sequence[int]) -> Payload:
    """Return the arguments of a task from an anonymous file, or the error."""
    try:
        return _mapped(files, sizes)
    except (OSError, ValueError, MemoryError) as error:
        kind = OSError if is_out_of_files(error) else MemoryError
        return kind(_why_not_taken(error, "the arguments of this task"))


def _why_not_taken(error: Exception, what: str) -> str:
    files = too_many_files(error, "the engine", _MORE_FILES)
    return files or f"there is no memory for {what} ({error})"


def _mapped(files: list[int], sizes: Sequence[int]) -> list[Buffer]:
    """Map the segments of an anonymous file, copy-on-write."""
    total = sum(sizes)
    if not total:
        return [bytearray() for _ in sizes]
    if not files:  # the system has left it out of what was received
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    memory = mmap.mmap(files[0], total, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    return split(memoryview(memory), sizes)


def _writable(body: memoryview, sizes: Sequence[int]) -> list[Buffer]:
    """Return the pickle, and its buffers in writable memory."""
    segments = split(body, sizes)
    return segments[:1] + [bytearray(segment) for segment in segments[1:]]


_INTERRUPTED = CommandAnswer(
    False, operations.encode(operations.Failed("KeyboardInterrupt", "", "KeyboardInterrupt\n")), []
)
