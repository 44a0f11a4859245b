"""The client for those who may look, and change nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import Any

from ...protocol import messages
from ...transport.ssh.ssh import SshSession
from ..session.calls import Calls, of_this_process
from ..session.clusterinfo import cluster_info
from ..session.connecting import close_when_unreferenced, connect
from ..session.ownframes import all_raise_at_call
from ..session.session import Session
from .queues import queue_statuses


@all_raise_at_call
class Monitor:
    """Looks at a cluster with a furl of the role ``monitor``: :doc:`/howto/share`.

    >>> with Monitor('sweep-monitor-7ab3.furl') as watched:          # doctest: +SKIP
    ...     watched.get_ids()
    [0, 1, 2, 3]

    What the controller tells all clients, such as the loss of engines, is printed. All methods block, and may be
    called from any thread. What a program publishes is shown by :class:`ProgramMonitor`.

    Args:
        furl_or_file: a furl, or the path of a file that contains one. The default is ``ipcontroller-monitor.furl``
            of the newest unnamed cluster on this machine.
        name: the name of a cluster, instead of a furl.
        session: an open session to use instead of a new connection.
        ssh: see :class:`MultiEngineClient`.
        proxy: see :class:`MultiEngineClient`.

    Raises:
        ValueError: the argument is neither a furl nor a file that contains one.
        FurlError: the furl is for another kind of client.
        FurlEnded: its time is over, or it was revoked.
        ConnectionError: no controller answers.
        SecurityError: the controller that answers is not the one of the furl.
    """

    __reduce_ex__ = of_this_process

    def __init__(
        self,
        furl_or_file: str | os.PathLike[str] = "",
        *,
        name: str = "",
        session: Session | None = None,
        ssh: str | SshSession | None = None,
        proxy: str | None = None,
    ) -> None:
        opened = connect(furl_or_file, "monitor", name=name, ssh=ssh, proxy=proxy) if session is None else session
        self._calls = Calls(opened)
        if session is None:
            close_when_unreferenced(self._calls, opened)

    def get_ids(self) -> list[int]:
        """Return the ids of the engines that this furl may see, ascending."""
        return self._calls.ids()

    def queue_status(self) -> list[tuple[int, dict[str, Any]]]:
        """Return which command runs on each engine, and which are queued, as :class:`MultiEngineClient` does."""
        rows = self._asked(lambda i: messages.QueueStatus(i, None), "queue_status")
        return queue_statuses(rows, None)

    def task_status(self) -> dict[str, int]:
        """Return the number of tasks of all clients: ``scheduled``, ``pending``, ``succeeded`` and ``failed``."""
        found = self._asked(messages.TaskStatus, "task_status")
        return {word: int(found[word]) for word in ("scheduled", "pending", "succeeded", "failed")}

    def cluster_info(self) -> dict[str, Any]:
        """Return what the controller knows about engines and clients, as :class:`MultiEngineClient` does."""
        return cluster_info(self._calls, self)

    @property
    def notices(self) -> list[str]:
        """What the controller has told all clients since this one connected, newest last."""
        return list(self._calls.session.notices)

    def _asked(self, make: Callable[[int], messages.AnyMessage], method: str) -> Any:
        return self._calls.request(self, make, lambda answer: answer, True, method)

    def close(self) -> None:
        """Close the connection."""
        self._calls.session.close()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
