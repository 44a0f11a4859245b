"""The process of a node agent, from its first rank to its last.

It ends before its last rank does: batch systems kill and wait for processes that are left then. It watches the
processes of its ranks and of the launcher, so it notices their ends whatever they were doing.
"""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Callable, Mapping

from ... import furl, limits
from ...errors import FurlError, KernelError
from ...protocol import rankmessages as rm
from ...protocol.permissions import FROM_ABOVE, RECEIVES
from ...transport.agentlistener import AgentListener
from ...transport.dial.dialled import Callbacks, DialledSession
from ...transport.dial.proxies import routes_by
from ...transport.loop import READ, Loop
from ...transport.packets import Socket
from ..rank.interrupts import SIGNAL
from .agent import Agent
from .agentsettings import AgentSettings as AgentSettings
from .idsfile import IdsFile
from .localrank import LastPacket, LocalRank
from .memorywatch import MemoryWatch
from .nodelinks import NodeLinks
from .rankends import CAUSE_WITHIN, RankEnds, got, job_of
from .tree import TreePosition, place
from .uplink import link_up
from .watch import RankDescriptors, exit_status, open_pidfd, send_signal

_RETRY = 0.1
_RETRY_FACTOR = 1.3
_RETRY_LONGEST = 2.0
"""Longest pause in seconds between attempts to reach the controller, which may start at any time."""
_STATUS_WITHIN = 0.2
"""Seconds to wait, after a rank's socket has closed, for the exit status of its process."""


