"""The names of secrets: who connects says by one which furl it has, before it proves that."""

from __future__ import annotations

import hashlib
from typing import Final

KEY_BYTES: Final = 16
_LABEL: Final = b"ipmpi furl"


def key_of(secret: bytes) -> bytes:
    """Return the name of a furl's secret, 16 bytes, from which the secret cannot be found."""
    return hashlib.sha256(_LABEL + secret).digest()[:KEY_BYTES]
