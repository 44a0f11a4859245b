"""One run of the OpenSSH program, from its start to the greeting of the far end."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from ... import limits
from ...errors import ClientError, ConnectionError, KernelError, SecurityError, VersionError
from ...protocol.greeting import GreetingReader
from ...protocol.handshake import printable, printable_lines
from ..dial.routes import is_address
from ..loop import READ, Loop, Timer
from ..pipes import PipeClosed, PipePair

_SHIELD: Final = 'trap "" INT QUIT; exec "$@"'
"""Ctrl-C interrupts engines; it must not end the ssh that the interrupt travels through. What is ignored stays so
in the program that the shell becomes, and unlike a session of its own, this leaves ssh the terminal to ask on."""

_OPTIONS: Final = (
    "-T",  # no terminal there: bytes pass unchanged
    "-a",
    "-x",
    *("-o", "ControlMaster=no"),  # uses one that is there, and never becomes one
    *("-o", "ClearAllForwardings=yes"),  # a forward in the user's configuration may be taken by another ssh
    *("-o", f"ConnectTimeout={limits.SSH_CONNECT_TIMEOUT}"),
)
_DESTINATION = re.compile(r"((?:[^@:/\s]+@)?[A-Za-z0-9._-]+)(?::(.+))?", re.DOTALL)
_DENIED: Final = ("permission denied", "host key verification failed", "too many authentication failures")
_PATIENCE = 20.0
"""Seconds after which it is said what is waited for."""
_LAST_WORDS = 1.0
"""Seconds for the last line on standard error after standard output has ended."""


def split_destination(text: str, remote: str) -> tuple[str, str]:
    """What ssh calls the machine, and the command there: ``user@host`` or ``user@host:COMMAND``."""
    if not text or text.startswith("-") or any(c.isspace() for c in text.partition(":")[0]):
        raise ClientError(f"{text[:80]!r} is no destination for ssh: give it as 'user@host'")
    whole = text.startswith("ssh://") or is_address(text.rpartition("@")[2])
    found = None if whole else _DESTINATION.fullmatch(text)
    return (found[1], found[2] or remote) if found else (text, remote)


def ssh_command(environ: Mapping[str, str], options: Sequence[str], destination: str, command: str) -> list[str]:
    """What runs a command on another machine; ``IPMPI_SSH`` names another program than ssh, with options."""
    return [*shlex.split(environ.get("IPMPI_SSH") or "ssh"), *options, "--", destination, command]


def ssh_argv(destination: str, remote: str, environ: Mapping[str, str], *, quiet: bool) -> list[str]:
    """The command line of a session."""
    options = [*_OPTIONS, *(("-o", "BatchMode=yes") if quiet else ())]
    return ["/bin/sh", "-c", _SHIELD, "sh", *ssh_command(environ, options, destination, f"{remote} relay")]


class SshProcess:
    """ssh, while it logs in. Ends in one call of ``on_up(pipe, data)`` or ``on_failed``.

    After ``on_up``, the pipe is the caller's, and :meth:`end` is to be called when they have ended.

    Args:
        destination: what ssh calls the machine.
        remote: what runs ipcluster there, for a shell.
        quiet: ask nothing and show nothing.
    """

    def __init__(
        self,
        loop: Loop,
        destination: str,
        remote: str,
        on_up: Callable[[PipePair, bytes], None],
        on_failed: Callable[[KernelError], None],
        *,
        quiet: bool,
    ) -> None:
        self._loop = loop
        self._destination = destination
        self._remote = remote
        self._on_up = on_up
        self._on_failed = on_failed
        self._quiet = quiet
        self._greeting = GreetingReader()
        self._last_lines: list[str] = []
        self._over = False
        self._errors_over = False
        self._last_words: Timer | None = None
        argv = ssh_argv(destination, remote, os.environ, quiet=quiet)
        if shutil.which(argv[4]) is None:
            raise ConnectionError(
                f"there is no program {argv[4]!r} here: install OpenSSH's client, or name another one in the "
                "environment variable IPMPI_SSH"
            )
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._pipe = PipePair(os.dup(self._process.stdout.fileno()), os.dup(self._process.stdin.fileno()))
        self._process.stdin.close()
        self._process.stdout.close()
        self._errors = self._process.stderr
        os.set_blocking(self._errors.fileno(), False)
        self._timer = loop.call_later(_PATIENCE, self._still_waiting)
        loop.register(self._pipe, READ, self._read)
        loop.register(self._errors, READ, self._read_errors)

    @property
    def pid(self) -> int:
        """Of ssh."""
        return self._process.pid

    def cancel(self) -> None:
        """Give up; neither callback will be called."""
        if not self._over:
            self._over = True
            self._close_pipe()
            # Not killed: it may have switched off the terminal's echo to ask for a password.
            self._process.terminate()
            self.end()

    def end(self) -> None:
        """See to it that the process ends, and leaves nothing."""
        if self._last_words is not None:
            self._last_words.cancel()
        self._loop.unregister(self._errors)
        self._errors.close()
        for stop in (self._process.terminate, self._process.kill):
            try:
                self._process.wait(_LAST_WORDS)  # its input has ended, which is enough mostly
                return
            except subprocess.TimeoutExpired:
                stop()
        self._process.wait()

    def _still_waiting(self) -> None:
        self._say(f"ipmpi: waiting for `ssh {self._destination}` and `{self._remote} relay` there\n")
        self._timer = self._loop.call_later(limits.SSH_LOGIN_TIMEOUT - _PATIENCE, self._too_late)

    def _too_late(self) -> None:
        self._fail(
            ConnectionError(
                f"the login to {self._destination} was not over within {limits.SSH_LOGIN_TIMEOUT:.0f} s; see how "
                f"far `ssh {self._destination} {self._remote} --help` gets"
            )
        )

    def _say(self, text: str) -> None:
        if not self._quiet or self._over:
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.write(text)
                sys.stderr.flush()

    def _read(self, _events: int) -> None:
        try:
            rest = self._greeting.receive(self._pipe.receive())
        except PipeClosed:
            self._loop.unregister(self._pipe)
            if self._errors_over:
                self._explain()
            else:
                self._last_words = self._loop.call_later(_LAST_WORDS, self._explain)
            return
        except KernelError as error:
            kind = type(error) if isinstance(error, VersionError) else ConnectionError
            self._fail(kind(f"{self._destination}: {error}"))
            return
        if rest is not None:
            self._over = True
            self._timer.cancel()
            self._loop.unregister(self._pipe)
            self._on_up(self._pipe, rest)

    def _read_errors(self, _events: int) -> None:
        try:
            data = os.read(self._errors.fileno(), 65536)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._loop.unregister(self._errors)
            self._errors_over = True
            if self._last_words is not None:
                self._explain()
            return
        text = printable_lines(data.decode("utf-8", "replace"))
        self._last_lines = [*self._last_lines, *text.splitlines()][-20:]
        self._say(text)

    def _explain(self) -> None:
        """It ended before the far end spoke: why, and what to do."""
        if self._over:
            return
        try:
            code = self._process.wait(_LAST_WORDS)
        except subprocess.TimeoutExpired:
            code = 0
        self._fail(explain(code, self._destination, self._remote, self._words(), quiet=self._quiet))

    def _words(self) -> str:
        said = [line.strip() for line in self._last_lines if line.strip()]
        if not said:
            printed = bytes(self._greeting.skipped).decode("utf-8", "replace").splitlines()
            said = [line.strip() for line in printed if line.strip()]
        return printable(said[-1]) if said else ""

    def _fail(self, error: KernelError) -> None:
        if not self._over:
            self._over = True
            self._close_pipe()
            self.end()
            self._on_failed(error)

    def _close_pipe(self) -> None:
        self._timer.cancel()
        self._loop.unregister(self._pipe)
        self._pipe.close()


def explain(code: int, destination: str, remote: str, words: str, *, quiet: bool = False) -> KernelError:
    """The error for an ssh that ended with ``code`` before the far end spoke; ``words`` is its last line."""
    said = f" ({words})" if words else ""
    if code == 255:
        if any(sign in words.lower() for sign in _DENIED):
            if quiet:
                return SecurityError(
                    f"ssh cannot log in to {destination} again without asking you{said}: make a new client, which "
                    "may ask"
                )
            return SecurityError(
                f"ssh cannot log in to {destination}{said}. Try `ssh {destination} true` in a terminal until it "
                "works without a question (ssh-add, ~/.ssh/config), then try again"
            )
        return ConnectionError(f"ssh does not reach {destination}{said}; `ssh {destination} true` must work first")
    if code in (126, 127):
        return ConnectionError(
            f"there is no {remote!r} on {destination}{said}: install ipmpi there (`pip install ipmpi`), or say "
            f"where it is, as in ssh='{destination}:/path/to/ipcluster', or ssh='{destination}:module load python "
            "&& ipcluster'"
        )
    if code == 2:
        return VersionError(
            f"`{remote} relay` does not work on {destination}{said}: the ipmpi there is another version; upgrade "
            "it to the one here"
        )
    return ConnectionError(
        f"`{remote} relay` on {destination} ended with exit code {code} before it said anything{said}"
    )