class NodeAgent:
    """One agent process.

    Args:
        descriptor: the socket on which it listens for its ranks.
        settings: how to reach the controller.
        log: called with lines for the log.
        warn: called with warnings.

    Attributes:
        exit_code: the exit code of this process.
    """

    def __init__(
        self, descriptor: int, settings: AgentSettings, log: Callable[[str], None], warn: Callable[[str], None]
    ) -> None:
        self.loop = Loop()
        self._settings = settings
        self._log_line = log
        self._warn_line = warn
        self._token = secrets.token_bytes(16)
        self._make_agent: Callable[..., Agent] = Agent
        self._last_packet = LastPacket()
        self._memory = MemoryWatch(self.loop, lambda: self._ranks)
        self._ranks: dict[LocalRank, RankDescriptors] = {}
        self._rank_ends = RankEnds()
        self._expected = 0  # ranks on this node; 0 while unknown
        self._links: NodeLinks | None = None
        self._position = TreePosition(None, [])
        self.agent: Agent | None = None
        self._session: DialledSession | None = None
        self._registered = False
        self._is_complete = False
        self._ids_file = IdsFile("", 0)
        self._stopping = False
        self._failure = ""
        self._launcher: int | None = None
        self._launcher_pid = 0
        self._told: set[str] = set()
        self._retry = _RETRY
        self._give_up_at = 0.0
        self.exit_code = 0
        self._listener = AgentListener(self.loop, descriptor, self._came)
        self.loop.on_error = self._broken
        self.loop.call_later(limits.SET_FORMS, self._look_whether_anybody_came)

    def run(self) -> int:
        """Run until the last rank was told to end, or has ended; return the exit code."""
        self.loop.run()
        return self.exit_code

    def close(self) -> None:
        """Free all resources; needed only if the process continues."""
        self._listener.close()
        for local, known in self._ranks.items():
            local.close()
            os.close(known.lifeline)
        self._ranks.clear()
        self.loop.close()

    def _broken(self, error: BaseException) -> None:
        if self.agent is not None:
            self.agent.fail(error)
        else:
            self.loop.report(error)
            self._end_forming(f"an error of the node agent while the set formed: {error!r}")

    def _log(self, text: str) -> None:
        """Log a line here and in the log of a rank, which users read."""
        self._log_line(text)
        self._note(text)

    def _warn(self, text: str) -> None:
        self._warn_line(text)
        self._note(text)

    def _note(self, text: str) -> None:
        for local in self._ranks:
            if not local.is_stopping:
                local.send(rm.LogLine(text))
                return

    def _log_once(self, text: str) -> None:
        """Log a line that repeats at each attempt only once."""
        if text not in self._told:
            self._told.add(text)
            self._log(text)

    # --- new ranks -----------------------------------------------------------------------------------------

    def _came(self, sock: Socket) -> None:
        local = LocalRank(self, sock, self._last_packet, lambda pid: self._interrupt(local, pid))
        local.on_sent = self._memory.wake
        theirs, ours = os.pipe2(os.O_CLOEXEC)
        self._ranks[local] = RankDescriptors(None, ours)
        try:
            local.send(rm.Greeting(self._token, os.getpid()), files=(theirs,))
        finally:
            os.close(theirs)
        if self.agent is not None or self._stopping:
            local.stop(rm.Stop("the set was formed without this rank, which came too late", 1, "", True))

    def _interrupt(self, local: LocalRank, pid: int) -> None:
        known = self._ranks.get(local)
        if known is not None:  # else the process id may have been reused
            send_signal(known.pidfd, pid, SIGNAL)

    def rank_said(self, local: LocalRank, message: rm.ToAgent) -> None:
        """A rank has said something about itself."""
        if isinstance(message, rm.RankHello):
            self._hello(local, message)
        elif isinstance(message, rm.Above):
            assert self._links is not None
            trouble = self._links.connect(message.address)
            local.send(rm.Met(trouble))
        elif isinstance(message, rm.Formed):
            self._formed(message.one_tree, message.trouble)
        elif isinstance(message, rm.Signalled):
            self._signalled(local, message.name)
        elif isinstance(message, rm.Leaving):
            self._leaves(local)

    def _hello(self, local: LocalRank, hello: rm.RankHello) -> None:
        self._watch(local, hello)
        if len(self._introduced) == 1:  # MPI has started, which may take minutes: the others will follow soon
            self.loop.call_later(limits.SET_FORMS, self._wait_no_longer)
        self._expected = max(self._expected, hello.expected)
        self._look_whether_all_are_here()

    def _watch(self, local: LocalRank, hello: rm.RankHello) -> None:
        try:
            pidfd = open_pidfd(hello.pid)
        except ProcessLookupError:
            return  # the end of its socket tells
        except OSError:
            pidfd = None
        self._memory.add(hello.pid)
        if pidfd is not None:
            self._ranks[local] = self._ranks[local]._replace(pidfd=pidfd)
            self.loop.register(pidfd, READ, lambda _events: self._process_ended(local))
        if self._launcher is None and hello.launcher:
            try:
                self._launcher = open_pidfd(hello.launcher)
            except (ProcessLookupError, OSError):
                return
            if self._launcher is not None:
                self._launcher_pid = hello.launcher
                self.loop.register(self._launcher, READ, lambda _events: self._launcher_ended())

    @property
    def _introduced(self) -> list[LocalRank]:
        found = [local for local in self._ranks if local.hello is not None]
        return sorted(found, key=lambda local: local.hello.rank if local.hello else 0)

    def _look_whether_all_are_here(self) -> None:
        here = self._introduced
        if self.agent is None and self._links is None and self._expected and len(here) >= self._expected:
            self._all_are_here(here)

    def _wait_no_longer(self) -> None:
        """Continue without ranks that have not connected; once MPI has started there are none."""
        here = self._introduced
        if here and self.agent is None and self._links is None and not self._stopping:
            self._warn(
                f"{self._expected - len(here)} ranks of this node have not connected; continuing without them"
            )
            self._all_are_here(here)

    def _look_whether_anybody_came(self) -> None:
        if not self._ranks and self.agent is None and not self._stopping:
            self._end_forming(f"no rank has connected within {limits.SET_FORMS:.0f} s")

    def _all_are_here(self, here: list[LocalRank]) -> None:
        leader = here[0]
        assert leader.hello is not None
        leaders = leader.hello.leaders
        if len(set(leaders)) > 1:
            self._links = NodeLinks(len(place(leader.hello.rank, leaders).below))
            leader.send(rm.Address(self._links.address))
        else:
            self._formed(True, "")

    def _formed(self, one_tree: bool, trouble: str) -> None:
        here = self._introduced
        hello = here[0].hello
        assert hello is not None
        if trouble:
            self._warn(f"nodes have no links to each other, so each connects to the controller ({trouble})")
        if self._links is not None:
            self._position = place(hello.rank, hello.leaders, one_tree=one_tree)
            if not one_tree:
                self._links.close()
                self._links = None
        self.agent = agent = self._make_agent(
            self.loop, hello.host, hello.mpi, hello.python, len(self._position.below), self._log, self._stop,
            joined=hello.joined, leaders=hello.leaders,
        )  # fmt: skip
        for local in here:
            if local.hello is not None and local.hello.rank in agent.local:
                local.stop(rm.Stop(f"there are two ranks {local.hello.rank} in this launch", 1, "", True))
            else:
                agent.add_rank(local)
        agent.on_complete = self._complete
        agent.end.know(None if hello.left is None else self.loop.now() + hello.left, hello.job)
        self._give_up_at = self.loop.now() + self._settings.wait
        if self._links is not None:
            for peer in self._links.below:
                agent.add_peer(peer.pipe).feed(peer.leftover)
            if self._links.above is not None:
                link_up(agent, self._links.above.pipe, FROM_ABOVE).feed(self._links.above.leftover)
        if agent.is_complete:
            self._complete()
        else:
            self.loop.call_later(limits.SET_FORMS, agent.wait_no_longer)

    # --- the controller ------------------------------------------------------------------------------------

    def _complete(self) -> None:
        """All ranks below are known. Called once."""
        assert self.agent is not None
        if self._is_complete:
            return
        self._is_complete = True
        if self._position.above is None:
            self._ids_file = IdsFile(self._settings.ids_dir, min(engine.rank for engine in self.agent.engines))
            self.agent.ask_for(self._ids_file.former())
            self.agent.launch, self.agent.on_loss = self._ids_file.launch, self._settings.on_loss
            self.agent.on_ids = self._keep_ids
            self._dial()
        else:
            self.agent.register()

    def _keep_ids(self, ids: Mapping[int, int]) -> None:
        try:
            self._ids_file.keep(ids)
        except OSError as error:
            self._warn(f"these engines will not be restarted if they end: {error}")

    def _dial(self) -> None:
        assert self.agent is not None
        settings = self._settings
        try:
            address = furl.load_furl_or_file(settings.furl_file, "engine", settings.name)
            routes = routes_by(settings.proxy, os.environ, self._warn)
        except KernelError as error:
            self._not_connected(error)
            return
        self._log_once(f"Using furl file: {settings.shown}")
        callbacks = Callbacks(
            event=self.agent.from_above,
            started=self._started,
            interrupted=self._interrupted,
            ended=self._not_connected,
        )
        self._session = DialledSession(self.loop, address, RECEIVES["engine"], callbacks, routes=routes)
        self._session.open()

    def _interrupted(self, why: str) -> None:
        self._warn(f"lost the link to the controller ({why}); reconnecting")

    def _started(self) -> None:
        assert self.agent is not None
        assert self._session is not None
        self._registered = True
        self.agent.forget_controller(self._session.was_journalled, self._session.is_journalled)
        self.agent.above = self._session
        self.agent.register()

    def _not_connected(self, error: KernelError) -> None:
        assert self.agent is not None
        waiting = not self._registered and self.loop.now() < self._give_up_at
        if waiting and isinstance(error, OSError | FurlError):
            self._log_once(f"waits for the controller, up to {self._settings.wait:g} s: {error}")
            self.loop.call_later(self._retry, self._dial)
            self._retry = min(self._retry * _RETRY_FACTOR, _RETRY_LONGEST)
            return
        self._log(f"error connecting to controller: {error}")
        self._failure = str(error)
        self.agent.is_dismissed = True  # no restart: new engines would not find it either
        self.agent.stop(str(error))

    # --- the ranks -----------------------------------------------------------------------------------------

    def _signalled(self, local: LocalRank, name: str) -> None:
        reason = got(name, job_of(local))
        if name == "SIGUSR1":
            if self.agent is not None:
                self.agent.end.warned()
            return
        self._rank_ends.told(reason, self.loop.now())
        if self.agent is None:
            self._end_forming(reason)
            return
        self._end_later(local)
        self.agent.leave(local, reason)
        self._report()

    def terminated(self) -> None:
        """Handle SIGTERM, which all processes of a job get, the ranks as well."""
        if self.agent is None:
            self._end_forming("got SIGTERM")
            return
        for local in self._introduced:
            self._signalled(local, "SIGTERM")
        if not self._ranks:
            self.agent.stop("got SIGTERM")

    def rank_gone(self, local: LocalRank, reason: str) -> None:
        """The socket of a rank is closed: its process has ended, or is about to."""
        known = self._ranks.get(local)
        if known is None:
            return
        if local.given_up:  # so its process ends; its exit status explains nothing
            self._ends(local, f"its node agent closed its socket: {reason}")
        elif known.pidfd is None:
            self._ends(local, reason)
        else:
            self._ends(local)
            self.loop.call_later(_STATUS_WITHIN, lambda: self._ends(local, reason))

    def _process_ended(self, local: LocalRank) -> None:
        known = self._ranks[local]
        if known.pidfd is not None:
            self.loop.unregister(known.pidfd)
        local.exit_status = exit_status(local.pid, known.pidfd)
        self._ends(local, "its process ended")

    def _ends(self, local: LocalRank, how: str = "") -> None:
        """Report ranks in the order in which their sockets closed: the first may have caused the others' ends.

        A dying process closes its files before it ends, this socket first. A launcher that sees another file
        closed kills all other ranks, and some of those may end sooner.
        """
        if local in self._ranks:
            self._rank_ends.begins(local, self.loop.now(), how)
        self._report()

    def _report(self) -> None:
        self._decide()
        while (due := self._rank_ends.due()) is not None:
            self._ended(*due)

    def _ended(self, local: LocalRank, reason: str) -> None:
        """A rank is gone."""
        self._rank_ends.over(local)
        known = self._ranks.pop(local, None)
        if known is None:
            return
        if known.pidfd is not None:
            self.loop.unregister(known.pidfd)
            os.close(known.pidfd)
        os.close(known.lifeline)
        farewell = self._rank_ends.farewell(local, self.loop.now())
        death, reason = local.certificate(self.loop.now(), self._memory.ended(local.pid), reason)
        local.break_off()
        if self.agent is None:
            if local.hello is None or not self._stopping:
                self._log(f"a rank ended while the set formed: {reason}")
            if not self._ranks:
                self._end_forming("no rank is left")
                self._look_whether_over()
            return
        self.agent.rank_lost(local, farewell or reason, bool(farewell), None if farewell else death)
        self._look_whether_over()

    def _launcher_ended(self) -> None:
        """The launcher has ended: nothing else would end the ranks."""
        if self._launcher is None:
            return
        self.loop.unregister(self._launcher)
        status = exit_status(self._launcher_pid, self._launcher)
        os.close(self._launcher)
        self._launcher = None
        if self.agent is None:
            self._end_forming("the launcher (mpirun) is gone")
        elif not self._stopping:
            self._rank_ends.launcher_ended(status, self._job, self.loop.now())
            self.loop.call_later(CAUSE_WITHIN, self._report)
            self._report()

    @property
    def _job(self) -> str:
        return next((job for local in self._ranks if (job := job_of(local))), "")

    def _decide(self) -> None:
        """End the set if the launcher is gone, once it is known or cannot be known why it has ended."""
        if self.agent is None or not self._rank_ends.is_decided(self._ranks, self.loop.now()):
            return
        ended, reason = self._rank_ends.decide(self._ranks, self._job, self.loop.now())
        for local, how in ended:
            known = self._ranks[local]
            local.exit_status = (
                exit_status(local.pid, known.pidfd) if local.exit_status is None else local.exit_status
            )
            self._ended(local, how)
        self._failure = self._failure or reason
        self.agent.stop(reason)

    # --- the end -------------------------------------------------------------------------------------------

    def _end_forming(self, reason: str) -> None:
        """End all ranks: the set cannot be formed."""
        self._failure = self._failure or reason
        self._stop(reason, False)

    def _stop(self, reason: str, orphaned: bool) -> None:
        """End the ranks of this node, then this process."""
        if self._stopping:
            return
        self._stopping = True
        self._log_line(f"stopping: {reason}")  # each rank logs it as well
        at_once = self.agent is not None and self.agent.ends_at_once
        if self.agent is not None and self.agent.is_dismissed:
            self._ids_file.remove()
        elif at_once:
            self._ids_file.ask(reason)
        failed = bool(self._failure) or at_once or (self.agent is not None and self.agent.has_failed)
        # Launchers that let ranks survive others end the whole set for a nonzero code.
        self.exit_code = 1 if failed and not orphaned else 0
        if self._session is not None:
            self._session.close(reason, self.agent is not None and self.agent.has_failed)
        words = f"ipengine: {self._failure}" if self._failure else ""
        for local in list(self._ranks):
            if not local.is_stopping:
                local.stop(rm.Stop(reason, self.exit_code, words, failed or orphaned))
                words = ""
            self._end_later(local, limits.RESTART_GRACE if at_once else limits.INTERRUPT_GRACE)
        self._look_whether_over()

    def _end_later(self, local: LocalRank, grace: float = limits.INTERRUPT_GRACE) -> None:
        """A rank was told to end: kill it if it does not."""
        self.loop.call_later(grace, lambda: self._kill(local))

    def _kill(self, local: LocalRank) -> None:
        known = self._ranks.get(local)
        if known is not None and local.pid and not local.has_left:
            self._log_line(f"rank {local.rank} did not end, and is killed")
            send_signal(known.pidfd, local.pid, signal.SIGKILL)
        elif known is not None and not local.pid:
            self._ended(local, "it did not register")

    def _leaves(self, local: LocalRank) -> None:
        """A rank ends, and waits until its socket is closed; the last one until this process has ended."""
        local.has_left = True
        if not self._stopping:
            local.close()
        self._look_whether_over()

    def _look_whether_over(self) -> None:
        if self._stopping and all(local.has_left for local in self._ranks):
            self.loop.stop()
