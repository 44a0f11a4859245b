"""The client for all engines of a controller."""

from __future__ import annotations

import os
from types import TracebackType

from ...errors import ClientError
from ...transport.ssh.ssh import SshSession
from ..session.calls import Calls
from ..session.connecting import close_when_unreferenced, connect
from ..session.partial import seconds_until_told
from ..session.session import Session
from .views import EngineView


class MultiEngineClient(EngineView):
    """Steers the engines of one controller; see :class:`EngineView` for what it can do.

    >>> mec = MultiEngineClient()                       # doctest: +SKIP
    >>> mec.execute('print("Hello World")')             # doctest: +SKIP
    <Results List>
    [0] In [1]: print("Hello World")
    [0] Out[1]: Hello World

    Use it in a ``with`` statement, or :meth:`close` it; engines and their namespaces stay. One that is no longer
    referenced (nor a view or a pending result of it) is closed by itself.

    Args:
        furl_or_file: a furl, or a file that contains one; the default is the file ``ipcontroller-mec.furl`` of the
            newest cluster on this machine that was given no name.
        name: a cluster by its name, as ``ipcluster list`` shows it; instead of a furl. With ``ssh``, one that is
            there.
        session: an open session to use instead.
        ssh: ``user@login``, to reach the controller through that machine by your own OpenSSH, with its
            configuration, agent and jump hosts. The default furl is then the one that a controller has written
            there. After a colon, what runs ipcluster there may follow: ``user@login:venv/bin/ipcluster``.
        proxy: ``http://host:port`` of an HTTP proxy to go through; ``'none'`` for none. By default that of
            ``https_proxy`` or ``all_proxy`` in the environment is tried where the direct way fails.

    Attributes:
        block: whether calls wait for their results; True at first.
        targets: the engines that are meant where a call names none; ``'all'`` at first.

    Raises:
        ValueError: the argument is not a furl or a file containing one.
        FurlError: it is the furl of something else.
        ConnectionError: no controller answers.
        SecurityError: it is not the controller of the furl.
    """

    def __init__(
        self,
        furl_or_file: str | os.PathLike[str] = "",
        *,
        name: str = "",
        session: Session | None = None,
        ssh: str | SshSession | None = None,
        proxy: str | None = None,
    ) -> None:
        opened = connect(furl_or_file, "mec", name=name, ssh=ssh, proxy=proxy) if session is None else session
        role = getattr(opened, "role", "mec")
        if role != "mec":
            opened.close()
            raise ClientError(_wrong_role(role))
        super().__init__(Calls(opened))
        if session is None:
            close_when_unreferenced(self._calls, opened)  # which views and pending results share

    def __repr__(self) -> str:
        return f"<MultiEngineClient targets={self.targets!r}, block={self.block}>"

    @property
    def partial_after(self) -> float | None:
        """Seconds after the first failure on an engine, from which on a call that waits for others says so.

        2 at first; None: it says nothing. The line names the failures, and the engines that still run: most often
        they wait in a collective of MPI for those that failed. It is printed once a call.
        """
        return self._calls.partial_after

    @partial_after.setter
    def partial_after(self, seconds: float | None) -> None:
        self._calls.partial_after = seconds_until_told(seconds)

    def close(self) -> None:
        """End the connection. Work goes on; results that were not retrieved are lost to this client."""
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
