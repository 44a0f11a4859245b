"""The agent thread's part in tasks that this rank runs together with others (layer L4).

The main thread gets its part at the moment at which it is heard of, in the order of commands and such parts, which
is the same at all ranks. Large arguments come later, and the main thread waits for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .. import limits
from ..errors import TaskAborted
from ..protocol import messages as m
from ..protocol.frames import Buffer
from ..transport.loop import Loop
from .batches import single
from .rank import Rank
from .taskagent import TaskAgent, Way, not_ending, timed_out
from .taskrunner import DONE, FAILED, LARGE, Outcome, packed_failure
from .together import Part

_CHECK_AGAIN = 1.0


class Parts:
    """This rank's parts of tasks, by group and index."""

    def __init__(
        self, loop: Loop, rank: Rank, number: int, way: Way, agent: TaskAgent, interrupt: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._rank = rank
        self._number = number
        self._way = way
        self._agent = agent
        self._sent_interrupt = interrupt
        self._parts: dict[tuple[int, int], Part] = {}
        self._without_body: set[tuple[int, int]] = set()
        self._kept: dict[tuple[int, int], tuple[Outcome, float]] = {}
        self._given_up: set[Part] = set()
        """Parts whose end was told although they still run."""
        self._retired = False

    def run(self, message: m.RunTogether, body: Sequence[Buffer]) -> None:
        """Begin a part."""
        number = message.group, message.index

        def done(outcome: Outcome, seconds: float) -> None:
            self._loop.call_now(lambda: self._ended(part, outcome, seconds))

        program = self._rank.runner.program(message.options.operation)
        part = Part(number, program, message.ranks, message.serial, message.options.timeout, done)
        part.label = message.options.label
        self._parts[number] = part
        if self._retired:
            part.call_off("this engine was ended")
        elif not message.large:
            part.set_body(b"".join(body))
        elif body:
            part.set_body(list(body))
        else:
            self._without_body.add(number)
            self._way.report(m.WantTaskBody(message.group, message.index, [self._number]), ())
        if part.timeout is not None:
            self._loop.call_later(part.timeout, lambda: self._check(part))
        # As with commands: after the others' share has been sent, and in the order in which they came.
        self._loop.call_at_turn_end(lambda: self._rank.submit(part))

    def waits_for(self, group: int, index: int) -> bool:
        """Whether the body of this task was asked for and is still wanted."""
        return (group, index) in self._without_body

    def body_arrived(self, group: int, index: int, body: list[Buffer]) -> None:
        """The body that was asked for."""
        number = group, index
        if number in self._without_body:
            self._without_body.discard(number)
            self._parts[number].set_body(body)

    def body_broken(self, group: int, index: int) -> None:
        """The body that was asked for will not come."""
        if (group, index) in self._without_body:
            self._leave(group, index, "Its arguments did not arrive: who sent them is gone.")

    def leave(self, message: m.LeaveTogether) -> None:
        """The task has failed elsewhere, or is cancelled."""
        self._leave(message.group, message.index, message.text)

    def _leave(self, group: int, index: int, text: str) -> None:
        number = group, index
        self._without_body.discard(number)
        part = self._parts.get(number)
        if part is not None:
            self._rank.performer.leave(part, text)
        kept = self._kept.pop(number, None)
        if kept is not None and kept[0][0] == LARGE:
            self._rank.items.release()

    def deliver(self, message: m.DeliverTogether) -> None:
        """All parts have succeeded, and the result is this rank's."""
        kept = self._kept.pop((message.group, message.index), None)
        if kept is None:
            return
        (kind, data), seconds = kept
        if kind == LARGE:
            self._agent.send_large(message.group, message.index, data, seconds)
        else:
            self._way.report(*single(message.group, message.index, self._number, True, data, seconds))

    def cancel(self, group: int, indices: set[int], *, interrupt: bool) -> None:
        """Stop these parts; those that may go on, do."""
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

    def _overrule(self, part: Part, verdict: BaseException) -> None:
        if self._rank.performer.overrule(part, verdict):
            self._sent_interrupt()
            if not part.must_end:
                part.must_end = True
                self._loop.call_later(limits.TASK_GRACE, lambda: self._give_up(part, verdict))
        elif part.started is None:
            part.call_off(str(verdict))

    def _give_up(self, part: Part, verdict: BaseException) -> None:
        """It was interrupted, and has had time enough to end."""
        if self._parts.get(part.number) is not part or self._retired:
            return
        self._given_up.add(part)
        self._way.report(m.TaskHolds(self._number, part.label), ())
        seconds = 0.0 if part.started is None else self._loop.now() - part.started
        self._tell_ended(part, (FAILED, packed_failure(not_ending(verdict))), seconds)

    def _check(self, part: Part) -> None:
        if self._parts.get(part.number) is not part or part.timeout is None:
            return
        left = part.timeout if part.started is None else part.started + part.timeout - self._loop.now()
        if left <= 0:
            self._overrule(part, timed_out(part.timeout))
            left = _CHECK_AGAIN
        self._loop.call_later(left, lambda: self._check(part))

    def _ended(self, part: Part, outcome: Outcome, seconds: float) -> None:
        """The main thread has done its part."""
        if part in self._given_up:
            self._given_up.discard(part)
            if outcome[0] == LARGE:
                self._rank.items.release()
            self._way.report(m.TaskHolds(self._number, ""), ())
            return
        self._tell_ended(part, outcome, seconds)

    def _tell_ended(self, part: Part, outcome: Outcome, seconds: float) -> None:
        kind, data = outcome
        self._parts.pop(part.number, None)
        self._without_body.discard(part.number)
        if kind != FAILED and part.ranks[0] == self._number:
            if part.reason is None and not self._retired:
                self._kept[part.number] = outcome, seconds
            elif kind == LARGE:
                self._rank.items.release()
        ok = kind in (DONE, LARGE)
        body = [] if ok else [data]
        sizes = [len(data)] if body else []
        self._way.report(m.TogetherEnded(*part.number, self._number, ok, seconds, sizes), body)
