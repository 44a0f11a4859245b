"""The base of all that may be said on a link."""

from __future__ import annotations

import msgspec


class Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """Base of all messages: compact arrays on the wire, tagged with a short number."""
