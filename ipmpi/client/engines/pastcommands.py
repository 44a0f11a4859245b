"""Commands that were given before, perhaps by another process: which there are, and what came of them."""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import msgspec

from ... import limits
from ...ids import Ids
from ...protocol import messages as m, operations
from ...quantities import sized
from ..display.escapes import safe
from ..display.ranksets import RankSet
from ..session import given, replies
from ..session.calls import Calls, ask
from ..session.pieces import in_pieces
from ..session.recentoutputs import RecentOutput
from ..session.results import ResultList, RunResults, wait_until_done
from ..session.submission import Submission

if TYPE_CHECKING:
    from ..session.calls import Finish

_NAME: Final = re.compile(r"(\d{1,18})-(\d{1,18})")
_AGO: Final = re.compile(r"(\d+(?:\.\d*)?)\s*([smhd])")
_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_CLOCK: Final = ("%H:%M", "%H:%M:%S")
_DATES: Final = ("%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S")

Since = float | str | datetime.datetime
"""A moment: seconds ago, a text such as ``'10:30'``, ``'2h'`` or ``'last'``, or a time."""


class PastCommand(NamedTuple):
    """A command of this client, or of another one with the same furl.

    Attributes:
        name: for :meth:`MultiEngineClient.get_result`, for example ``'5-12'``.
        given, ended: when, by the clock of the controller, in local time; ``ended`` is None if it has not.
        host, user: from where, and by whom.
        client: ``'this'``, ``'there'`` or ``'gone'``: whether this client has given it, or another one, and
            whether that is still connected, or may come back.
        method: the method that was called, for example ``'execute'``.
        label: the call as text, as in :meth:`MultiEngineClient.queue_status`.
        source: the source text; None for calls that have none, and for one of more than 16 KiB.
        engines: the engines that it is for.
        running: those that have not answered, whether they have begun or not.
        failed: those on which it has failed, was not run, or that were lost.
        state: ``'waiting'``, ``'running'``, ``'done'`` or ``'failed'``.
        left_out: bytes at the beginning of what it has printed that are not kept.
    """

    name: str
    given: datetime.datetime
    ended: datetime.datetime | None
    host: str
    user: str
    client: Literal["this", "there", "gone"]
    method: str
    label: str
    source: str | None
    engines: RankSet
    running: RankSet
    failed: RankSet
    state: Literal["waiting", "running", "done", "failed"]
    left_out: int = 0

    def __str__(self) -> str:
        gone = ", which is gone" if self.client == "gone" else ""
        by = "this client" if self.client == "this" else f"{safe(self.user)}@{safe(self.host)}{gone}"
        left_out = f"; the first {sized(self.left_out)} of its output are not kept" if self.left_out else ""
        return (
            f"{self.name}: {safe(self.label)} on {self.engines}: {self._becomes()}; "
            f"given {self.given:%Y-%m-%d %H:%M} by {by}{left_out}"
        )

    def _becomes(self) -> str:
        if self.state == "waiting":
            return "waiting"
        parts = [f"failed on {self.failed}"] if self.failed else []
        parts += [f"running on {self.running}"] if self.running else []
        return ", ".join(parts) or "done"


class PastCommands(list[PastCommand]):
    """The commands that are kept, oldest first; shown one a line.

    Attributes:
        dropped: how many older ones are not kept any more.
    """

    def __init__(self, commands: Iterable[PastCommand] = (), dropped: int = 0) -> None:
        super().__init__(commands)
        self.dropped = dropped

    def __repr__(self) -> str:
        lines = [f"({self.dropped:,} older commands are not kept)"] if self.dropped else []
        return "\n".join([*lines, *map(str, self)]) or "no commands"


class _Kept(NamedTuple):
    """What a controller has: the commands, and when each has printed last, by its clock."""

    commands: PastCommands
    printed: dict[str, float]
    now: float
    left: float | None


def history(calls: Calls) -> PastCommands:
    """Return the commands of all who hold the furl of this client."""
    return _kept(calls).commands


def _kept(calls: Calls, only: m.FollowCommand | None = None) -> _Kept:
    name = (0, 0) if only is None else (only.client, only.number)
    rows, answer = in_pieces(
        lambda after: ask(calls.session, functools.partial(_history, after, *name)), "commands"
    )
    commands = PastCommands(map(_past, rows), answer["dropped"])
    printed = {past.name: float(row[15]) for past, row in zip(commands, rows, strict=True)}
    return _Kept(commands, printed, answer["now"], answer["left"])


def _history(after: int, client: int, command: int, number: int) -> m.CommandHistory:
    return m.CommandHistory(number, after, client, command)


def _past(row: list[Any]) -> PastCommand:
    _, client, number, whose, begun, ended, host, user, method, label, operation, *sets, is_begun, _, left_out = (
        row
    )
    engines, answered, failed = (RankSet(Ids.unpacked(ids)) for ids in sets)
    running = RankSet(engines) if not answered else RankSet(set(engines).difference(answered))
    if running:
        state: Any = "running" if is_begun else "waiting"
    else:
        state = "failed" if failed else "done"
    return PastCommand(
        f"{client}-{number}", _local(begun), _local(ended) if ended else None, str(host), str(user),
        ("this", "there", "gone")[whose], method, label, _source(operation), engines, running, failed, state,
        left_out,
    )  # fmt: skip


