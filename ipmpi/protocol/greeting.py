"""How the far end of an ssh session begins: with one line, whatever the login has printed before (sans-IO)."""

from __future__ import annotations

import re

from .. import limits
from ..errors import RemoteProtocolError, VersionError
from .frames import Buffer
from .handshake import printable

VERSION = 2
_GREETING = re.compile(rb"\nipmpi-relay (\d{1,6}) ([^\n]{0,200})\n")


def greeting(software: str) -> bytes:
    """The far end's first bytes; a line of its own, whatever was printed before."""
    return f"\nipmpi-relay {VERSION} {printable(software, 100)}\n".encode("ascii", "replace")


class GreetingReader:
    """Skips what a login prints, up to the greeting.

    Attributes:
        skipped: what came so far, for messages.
    """

    def __init__(self) -> None:
        self.skipped = bytearray(b"\n")

    def receive(self, data: Buffer) -> bytes | None:
        """The bytes after the greeting, or None while it has not come.

        Raises:
            VersionError: the far end speaks another version.
            RemoteProtocolError: there is no end of what it prints.
        """
        self.skipped += data
        found = _GREETING.search(self.skipped)
        if found is None:
            if len(self.skipped) > limits.SSH_BANNER:
                raise RemoteProtocolError("it prints more than any greeting has, and ipmpi does not answer")
            return None
        version = int(found[1])
        if version != VERSION:
            other = printable(found[2].decode("ascii", "replace").strip())
            raise VersionError(
                f"its {other} speaks version {version} of the relay protocol, this ipmpi version {VERSION}: "
                f"upgrade {'the one there' if version < VERSION else 'this one'}"
            )
        rest = bytes(self.skipped[found.end() :])
        del self.skipped[found.start() + 1 :]
        return rest
