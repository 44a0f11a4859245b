"""The parts of gang tasks of one rank, in its node agent.

The rank gets its part at once, in the order of commands and parts, which is the same at all ranks. Large arguments
arrive later, and the rank waits for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ... import limits
from ...errors import TaskAborted
from ...protocol import messages as m, rankmessages as rm
from ...protocol.frames import Buffer
from ...transport.loop import Loop
from ..rank.controlblock import CURRENT, LEAVE, SINCE, ControlBlock
from ..rank.outcomes import DONE, FAILED, LARGE, Outcome, overruled, packed_failure
from .batches import single
from .itembook import ItemBook
from .largestreams import LargeAnswer
from .taskagent import ReportChannel, TaskAgent, not_ending, timed_out

_CHECK_AGAIN = 1.0


class RankPart:
    """One part whose outcome is not known yet.

    Attributes:
        number: group and index of the task.
        serial: its number at the rank.
        is_root: whether this rank's result is that of the task.
        reason: why it must not continue, or "".
        verdict: the exception to fail with if it is interrupted.
        must_end: whether it was interrupted.
    """

    def __init__(self, message: m.RunTogether, serial: int, is_root: bool) -> None:
        self.number = message.group, message.index
        self.serial = serial
        self.timeout = message.options.timeout
        self.label = message.options.label
        self.is_root = is_root
        self.reason = ""
        self.verdict: BaseException | None = None
        self.must_end = False


class RankParts:
    """A rank's parts of tasks, by group and index.

    Args:
        send: sends a message to the rank.
        interrupt: interrupts what runs there, if it has this serial number.
    """

    def __init__(
        self,
        loop: Loop,
        block: ControlBlock,
        items: ItemBook,
        number: int,
        channel: ReportChannel,
        agent: TaskAgent,
        send: Callable[[rm.ToRank, Sequence[Buffer], tuple[int, ...]], None],
        interrupt: Callable[[int], bool],
    ) -> None:
        self._loop = loop
        self._block = block
        self._items = items
        self._number = number
        self._channel = channel
        self._agent = agent
        self._send = send
        self._interrupt = interrupt
        self._parts: dict[tuple[int, int], RankPart] = {}
        self._by_serial: dict[int, RankPart] = {}
        self._without_body: set[tuple[int, int]] = set()
        self._kept: dict[tuple[int, int], tuple[Outcome, float]] = {}
        self._given_up: set[RankPart] = set()
        """Parts that were reported as ended although they still run."""
        self._retired = False

    @property
    def is_active(self) -> bool:
        """Whether the rank has parts."""
        return bool(self._by_serial)

    def label(self, serial: int) -> str:
        """Return the label of a part's task; "" if there is no such part."""
        part = self._by_serial.get(serial)
        return "" if part is None else part.label

    def run(self, message: m.RunTogether, body: Sequence[Buffer]) -> None:
        """Start a part."""
        number = message.group, message.index
        part = RankPart(message, self._items.new_serial(), message.ranks[0] == self._number)
        self._parts[number] = self._by_serial[part.serial] = part
        sizes = message.sizes if message.large and body else []
        run = rm.RunPart(
            part.serial,
            message.options.operation,
            message.ranks,
            message.serial,
            message.large,
            sizes,
            message.has_lost,
        )
        self._send(run, body, ())
        if self._retired:
            self._call_off(part, "this engine was ended")
        elif message.large and not body:
            self._without_body.add(number)
            self._channel.report(m.WantTaskBody(message.group, message.index, [self._number]), ())
        if part.timeout is not None:
            self._loop.call_later(part.timeout, lambda: self._check(part))

    def waits_for(self, group: int, index: int) -> bool:
        """Whether the body of this task was asked for and is still wanted."""
        return (group, index) in self._without_body

    def body_arrived(self, group: int, index: int, sizes: list[int], descriptor: int) -> None:
        """The body that was asked for, in a file in memory."""
        number = group, index
        if number in self._without_body:
            self._without_body.discard(number)
            self._send(rm.PartBody(self._parts[number].serial, sizes), (), (descriptor,))

    def body_broken(self, group: int, index: int, why: str) -> None:
        """The body that was asked for will not come; ``why`` is for the user."""
        if (group, index) in self._without_body:
            self._leave(group, index, f"Its arguments did not arrive: {why}.")

    def leave(self, message: m.LeaveTogether) -> None:
        """The task has failed elsewhere, or is cancelled."""
        self._leave(message.group, message.index, message.text)

    def _leave(self, group: int, index: int, text: str) -> None:
        number = group, index
        self._without_body.discard(number)
        part = self._parts.get(number)
        if part is not None:
            self._call_off(part, text)
        kept = self._kept.pop(number, None)
        if kept is not None and isinstance(kept[0][1], LargeAnswer):
            kept[0][1].drop()

    def _call_off(self, part: RankPart, text: str) -> None:
        """Keep it from starting; if it runs, calls of its communicator raise PeerError."""
        part.reason = text
        self._block.text = text
        self._block.fence()
        self._block.words[LEAVE] = part.serial
        self._send(rm.PartLeft(part.serial, text), (), ())

    def deliver(self, message: m.DeliverTogether) -> None:
        """All parts have succeeded, and the result is this rank's."""
        kept = self._kept.pop((message.group, message.index), None)
        if kept is None:
            return
        (kind, data), seconds = kept
        if kind == LARGE:
            self._agent.send_large(message.group, message.index, data, seconds)
        else:
            self._channel.report(*single(message.group, message.index, self._number, True, data, seconds))

    def cancel(self, group: int, indices: set[int], *, interrupt: bool) -> None:
        """Cancel these parts; those that run continue unless ``interrupt`` is set."""
        if not interrupt:
            return
        for number, part in list(self._parts.items()):
            if number[0] == group and number[1] in indices:
                self._overrule(part, TaskAborted("the task was cancelled while it ran"))

    def retire(self) -> None:
        """This engine was ended."""
        self._retired = True
        for number in {*self._parts, *self._kept}:
            self._leave(*number, "the engine of this rank was ended")

    def gone(self) -> None:
        """The process of this rank has ended."""
        for outcome, _ in self._kept.values():
            _forget(outcome)
        for known in (self._kept, self._parts, self._by_serial):
            known.clear()
        self._without_body.clear()
        self._given_up.clear()
        self._retired = True

    def _started(self, part: RankPart) -> float | None:
        """Return when it began to run (time.monotonic); None if it does not run."""
        words = self._block.words
        return words[SINCE] * 1e-9 if words[CURRENT] == part.serial else None

    def _overrule(self, part: RankPart, verdict: BaseException) -> None:
        part.verdict = verdict
        if self._interrupt(part.serial):
            if not part.must_end:
                part.must_end = True
                self._loop.call_later(limits.TASK_GRACE, lambda: self._give_up(part, verdict))
        else:
            self._call_off(part, str(verdict))

    def _give_up(self, part: RankPart, verdict: BaseException) -> None:
        """Report it as ended: it was interrupted, and has not ended in time."""
        if self._parts.get(part.number) is not part or self._retired:
            return
        started = self._started(part)
        self._given_up.add(part)
        self._channel.report(m.TaskHolds(self._number, part.label), ())
        seconds = 0.0 if started is None else self._loop.now() - started
        self._tell_ended(part, (FAILED, packed_failure(not_ending(verdict))), seconds)

    def _check(self, part: RankPart) -> None:
        if self._parts.get(part.number) is not part or part.timeout is None:
            return
        started = self._started(part)
        left = part.timeout if started is None else started + part.timeout - self._loop.now()
        if left <= 0:
            self._overrule(part, timed_out(part.timeout))
            left = _CHECK_AGAIN
        self._loop.call_later(left, lambda: self._check(part))

    def ended(self, message: rm.PartDone, data: bytes | LargeAnswer) -> None:
        """The rank has done its part."""
        part = self._by_serial.pop(message.serial, None)
        if part is None:
            return
        outcome: Outcome = (message.kind, data)
        if message.hit and part.verdict is not None:
            outcome = overruled_part(outcome, part.verdict)
        if part in self._given_up:
            self._given_up.discard(part)
            _forget(outcome)
            self._channel.report(m.TaskHolds(self._number, ""), ())
            return
        self._tell_ended(part, outcome, message.seconds)

    def _tell_ended(self, part: RankPart, outcome: Outcome, seconds: float) -> None:
        kind, data = outcome
        self._parts.pop(part.number, None)
        self._without_body.discard(part.number)
        if kind != FAILED and part.is_root and not part.reason and not self._retired:
            self._kept[part.number] = outcome, seconds
        else:
            _forget(outcome)
        ok = kind in (DONE, LARGE)
        body = [] if ok else [data]
        sizes = [len(data)] if body else []
        self._channel.report(m.TogetherEnded(*part.number, self._number, ok, seconds, sizes), body)


def overruled_part(outcome: Outcome, verdict: BaseException) -> Outcome:
    """As :func:`~ipmpi.engine.rank.outcomes.overruled`, also for a large value that is still arriving."""
    decided = overruled(outcome, verdict)
    if decided is not outcome:
        _forget(outcome)
    return decided


def _forget(outcome: Outcome) -> None:
    if isinstance(outcome[1], LargeAnswer):
        outcome[1].drop()
