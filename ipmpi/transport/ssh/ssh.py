"""Reaching controllers through a login node, by the user's own OpenSSH.

A session runs one ssh process, in which everything is multiplexed: sites that ask for a one-time password ask
once. When ssh dies, what went through it breaks; whoever needs it again gets a new ssh, after a pause that grows.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import queue
import random
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

from ... import limits
from ...errors import (
    ClientError,
    ConnectionError,
    FurlError,
    KernelError,
    LocalProtocolError,
    internal_error,
)
from ...furl import Furl
from ...protocol import sshmessages as m
from ...protocol.handshake import printable_lines
from ...protocol.permissions import LAPTOP_RECEIVES
from ..dial.routes import Cancel, Done, Failed
from ..loop import READ, Loop, Timer
from ..pipes import PipePair
from ..tlspipe import prepare
from .channels import ChannelLink
from .requests import ArrivingSocket, Asking, ConnectRequest, ForwardRequest, RelayRequest
from .sshprocess import SshProcess, split_destination

log = logging.getLogger("ipmpi")

_Answer = TypeVar("_Answer")

_FAREWELL = 1.0
"""Seconds in which connections that are still open may end by themselves."""


class SshSession:
    """An ssh session with a login node; started when it is first needed, and again when it has died.

    All methods may be called from any thread, and block until there is an answer. Questions of ssh (a password, an
    unknown host) appear on the terminal, at the first login and whenever one of these methods needs another one;
    clients that are only dialling again do not ask.

    Args:
        destination: what ssh calls the machine, ``user@host`` or a name of ``~/.ssh/config``. After a colon, the
            command that runs ipcluster there may follow: ``user@host:venv/bin/ipcluster``.
        remote: that command, if the destination names none; it is for a shell.
    """

    def __init__(self, destination: str, *, remote: str = "ipcluster") -> None:
        self.destination, self.remote = split_destination(destination, remote)
        self.route = SshRoute(self)
        self._loop: Loop
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._process: SshProcess | None = None
        self._link: ChannelLink | None = None
        self._requests: list[RelayRequest] = []
        self._listeners: list[socket.socket] = []
        self._timer: Timer | None = None
        self._was_up = False
        self._up_since = 0.0
        self._delay = 0.0
        self._not_before = 0.0
        self._closed = False
        self._pid = os.getpid()

    def __repr__(self) -> str:
        return f"<SshSession {self.destination}>"

    def __enter__(self) -> SshSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The process id of ssh while it runs."""
        process = self._process
        return None if process is None else process.pid

    def open(self) -> None:
        """Log in, if that has not been done.

        Raises:
            ConnectionError, SecurityError, VersionError: ssh does not get there.
        """
        arriving = ArrivingSocket()
        self._await(arriving, arriving.future)

    def furl(self, role: str, cluster: str = "") -> Furl:
        """A furl that is kept at the far end: of a cluster by its name, or from the default file.

        Raises:
            FurlError: there is none; the sentence is the far end's.
            ConnectionError, SecurityError, VersionError: ssh does not get there.
        """
        asking = Asking(lambda channel: m.ReadFurl(channel, role, cluster))
        code, text = self._await(asking, asking.future)
        if code:
            raise FurlError(f"on {self.destination}: {text}")
        return Furl.parse(text)

    def run(self, arguments: Sequence[str], on_line: Callable[[str], None] = lambda line: None) -> int:
        """Run ``ipcluster`` at the far end, and give its exit code.

        Args:
            arguments: of ipcluster.
            on_line: called, in this thread, with each line that it prints on either output, without what would
                steer a terminal. A line longer than SSH_WINDOW comes in pieces.

        Raises:
            ConnectionError: ssh does not get there, or has died meanwhile: the command was ended if it had not
                detached itself.
        """
        lines: queue.Queue[bytes | None] = queue.Queue()
        asking = Asking(lambda channel: m.RunCommand(channel, list(arguments)), lines.put)
        asking.future.add_done_callback(lambda future: lines.put(None))
        self._post(asking)
        rest = b""
        try:
            while (data := lines.get()) is not None:
                self._loop.call_threadsafe(partial(asking.consumed, len(data)))
                *whole, rest = (rest + data).split(b"\n")
                if len(rest) > limits.SSH_WINDOW:
                    whole, rest = [*whole, rest], b""
                for line in whole:
                    on_line(_as_text(line))
        except BaseException:
            self._loop.call_threadsafe(lambda: self._drop(asking))
            raise
        if rest:
            on_line(_as_text(rest))
        return asking.future.result()[0]

    def forward(self, hints: Sequence[tuple[str, int]]) -> tuple[str, int]:
        """Listen on a port of this machine's loopback; who connects to it reaches the first hint that answers.

        Returns:
            Host and port, for the furl that clients on this machine use. It lasts as long as the session object.
        """
        self._start_thread()
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        address: tuple[str, int] = listener.getsockname()[:2]

        def accept(_events: int) -> None:
            with contextlib.suppress(OSError):
                sock, _ = listener.accept()
                prepare(sock)
                self._request(ForwardRequest(sock, list(hints)))

        def start() -> None:
            self._listeners.append(listener)
            self._loop.register(listener, READ, accept)

        self._loop.call_threadsafe(start)
        return address

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            raise ClientError(
                f"the ssh session with {self.destination} belongs to a parent of this process "
                f"(pid {os.getpid()}), which is a fork. Make a new client here"
            )

    def close(self) -> None:
        """End the session, and all that goes through it. Idempotent. Nothing in a forked process."""
        if self._pid != os.getpid():
            return
        with self._lock:
            closed, self._closed = self._closed, True
            thread = self._thread
        atexit.unregister(self.close)
        if thread is not None and not closed:
            self._loop.call_threadsafe(self._shut)
            if threading.get_ident() != self._loop.thread:
                thread.join(5)

    # --- from other threads ------------------------------------------------------------------------------

    def _await(self, request: RelayRequest, future: Future[_Answer]) -> _Answer:
        self._post(request)
        try:
            return future.result()
        except BaseException:
            self._loop.call_threadsafe(lambda: self._drop(request))
            raise

    def _connect(self, connecting: ConnectRequest) -> Cancel:
        try:
            self._post(connecting)
        except KernelError as error:
            connecting.fail(error)

        def cancel() -> None:
            connecting.cancelled = True
            if self._thread is not None:
                self._loop.call_threadsafe(lambda: self._drop(connecting))

        return cancel

    def _post(self, request: RelayRequest) -> None:
        self._start_thread()
        self._loop.call_threadsafe(lambda: self._request(request))

    def _start_thread(self) -> None:
        self._check_process()
        with self._lock:
            if self._closed:
                raise ClientError(f"the ssh session with {self.destination} was closed; make a new one")
            if self._thread is None:
                self._loop = Loop()
                self._loop.on_error = self._unforeseen
                self._thread = threading.Thread(target=self._run, name="ipmpi-ssh", daemon=True)
                self._thread.start()
                atexit.register(self.close)

    # --- in the session's thread -------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._loop.run()
        except BaseException:
            log.exception("the thread of an ssh session failed; please report this")
            self._closed = True
            if self._link is not None:
                self._link.close("an error in ipmpi")
            self._failed(ConnectionError("the thread of the ssh session failed; please report this"))
        finally:
            self._loop.close()

    def _unforeseen(self, error: BaseException) -> None:
        """Something of the session has raised: what goes through this ssh ends, and its owners may dial again."""
        self._loop.report(error)
        failure = ConnectionError(str(internal_error(error, f"in the ssh session with {self.destination}")))
        if self._link is not None:
            self._link.close(str(failure))
        self._failed(failure)

    def _request(self, request: RelayRequest) -> None:
        if self._closed:
            request.fail(ConnectionError(f"the ssh session with {self.destination} was closed"))
        elif self._link is not None:
            self._begin(request, self._link)
        else:
            self._requests.append(request)
            if self._process is None and self._timer is None:
                self._timer = self._loop.call_later(max(0.0, self._not_before - self._loop.now()), self._login)

    def _drop(self, request: RelayRequest) -> None:
        """Nobody wants it any more; ssh must not go on asking for a password then."""
        request.drop()
        if request in self._requests:
            self._requests.remove(request)
            if not self._requests and self._process is not None and self._link is None:
                process, self._process = self._process, None
                process.cancel()

    @staticmethod
    def _begin(request: RelayRequest, link: ChannelLink) -> None:
        try:
            request.begin(link)
        except LocalProtocolError as error:
            request.fail(ConnectionError(str(error)))

    def _login(self) -> None:
        self._timer = None
        if not self._requests:
            return
        # Somebody who types at a prompt of Python must not be asked for a password by another prompt in between.
        quiet = self._was_up and not any(request.may_ask for request in self._requests)
        try:
            self._process = SshProcess(
                self._loop, self.destination, self.remote, self._up, self._failed, quiet=quiet
            )
        except (KernelError, OSError, ValueError) as error:
            own = error if isinstance(error, KernelError) else ConnectionError(f"cannot start ssh: {error}")
            self._failed(own)

    def _up(self, pipe: PipePair, data: bytes) -> None:
        self._was_up = True
        self._up_since = self._loop.now()
        link = self._link = ChannelLink(self._loop, pipe, LAPTOP_RECEIVES, self._broken)
        requests, self._requests = self._requests, []
        for request in requests:
            self._begin(request, link)
        link.feed(data)

    def _broken(self) -> None:
        """The link is closed, and its channels have been told."""
        self._link = None
        process, self._process = self._process, None
        if process is not None:
            process.end()
        if self._loop.now() - self._up_since >= limits.SSH_SETTLED:
            self._delay = 0.0
        self._pause()

    def _failed(self, error: KernelError) -> None:
        if self._link is None:
            self._process = None
        self._pause()
        requests, self._requests = self._requests, []
        for request in requests:
            request.fail(error)

    def _pause(self) -> None:
        """The next login has to wait: sites take many of them for an attack."""
        # Without a login so far nobody dials again by himself, and whoever calls again has changed something.
        longer = self._delay * limits.SSH_RECONNECT_FACTOR if self._was_up else 0.0
        self._delay = min(max(longer, limits.SSH_RECONNECT_FIRST), limits.SSH_RECONNECT_LONGEST)
        self._not_before = Loop.now() + self._delay * random.uniform(0.7, 1.3)

    def _shut(self) -> None:
        for listener in self._listeners:
            self._loop.unregister(listener)
            listener.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._process is not None and self._link is None:
            self._process.cancel()
        self._failed(ConnectionError(f"the ssh session with {self.destination} was closed"))
        if self._link is None or self._link.is_idle:
            self._stop()
            return
        # What clients said when they were closed, a moment ago, has to get through.
        self._link.on_idle = lambda: self._loop.call_soon(self._stop)
        self._loop.call_later(_FAREWELL, self._stop)

    def _stop(self) -> None:
        if self._link is not None:
            self._link.close("the session was closed")
        self._loop.stop()


def _as_text(line: bytes) -> str:
    return printable_lines(line.removesuffix(b"\r").decode("utf-8", "replace"))


class SshRoute:
    """Connections that the far end of an ssh session makes; hosts are as they are seen from there."""

    def __init__(self, session: SshSession) -> None:
        self._session = session

    @property
    def via(self) -> str:
        """Words for messages."""
        return f"through ssh {self._session.destination}"

    def serves(self, host: str) -> bool:
        """Always."""
        del host
        return True

    def connect(self, loop: Loop, address: tuple[str, int], on_done: Done, on_failed: Failed) -> Cancel:
        """Have the far end connect; the socket given is one end of a pair, the session has the other."""
        return self._session._connect(ConnectRequest(loop, address, on_done, on_failed))


_shared: dict[tuple[str, int], SshSession] = {}
_shared_lock = threading.Lock()


def shared_session(destination: str) -> SshSession:
    """The session that all clients of this process have with a destination; it lasts until the process ends."""
    with _shared_lock:
        # A child of fork() has none of the threads.
        key = (destination, os.getpid())
        session = _shared.get(key)
        if session is None or session._closed:
            session = _shared[key] = SshSession(destination)
        return session
