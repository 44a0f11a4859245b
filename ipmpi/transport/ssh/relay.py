"""The far end of an ssh session: what runs on the login node, and serves the laptop's requests.

It opens connections, runs ``ipcluster`` and reads furl files, as the user who logged in; it knows nothing of TLS
and passes ciphertext on. When its standard input ends, or nothing is heard for long, all its connections are
closed, what it started gets SIGTERM, and it ends: nothing stays behind.

With one exception. A connection that is closed looks to a controller like a program that ended, whose session it
keeps for LEASE_AFTER_CLOSE only, which is too short for a new login. So if it was *ssh* that died, the connections
are held for LEASE_AFTER_SILENCE. Nothing passes through them, and a controller to which the client has come back
closes them at once. It was ssh if standard output is broken as well; if only the input has ended, it was the
program on the laptop, and ssh is still there to tell it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from functools import partial

from ... import limits
from ...errors import KernelError
from ...protocol import sshmessages as m
from ...protocol.greeting import greeting
from ...protocol.permissions import LOGIN_NODE_RECEIVES
from ..dial.routes import DIRECT, Cancel
from ..loop import READ, Loop, Timer
from ..pipes import PipePair
from .channels import Channel, ChannelLink, ChannelUser, SocketForwarder

_MOMENT = 0.2


class RelayServer:
    """Serves one near end over two descriptors; ``loop`` stops when it is over.

    Args:
        command: what runs ``ipcluster``.
        read_furl: gives the furl of a role and cluster as text; its KernelError is told to the near end.
    """

    def __init__(
        self,
        loop: Loop,
        reader: int,
        writer: int,
        software: str,
        command: Sequence[str],
        read_furl: Callable[[str, str], str],
    ) -> None:
        self._loop = loop
        self._command = list(command)
        self._read_furl = read_furl
        self._running: set[_Running] = set()
        self._over = False
        self._lingering = LingeringSockets(loop, os.dup(writer), self._end_if_idle)
        # The pipe is empty, and the line is shorter than what any pipe takes at once.
        os.write(writer, greeting(software))
        # The laptop's Python may be kept from answering by a library that holds the GIL.
        self._link = ChannelLink(
            loop, PipePair(reader, writer), LOGIN_NODE_RECEIVES, self._closed, on_request=self._requested,
            silence=limits.SILENCE_OF_USER_CODE, pause_above=limits.SSH_BACKLOG,
        )  # fmt: skip

    def stop(self, reason: str) -> None:
        """End it; may be called from any thread."""
        self._loop.call_threadsafe(lambda: self._stop(reason))

    def _stop(self, reason: str) -> None:
        self._link.close(reason)
        self._lingering.close()

    def _requested(self, channel: Channel, request: m.Request) -> None:
        if isinstance(request, m.ConnectTo):
            _Connecting(self._loop, channel, request, self._lingering.keep)
        elif isinstance(request, m.RunCommand):
            self._run(channel, request.arguments)
        else:
            self._furl(channel, request)

    def _furl(self, channel: Channel, request: m.ReadFurl) -> None:
        try:
            code, text = 0, self._read_furl(request.role, request.cluster)
        except KernelError as error:
            code, text = 1, str(error)
        channel.end(m.Ended(channel.number, code, m.sendable(text)))
        channel.detach()

    def _run(self, channel: Channel, arguments: list[str]) -> None:
        try:
            running = _Running(channel, [*self._command, *arguments], self._ended)
        except (OSError, ValueError) as error:
            channel.reset(f"cannot run ipcluster: {error}")
            return
        self._running.add(running)

    def _ended(self, running: _Running) -> None:
        self._running.discard(running)
        self._end_if_idle()

    def _closed(self) -> None:
        # The commands were told by their channels; they have time to clean up.
        self._over = True
        self._lingering.begin()
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self._over and not self._running and not self._lingering:
            self._loop.stop()


class LingeringSockets:
    """Holds connections whose ssh has died until their controllers close them, or for LEASE_AFTER_SILENCE.

    Args:
        output: descriptor that tells whether ssh has died; this closes it.
        on_empty: called whenever there is none any more.
    """

    def __init__(self, loop: Loop, output: int, on_empty: Callable[[], None]) -> None:
        self._loop = loop
        self._output = output
        self._on_empty = on_empty
        self._socks: set[socket.socket] = set()

    def __bool__(self) -> bool:
        return bool(self._socks)

    def keep(self, sock: socket.socket) -> None:
        """Take a connection."""
        self._socks.add(sock)

    def begin(self) -> None:
        """No more will come. Look a moment later what has happened: a server closes one thing after the other."""
        if self._socks:
            self._loop.call_later(_MOMENT, self._decide)

    def _decide(self) -> None:
        poll = select.poll()
        poll.register(self._output, 0)
        broken = bool(poll.poll(0))
        os.close(self._output)
        if not broken:
            self.close()
            return
        for sock in self._socks:
            self._loop.register(sock, READ, partial(self._discard, sock))
        self._loop.call_later(limits.LEASE_AFTER_SILENCE, self.close)

    def _discard(self, sock: socket.socket, _events: int) -> None:
        # What the controller sends is kept there until the client has acknowledged it.
        try:
            if sock.recv(65536):
                return
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            pass
        self._close(sock)

    def close(self) -> None:
        """Close them all."""
        for sock in list(self._socks):
            self._close(sock)

    def _close(self, sock: socket.socket) -> None:
        self._socks.discard(sock)
        self._loop.unregister(sock)
        sock.close()
        if not self._socks:
            self._on_empty()


class _Connecting(ChannelUser):
    """A channel whose connection is being made."""

    def __init__(
        self, loop: Loop, channel: Channel, request: m.ConnectTo, keep: Callable[[socket.socket], None]
    ) -> None:
        self._keep = keep
        self._channel = channel
        channel.user = self
        address = (request.host, request.port)
        self._cancel: Cancel = DIRECT.connect(loop, address, self._connected, self._failed)

    def _connected(self, sock: socket.socket) -> None:
        self._channel.accept()
        SocketForwarder(self._channel, sock, self._keep)

    def _failed(self, error: KernelError) -> None:
        self._channel.reset(str(error))

    def lost(self, reason: str) -> None:
        """Nobody wants it any more."""
        del reason
        self._cancel()


class _Running(ChannelUser):
    """A command whose output goes into a channel, and then its exit code."""

    def __init__(self, channel: Channel, argv: Sequence[str], on_ended: Callable[[_Running], None]) -> None:
        self._loop = channel.link.loop
        self._channel = channel
        self._on_ended = on_ended
        self._code: int | None = None
        self._killer: Timer | None = None
        self._watched = False
        self._wanted = True
        # A session of its own: so it and its children can be ended together, and what detaches itself stays.
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._pipe = self._process.stdout.fileno()
        os.set_blocking(self._pipe, False)
        channel.user = self
        channel.accept()
        self._watch(True)
        threading.Thread(target=self._wait, daemon=True, name="ipmpi-wait").start()

    def _wait(self) -> None:
        code = self._process.wait()
        self._loop.call_threadsafe(lambda: self._exited(code))

    def _exited(self, code: int) -> None:
        self._code = code
        if self._killer is not None:
            self._killer.cancel()
        # What it started in the background may keep the pipe open, so its end is not waited for.
        self._read()

    def _watch(self, on: bool) -> None:
        if on != self._watched:
            self._watched = on
            if on:
                self._loop.register(self._pipe, READ, lambda events: self._read())
            else:
                self._loop.unregister(self._pipe)

    def _read(self) -> None:
        while self._wanted:
            room = self._channel.room()
            if not room:
                self._watch(False)
                return
            try:
                data = os.read(self._pipe, room)
            except (BlockingIOError, InterruptedError):
                self._watch(True)
                break
            except OSError:
                data = b""
            if not data:
                self._watch(False)
                break
            self._channel.send(data)
        if self._code is not None:
            self._finish()

    def _finish(self) -> None:
        if self._process.stdout is not None and not self._process.stdout.closed:
            self._watch(False)
            self._process.stdout.close()
            if self._wanted:
                self._channel.end(m.Ended(self._channel.number, self._code or 0))
                self._channel.detach()
            self._on_ended(self)

    def room(self) -> None:
        """More of its output can be sent."""
        self._read()

    def lost(self, reason: str) -> None:
        """Nobody waits for it any more: it shall end, and clean up before."""
        del reason
        self._wanted = False
        self._watch(False)
        if self._code is not None:
            self._finish()
            return
        self._signal(signal.SIGTERM)
        self._killer = self._loop.call_later(limits.RUN_GRACE, lambda: self._signal(signal.SIGKILL))

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)
