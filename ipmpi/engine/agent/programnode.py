"""The process of a node agent whose ranks are a program: they began without it, and go on without it.

It waits for a controller for ever, and looks for one again when the controller has ended. It ends when its last
rank has left.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final

from ... import furl
from ...errors import KernelError
from ...protocol import rankmessages as rm
from ...transport.loop import Timer
from .agentsettings import AgentSettings
from .localrank import LocalRank
from .nodeagent import NodeAgent
from .programagent import ProgramAgent

_LOOK_AGAIN: Final = 3.0
"""Seconds between attempts to find a controller, which may start at any time: an attempt reads a file."""
_MISSED: Final = 10.0
"""Seconds without a link after which a paused program goes on: nobody can tell it to."""


class ProgramNode(NodeAgent):
    """One agent process of a program.

    Args:
        descriptor, settings, log, warn: see :class:`NodeAgent`.
        program: the name of the program.
        patience: seconds that ranks hold for one that does not come.
    """

    def __init__(
        self,
        descriptor: int,
        settings: AgentSettings,
        log: Callable[[str], None],
        warn: Callable[[str], None],
        program: str,
        patience: float,
    ) -> None:
        super().__init__(descriptor, settings, log, warn)
        self._make_agent = functools.partial(ProgramAgent, program=program, patience=patience)
        self._missing: Timer | None = None
        self._missing_since: float | None = None
        self._furl: object = None
        """The furl that is dialled."""

    @property
    def _steered(self) -> ProgramAgent:
        assert isinstance(self.agent, ProgramAgent)
        return self.agent

    def rank_said(self, local: LocalRank, message: rm.ToAgent) -> None:
        """See :meth:`NodeAgent.rank_said`."""
        if isinstance(message, rm.Holds):
            self._steered.steps.rank_holds(local, message)
        elif isinstance(message, rm.Sampled):
            self._steered.watches.sampled(message)
        elif isinstance(message, rm.Leaving):
            self._has_left(local, message.words)
        else:
            super().rank_said(local, message)

    def _complete(self) -> None:
        self._steered.on_farewell = self._controller_left
        super()._complete()

    # --- the controller --------------------------------------------------------------------------------------

    def _dial(self) -> None:
        self._furl = self._furl_now()
        super()._dial()

    def _furl_now(self) -> object:
        """Return the furl of the controller; None if there is none."""
        try:
            return furl.load_furl_or_file(self._settings.furl_file, "engine", self._settings.name)
        except KernelError:
            return None

    def _interrupted(self, why: str) -> None:
        super()._interrupted(why)
        if self._missing is None:
            self._missing_since = self.loop.now()
            self._missing = self.loop.call_later(_LOOK_AGAIN, self._look_at_link)

    def _look_at_link(self) -> None:
        """The link is lost: see whether another controller is there, and let a paused program go on in time."""
        self._missing = None
        session = self._session
        if session is None or session.link is not None:
            return
        if (found := self._furl_now()) is not None and found != self._furl:
            session.close("")
            self._lose_controller("there is another controller now")
            return
        if self._missing_since is not None and self.loop.now() - self._missing_since >= _MISSED:
            self._missing_since = None
            self._go_on(f"the controller has not been reachable for {_MISSED:g} s")
        self._missing = self.loop.call_later(_LOOK_AGAIN, self._look_at_link)

    def _controller_left(self, reason: str) -> None:
        """It ends the session: it stops, or something went wrong there."""
        self._log(f"the controller has ended the session: {reason}")
        if self._session is not None:
            self._session.close("")
        self._lose_controller(f"the controller has ended the session ({reason})")

    def _not_connected(self, error: KernelError) -> None:
        self._log_once(f"waits for a controller: {error}")
        self._lose_controller("the controller has gone")

    def _lose_controller(self, why: str) -> None:
        agent = self._steered
        had_one = agent.above is not None
        self._session = None
        if had_one:
            agent.forget_controller()
            agent.above = None
            self._go_on(why)
        self.loop.call_later(_LOOK_AGAIN, self._dial)

    def _go_on(self, why: str) -> None:
        if self.agent is not None and self._ranks:
            self._steered.steps.let_all_go(
                f"{why}: the program goes on, and can be steered when there is one again"
            )

    # --- the ranks -------------------------------------------------------------------------------------------

    def _kill(self, local: LocalRank) -> None:
        """Never: its process is the user's."""

    def _has_left(self, local: LocalRank, words: str) -> None:
        """It has ended its loop, or was told that steering is over."""
        local.has_left = True
        if local in self._ranks:
            local.farewell = local.farewell or words or "it was told to"
            self._ended(local, words)