def _local(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds).astimezone()


def _source(operation: bytes) -> str | None:
    try:
        found = operations.decode_operation(operation) if operation else None
    except msgspec.DecodeError:  # of another release
        return None
    return found.source if isinstance(found, operations.Execute) else None


# --- results ----------------------------------------------------------------------------------------------


def follow(calls: Calls, client: object, which: str | PastCommand, block: bool) -> Any:
    """Return the result of a command, of this client or of another one, as its call would have.

    Raises:
        ValueError: it is no name of a command.
        ClientError: there is no such command.
    """
    name, followed = _named(which)
    past = which if isinstance(which, PastCommand) else next(iter(_kept(calls, followed).commands), None)
    method, label = ("get_result", f"get_result({name!r})") if past is None else (past.method, past.label)
    engines = None if past is None else list(past.engines)
    submission = Submission(operations.Keys(), engines, method, label, past=followed)
    return calls.command(client, submission, _finish(past, method, label), block)


def _named(which: str | PastCommand) -> tuple[str, m.FollowCommand]:
    name = which.name if isinstance(which, PastCommand) else which
    found = _NAME.fullmatch(name)
    if found is None:
        raise ValueError(
            "get_result takes the number of a command on its engines, or the name of one in mec.history(), such "
            f"as '5-12'; not {given.shown(name)}"
        )
    return name, m.FollowCommand(0, int(found[1]), int(found[2]))


def _finish(past: PastCommand | None, method: str, label: str) -> Finish:
    source = None if past is None else past.source
    if method not in ("execute", "run"):
        return lambda arrived: replies.values(arrived, method, (label,))

    def executed(arrived: list[Any]) -> ResultList:
        found = replies.executed(arrived, method, (label,), label if source is None else source)
        if method != "run":
            return found
        return RunResults(label.removeprefix("run('").removesuffix("')"), found)

    return executed


# --- output -----------------------------------------------------------------------------------------------


def outputs_since(calls: Calls, since: Since) -> list[RecentOutput]:
    """Return what engines have printed after a moment, for all clients with the furl of this one, oldest first.

    Raises:
        TypeError, ValueError: it is no moment.
    """
    check_moment(since)
    kept = _kept(calls)
    when = moment(since, kept.now, kept.left)
    wanted = [
        past
        for past in kept.commands
        if kept.printed[past.name] > when and not (since == "last" and past.client == "this")
    ]
    asked = [(past, calls.session.command(_output_of(past, when))) for past in wanted]
    found = []
    for past, answer in asked:
        wait_until_done(answer)
        answer.result()
        outputs = getattr(answer, "outputs", ())
        found += [RecentOutput(past.given.timestamp(), past.label, output) for output in outputs]
    return found


def _output_of(past: PastCommand, since: float) -> Submission:
    _, followed = _named(past)
    followed = msgspec.structs.replace(followed, since=since, waits=False)
    return Submission(operations.Keys(), list(past.engines), past.method, past.label, past=followed)


def check_moment(since: object) -> None:
    """Refuse what is no moment, before anything is asked; TypeError, ValueError."""
    moment(since, 0.0, None)


def moment(since: Any, now: float, left: float | None) -> float:
    """Return a moment in seconds since 1970.

    Args:
        since: see :data:`Since`.
        now: the time.
        left: when the last client before this one was heard of last; None if that is not known.

    Raises:
        TypeError, ValueError: it is no moment.
    """
    if isinstance(since, datetime.datetime):
        return _stamp(since)
    if isinstance(since, str):
        return _moment_of_text(since, now, left)
    ago = given.number(since, "since, if it is no text and no datetime, in seconds ago,")
    if not 0 <= ago <= limits.LONGEST:
        raise ValueError(f"since must be from 0 to {limits.LONGEST:.0f} seconds ago: {given.shown(since)}")
    return now - ago


def _moment_of_text(text: str, now: float, left: float | None) -> float:
    words = text.strip()
    if words == "last":
        return 0.0 if left is None else left
    if (ago := _AGO.fullmatch(words)) is not None:
        return now - min(float(ago[1]) * _UNITS[ago[2]], limits.LONGEST)
    for layout in _CLOCK:
        if (clock := _parsed(words, layout)) is not None:
            today = datetime.datetime.fromtimestamp(now)
            found = datetime.datetime.combine(today, clock.time())
            # 23:50, asked shortly after midnight, was yesterday.
            return _stamp(found if found <= today else found - datetime.timedelta(days=1))
    for layout in _DATES:
        if (date := _parsed(words, layout)) is not None:
            return _stamp(date)
    raise ValueError(
        "since is a time (10:30, or 2026-11-27 18:04), how long ago (90s, 15m, 2h, 1d), or last, when the client "
        f"before this one was heard of last; not {given.shown(text)}"
    )


def _stamp(when: datetime.datetime) -> float:
    """Return a time in seconds since 1970; the first and the last days of the calendar have none."""
    try:
        return when.timestamp()
    except (OverflowError, ValueError, OSError):
        raise ValueError(f"since {when:%Y-%m-%d} is no time that this system knows") from None


def _parsed(text: str, layout: str) -> datetime.datetime | None:
    try:
        return datetime.datetime.strptime(text, layout)
    except ValueError:
        return None
