"""Engine sets that nobody expects: clients hear of them, and may have been asked to admit them (no I/O).

Those that come with the furl of a launch are expected if they are of the controller's user, and where the launch
runs (:mod:`~ipmpi.controller.whereabouts`); those that are elsewhere have to be admitted. Those that come with the
furl of the role are expected where there are no launches: somebody has started all by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import ClientError
from ..ids import Ids
from ..protocol import messages as m
from ..protocol.handshake import printable
from ..ranges import ranges
from ..username import user_name
from .sessions import PeerSession


@dataclass
class Waiting:
    """An engine set that waits to be admitted."""

    session: PeerSession
    message: m.Register
    why: str
    is_elsewhere: bool = False
    """Whether it waits because its launch runs on other machines."""

    def described(self) -> dict[str, Any]:
        """Return what there is to know of it, for people."""
        hosts = sorted({printable(engine.host, 255) for engine in self.message.engines})
        return {
            "set": self.session.key, "engines": len(self.message.engines), "hosts": hosts,
            "user": printable(self.message.user, 64), "from": self.session.peer, "why": self.why,
        }  # fmt: skip

    def __str__(self) -> str:
        told = self.described()
        hosts = ", ".join(told["hosts"][:3]) + (", ..." if len(told["hosts"]) > 3 else "")
        count = told["engines"]
        return (
            f"{count} engine{'s' * (count != 1)} on {hosts} (user {told['user'] or 'unknown'}, "
            f"from {told['from']}; {self.why})"
        )


class Admission:
    """The sets that wait, and what clients are told of others.

    Args:
        announce: tells all clients something.
        let_in: registers a set.
        refuse: ends the session of a set, with a reason.
        requests: what handles the requests of clients; ours is added.

    Attributes:
        ask: whether sets that nobody expects have to be admitted.
        user: the name of the controller's user.
        on_waiting: called with what clients are told of a set that waits.
    """

    ask = False

    def __init__(
        self,
        announce: Callable[[str], None],
        let_in: Callable[[PeerSession, m.Register], Ids],
        refuse: Callable[[int, str], None],
        requests: dict[type[m.Message], Callable[[PeerSession, Any], Any]],
    ) -> None:
        self._announce, self._let_in, self._refuse = announce, let_in, refuse
        self.user = user_name()
        self.on_waiting: Callable[[str], None] = lambda _text: None
        self._waiting: dict[int, Waiting] = {}
        self._admitted: set[bytes] = set()
        requests[m.AdmitSets] = self._decide

    def may_enter(
        self,
        session: PeerSession,
        message: m.Register,
        launch: str | None,
        has_launches: bool,
        elsewhere: str = "",
    ) -> bool:
        """Return whether an engine set may register now; tell clients of one that nobody expects.

        Args:
            session: its session.
            message: what it says of itself.
            launch: the launch by whose furl it came; None for the furl of the role.
            has_launches: whether there are launches with furls of their own.
            elsewhere: why it is not expected on its hosts; then it has to be admitted in any case.
        """
        why = elsewhere or self._why(message.user, launch, has_launches)
        if not why:
            return True
        if session.former in self._admitted:  # it has a new session, as its controller or a link was gone
            self._admitted.discard(session.former)
            self._admitted.add(session.token)
            return True
        came = Waiting(session, message, why, bool(elsewhere))
        if not (self.ask or elsewhere):
            self._announce(f"nobody has announced these engines: {came}")
            return True
        self._waiting[session.key] = came
        text = (
            f"engine set {session.key} asks to be admitted: {came}. Yes: mec.admit({session.key}) or ipcluster "
            f"admit, no: mec.turn_away({session.key})"
        )
        self._announce(text)
        self.on_waiting(text)
        return False

    def _why(self, user: str, launch: str | None, has_launches: bool) -> str:
        if user and self.user and user != self.user:
            return f"the controller is of user {self.user}"
        if launch is None and (has_launches or self.ask):
            return "no launch of ipcluster" if has_launches else "with the furl of the role"
        return ""

    def left(self, key: int) -> None:
        """A session has ended."""
        self._waiting.pop(key, None)

    def elsewhere(self) -> list[Waiting]:
        """Return the sets that wait because their launch runs on other machines."""
        return [each for each in self._waiting.values() if each.is_elsewhere]

    def _decide(self, session: PeerSession, message: m.AdmitSets) -> list[dict[str, Any]]:
        del session
        if message.what not in ("list", "admit", "refuse"):
            raise ClientError(f"{message.what!r} is nothing that can be done with engine sets that wait")
        if message.sets is not None and (unknown := [key for key in message.sets if key not in self._waiting]):
            there = ranges(self._waiting) or "none"
            raise ClientError(f"no engine set {ranges(unknown)} waits to be admitted (waiting: {there})")
        keys = list(self._waiting) if message.sets is None else list(dict.fromkeys(message.sets))
        told = [self._waiting[key].described() for key in keys]
        for key in keys if message.what != "list" else ():
            came = self._waiting.pop(key)
            if message.what == "admit":
                self._admitted.add(came.session.token)
                self._let_in(came.session, came.message)
            else:
                self._refuse(key, "a client does not admit these engines")
        return told
