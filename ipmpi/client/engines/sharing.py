"""Furls for others: what ``mec.share()``, ``mec.revoke()``, ``mec.rotate()`` and ``mec.admit()`` do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from ... import limits
from ...errors import ClientError
from ...protocol import messages
from ..session import given
from ..session.calls import Calls, ask
from ..session.session import Session
from ..session.targets import Targets, parse_targets

ROLES: Final = {"monitor": "monitor", "tasks": "tc"}
"""What a furl is for, in words of users, and its role."""

MOST: Final = 2**53
"""The largest bound of tasks and bytes, and number of an engine set."""

_IDS: Final = 1000


@dataclass(frozen=True, repr=False)
class SharedFurl:
    """A furl for somebody else.

    Attributes:
        id: by which it is revoked.
        furl: its text, which is a secret.
    """

    id: str
    furl: str

    def __repr__(self) -> str:
        return f"<SharedFurl {self.id}, secret not shown>"


def _bound(value: Any, what: str) -> int | None:
    return None if value is None else given.whole_number(value, what, 0, MOST)


def share(
    calls: Calls,
    role: str,
    seconds: float,
    tasks: int | None,
    size: int | None,
    engines: Targets | None,
    note: str,
) -> SharedFurl:
    """Have the controller give out a furl; see :meth:`MultiEngineClient.share`."""
    if not isinstance(role, str) or role not in ROLES:
        raise ClientError(
            f"role must be 'monitor' (look, and change nothing) or 'tasks' (a TaskClient), not {given.shown(role)}"
        )
    lasts = given.number(seconds, "seconds")
    if not 0 < lasts <= limits.FURL_LASTS:
        raise ValueError(
            f"seconds is more than 0, and at most {limits.FURL_LASTS:.0f} (a year): {given.shown(seconds)}"
        )
    most_tasks, most_bytes = _bound(tasks, "tasks"), _bound(size, "size, a number of bytes,")
    if role == "monitor" and not (most_tasks is None and most_bytes is None):
        raise ClientError("tasks= and size= are bounds of a furl for tasks: a monitor submits none")
    ids = None if engines is None else parse_targets(engines)
    words = given.text(note, "note", limits.LINE)
    answer = ask(
        calls.session, lambda i: messages.GiveFurl(i, ROLES[role], words, lasts, most_tasks, most_bytes, ids)
    )
    return SharedFurl(*map(str, answer))


def begin_launch(
    session: Session,
    name: str,
    engines: int,
    seconds: float | None,
    *,
    local: bool,
    nodes: Iterable[str] | None = None,
) -> str:
    """Have the controller give out the furl of a launch of engines; return it.

    If it has done so before, it returns the same furl, and is told where the launch runs.
    """
    machines = None if nodes is None else list(nodes)
    answer = session.request(
        lambda i: messages.GiveFurl(i, "engine", name, seconds, places=engines, local=local, nodes=machines)
    )
    return str(answer.result()[1])


def end_launch(session: Session, name: str) -> None:
    """Have it end that furl: no engine of this launch will come any more."""
    session.request(lambda i: messages.EndFurls(i, None, name)).result()


def shared(calls: Calls) -> list[dict[str, Any]]:
    """Return what the controller has given out; see :meth:`MultiEngineClient.shared`."""
    words = {role: word for word, role in ROLES.items()}
    rows: list[dict[str, Any]] = ask(calls.session, messages.ListFurls)
    return [{**row, "role": words.get(row["role"], row["role"])} for row in rows]


def revoke(calls: Calls, ids: str | Iterable[str] | None) -> list[str]:
    """Have furls end; see :meth:`MultiEngineClient.revoke`."""
    wanted = ids if ids is None else [ids] if isinstance(ids, str) else _list(ids, "ids")
    if wanted is not None:
        wanted = [given.text(each, "the id of a furl", 40) for each in wanted]
    found: list[str] = ask(calls.session, lambda i: messages.EndFurls(i, wanted))
    return found


def rotate(calls: Calls, now: bool) -> dict[str, str]:
    """Have all furl files replaced; see :meth:`MultiEngineClient.rotate`."""
    if not isinstance(now, bool):
        raise TypeError(f"rotate(now={given.shown(now)}): now is True or False")
    return {str(role): str(path) for role, path in ask(calls.session, lambda i: messages.ReplaceSecrets(i, now))}


def decide(calls: Calls, what: str, sets: int | Iterable[int] | None) -> list[dict[str, Any]]:
    """List, admit or refuse engine sets that wait; see :meth:`MultiEngineClient.admit`."""
    if sets is not None:
        numbers = [sets] if isinstance(sets, int) else _list(sets, "sets")
        sets = [given.whole_number(each, "the number of an engine set", 1, MOST) for each in numbers]
    found: list[dict[str, Any]] = ask(calls.session, lambda i: messages.AdmitSets(i, what, sets))
    return found


def _list(values: Any, what: str) -> list[Any]:
    if not isinstance(values, (list, tuple, set, frozenset, range)) or len(values) > _IDS:
        raise TypeError(f"{what} is one of them, a list of up to {_IDS}, or None for all: {given.shown(values)}")
    return list(values)
