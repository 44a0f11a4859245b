"""The client for all engines of a controller."""

from __future__ import annotations

import os
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Literal

from ...errors import ClientError
from ...protocol import messages
from ...transport.ssh.ssh import SshSession
from ..display.inipython import fold_failures
from ..session.calls import Calls
from ..session.connecting import close_when_unreferenced, connect
from ..session.enginecount import wait_for_engines
from ..session.opening import Unpickle, opener_of, restrict
from ..session.partial import failure_mode, interrupt_mode, seconds_until_told, timeout_mode
from ..session.results import PendingResult
from ..session.session import Session
from ..session.targets import Targets
from .pastcommands import PastCommands, history
from .restarting import loss_mode
from .sharing import SharedFurl, decide, revoke, rotate, share, shared
from .simulation import Simulation
from .views import EngineView


class MultiEngineClient(EngineView):
    """A client for the engines of one controller; :class:`EngineView` has the methods that run on engines.

    >>> mec = MultiEngineClient()                       # doctest: +SKIP
    >>> mec.execute('print("Hello World")')             # doctest: +SKIP
    <Results List>
    [0] In [1]: print("Hello World")
    [0] Out[1]: Hello World

    Use it in a ``with`` statement, or call :meth:`close`; the engines and their namespaces remain. It is closed
    automatically when neither it nor one of its views or pending results is referenced any more.

    Thread-safety: all methods may be called from any thread; see :class:`EngineView`. A forked process must create
    a client of its own: using this one there raises :class:`~ipmpi.errors.ClientError`.

    Args:
        furl_or_file: a furl, or the path of a file that contains one. The default is ``ipcontroller-mec.furl`` of
            the newest unnamed cluster on this machine.
        name: the name of a cluster, as ``ipcluster list`` shows it; instead of a furl. With ``ssh``, a cluster on
            the remote machine.
        session: an open session to use instead of a new connection.
        ssh: ``'user@login'``: connect to the controller through that machine, using your OpenSSH client with its
            configuration, agent and jump hosts. The default furl is then the one in that machine's files. A colon
            and the path of ipcluster on that machine may follow: ``'user@login:venv/bin/ipcluster'``. Or an open
            :class:`SshSession`.
        proxy: ``'http://host:port'`` of an HTTP proxy, or ``'none'``. By default, if the direct connection fails,
            the proxy in the environment variable ``https_proxy`` or ``all_proxy`` is tried.
        unpickle: what is opened of the pickles that engines send: ``'all'``, or with ``'safe'`` plain data, arrays
            and Python's own exceptions only, so that a pickle cannot run code here; see :doc:`/security`.
        allow: with ``'safe'``: classes and modules, or their names, that are opened as well.

    Attributes:
        block: whether calls wait for their results; initially True.
        targets: the engines of calls that name none; initially ``'all'``.

    Raises:
        ValueError: the argument is neither a furl nor a file that contains one.
        FurlError: the furl is for another kind of client.
        ConnectionError: no controller answers.
        SecurityError: the controller that answers is not the one of the furl.
    """

    def __init__(
        self,
        furl_or_file: str | os.PathLike[str] = "",
        *,
        name: str = "",
        session: Session | None = None,
        ssh: str | SshSession | None = None,
        proxy: str | None = None,
        unpickle: Unpickle = "all",
        allow: Iterable[object] = (),
    ) -> None:
        opener = opener_of(unpickle, allow)
        opened = connect(furl_or_file, "mec", name=name, ssh=ssh, proxy=proxy) if session is None else session
        restrict(opened, opener)
        role = getattr(opened, "role", "mec")
        if role != "mec":
            opened.close()
            raise ClientError(_wrong_role(role))
        super().__init__(Calls(opened))
        fold_failures()
        if session is None:
            close_when_unreferenced(self._calls, opened)  # which views and pending results share

    def __repr__(self) -> str:
        return f"<MultiEngineClient targets={self.targets!r}, block={self.block}>"

    @property
    def partial_after(self) -> float | None:
        """Seconds before a waiting call reports that some engines have failed; initially 2, None for never.

        The delay starts at the first failure. The line names the failures and the engines that are still running:
        usually they wait in an MPI collective for those that failed. It is printed once per call.
        """
        return self._calls.settings.partial_after

    @partial_after.setter
    def partial_after(self, seconds: float | None) -> None:
        self._calls.settings.partial_after = seconds_until_told(seconds)

    @property
    def progress_after(self) -> float | None:
        """Seconds before a waiting call shows its progress; initially 2, None for never.

        The line ``61/64 done · [3, 17, 40] running 12 s`` is shown on a terminal and in a notebook, until the call
        ends.
        """
        return self._calls.settings.progress_after

    @progress_after.setter
    def progress_after(self, seconds: float | None) -> None:
        self._calls.settings.progress_after = seconds_until_told(seconds, "progress_after")

    @property
    def hang_after(self) -> float | None:
        """Seconds without progress until a notice says which engines wait for which; at first 60, None for never.

        When a command has run for half of this time, and again at its end, the node agents are asked where its
        engines are. If they wait inside MPI for one that is elsewhere, stopped or gone, or have called different
        things, the notice says so, once per command: :doc:`/where`.
        """
        return self._calls.settings.hang_after

    @hang_after.setter
    def hang_after(self, seconds: float | None) -> None:
        self._calls.settings.hang_after = seconds_until_told(seconds, "hang_after")
        self._calls.hangs.settings_changed()

    @property
    def on_interrupt(self) -> Literal["ranks", "detach"]:
        """What Ctrl-C does while a call waits for engines; initially ``'ranks'``.

        With ``'ranks'`` the first Ctrl-C raises KeyboardInterrupt on the engines that run this call, and on no
        others; on engines where it is still queued it will not run. The call goes on waiting until they have
        ended, names those that do not react within 3 s, and raises :class:`~ipmpi.errors.WaitInterrupted`, a
        KeyboardInterrupt. A second Ctrl-C ends the wait only; see :attr:`detached`. With ``'detach'``, the first
        Ctrl-C does that.

        Waits with a timeout always end at the first Ctrl-C and leave the call running.
        """
        return self._calls.settings.on_interrupt

    @on_interrupt.setter
    def on_interrupt(self, value: Literal["ranks", "detach"]) -> None:
        self._calls.settings.on_interrupt = interrupt_mode(value)

    @property
    def on_timeout(self) -> Literal["interrupt", "free", "restart"]:
        """What a call with a ``timeout`` does if engines do not react to the interrupt; initially ``'interrupt'``.

        With ``'interrupt'`` it says what they are in, and ends without them. They go on until :meth:`restart`.
        With ``'free'`` it frees those that wait in MPI, as by :meth:`free`. With ``'restart'`` it restarts the set
        at once.
        """
        return self._calls.settings.on_timeout

    @on_timeout.setter
    def on_timeout(self, value: Literal["interrupt", "free", "restart"]) -> None:
        self._calls.settings.on_timeout = timeout_mode(value)

    @property
    def on_failure(self) -> Literal["end", "free", "wait"]:
        """What a call does if some engines have failed and all others wait inside MPI; initially ``'end'``.

        With ``'end'`` it ends without the answers of the others, two to four seconds after the first failure, once
        their node agents have found them twice in the same MPI call. With ``'free'`` it frees them then, as by
        :meth:`free`. With ``'wait'`` it goes on waiting for them.
        """
        return self._calls.settings.on_failure

    @on_failure.setter
    def on_failure(self, value: Literal["end", "free", "wait"]) -> None:
        self._calls.settings.on_failure = failure_mode(value)

    def on_loss(
        self, mode: Literal["shrink", "abort", "restart"] | None = None, targets: Targets | None = None
    ) -> dict[int, str]:
        """Choose what becomes of engines when one that was started with them dies; always blocks.

        It holds for the whole launch of these engines, for all clients, and for those that are started in their
        place. Engines that are started later have what ``ipcluster --on-loss`` says. :doc:`/howto/deaths`

        Args:
            mode: ``'shrink'``, initially: the others go on, if their launcher lets them. ``'abort'``: they end at
                once. ``'restart'``: all are started again at once, with the names of the last :meth:`snapshot`; at
                most three times within ten minutes. None changes nothing.
            targets: the engines.

        Returns:
            What is chosen, by engine.

        Raises:
            ClientError: it is none of these, or ``'restart'`` for engines that nobody would start again.
        """
        wanted, chosen = self._wanted(targets), loss_mode(mode)
        answer: dict[int, str] = self._request(
            lambda i: messages.OnLoss(i, wanted, chosen),
            lambda rows: {int(engine): str(word) for engine, word in rows},
            True, "on_loss",
        )  # fmt: skip
        return answer

    @property
    def detached(self) -> PendingResult[Any] | None:
        """The result of the last waiting call that Ctrl-C left running; None if there is none."""
        return self._calls.detached

    def history(self) -> PastCommands:
        """Return the last commands of all who hold the same furl, oldest first; always blocks.

        Among them are those of clients that are gone: what these have given goes on, and :meth:`get_result` finds
        the results. See :doc:`/howto/leave` for what is kept.

        Returns:
            A list of :class:`~ipmpi.client.PastCommand`, shown one a line; ``dropped`` says how many are not kept
            any more.
        """
        return history(self._calls)

    def wait_for_engines(self, n: int, timeout: float | None = None) -> None:
        """Wait until at least ``n`` engines are registered.

        Args:
            n: the number of engines.
            timeout: seconds to wait at most; None for no limit.

        Raises:
            TypeError, ValueError: an argument is not a number, or is out of range.
            TimeoutError: there were fewer after ``timeout`` seconds; the message says how many.
            ConnectionError: the connection to the controller ended.
        """
        wait_for_engines(self._calls.session, n, timeout)

    def simulation(self, program: str = "", timeout: float | None = None) -> Simulation:
        """Return a handle of a program that has a loop of its own; see :doc:`/howto/steer`.

        Args:
            program: its name, if several are attached to the controller.
            timeout: seconds to wait for it, if it is not there yet.

        Raises:
            ClientError: no such program is attached, or several are.
        """
        return Simulation(session=self._calls.session, program=program, timeout=timeout)

    def share(
        self,
        role: Literal["monitor", "tasks"],
        seconds: float = 8 * 3600.0,
        *,
        tasks: int | None = None,
        size: int | None = None,
        engines: Targets | None = None,
        note: str = "",
    ) -> SharedFurl:
        """Make a furl for somebody else, which ends by itself; always blocks: :doc:`/howto/share`.

        Args:
            role: ``'monitor'``: look, and change nothing. ``'tasks'``: what a TaskClient does.
            seconds: until it ends.
            tasks: number of tasks that may be submitted with it in all; None for no bound.
            size: bytes of arguments and functions that may be sent with it in all; None for no bound.
            engines: those that its holder sees, and on which the tasks run; None for all, also later ones.
            note: for whom it is.

        Returns:
            Its id, and the furl itself, which is a secret.

        Raises:
            TypeError, ValueError: an argument is of another type, or out of range.
            ClientError: there is no such role, or there are too many furls.
        """
        return share(self._calls, role, seconds, tasks, size, engines, note)

    def shared(self) -> list[dict[str, Any]]:
        """Return what is known of all furls that were given out and have not ended, those of launches included.

        Returns:
            For each a dict: ``id``, ``role``, ``note``, ``left`` (seconds until its end, or None), ``tasks`` and
            ``bytes`` (``[used, bound]``, a bound of None is none), ``engines``, and for a launch ``places``
            (``[used, bound]``). The secrets are not among it.
        """
        return shared(self._calls)

    def revoke(self, ids: str | Iterable[str] | None = None) -> list[str]:
        """End furls that :meth:`share` has made, and the sessions of their holders.

        Args:
            ids: the id of one, or several; None for all.

        Returns:
            The ids of those that have ended.

        Raises:
            TypeError: it is nothing of that kind.
            ClientError: there is no such furl, or it has ended before.
        """
        return revoke(self._calls, ids)

    def rotate(self, now: bool = False) -> dict[str, str]:
        """Replace the secrets in all furl files of the controller, which goes on.

        Who is connected stays connected, and may reconnect; nobody else comes in with the former furls. Furls that
        were shared, and those of launches, stay as they are.

        Args:
            now: end all sessions that were begun with the former furls, those of engines included, and cancel
                their tasks that wait. This client's goes on as long as its link does. So do tasks of clients that
                are gone, as they may be your own: ``tc.history()`` lists them, ``tc.forget()`` cancels them.

        Returns:
            The furl files that were written, by role, on the controller's machine.

        Raises:
            TypeError: ``now`` is not a bool.
            FurlError: a file cannot be written.
        """
        return rotate(self._calls, now)

    def waiting_engines(self) -> list[dict[str, Any]]:
        """Return the engine sets that wait to be admitted, with ``ipcontroller --admit ask``.

        Returns:
            For each a dict: ``set`` (its number), ``engines`` (how many), ``hosts``, ``user``, ``from`` (where it
            connects from) and ``why`` nobody expects it. Host and user are what it says of itself.
        """
        return decide(self._calls, "list", None)

    def admit(self, sets: int | Iterable[int] | None = None) -> list[dict[str, Any]]:
        """Admit engine sets that wait: their engines are registered.

        Args:
            sets: the number of one, or several; None for all that wait.

        Returns:
            What :meth:`waiting_engines` has said of them.

        Raises:
            TypeError, ValueError: it is nothing of that kind.
            ClientError: no such set waits.
        """
        return decide(self._calls, "admit", sets)

    def turn_away(self, sets: int | Iterable[int] | None = None) -> list[dict[str, Any]]:
        """Refuse engine sets that wait to be admitted: they end. Arguments and result: see :meth:`admit`."""
        return decide(self._calls, "refuse", sets)

    def close(self) -> None:
        """Close the connection. Commands continue on the engines; results that were not retrieved are lost."""
        self._calls.session.close()

    def __enter__(self) -> MultiEngineClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _wrong_role(role: str) -> str:
    if role == "tc":
        return (
            "this furl (ipcontroller-tc.furl) is for tasks: use client.TaskClient with it, "
            "or give MultiEngineClient the furl in ipcontroller-mec.furl"
        )
    return f"this furl is for the role {role!r}; MultiEngineClient needs the furl in ipcontroller-mec.furl"
