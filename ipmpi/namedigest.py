"""Short stand-ins for long names, without OpenSSL.

Python's :mod:`hashlib` loads the library of OpenSSL. A thousand ranks would read several megabytes from a shared
file system to give one name to their launch.
"""

from __future__ import annotations

from typing import Final

_START: Final = 0x6C62272E07BB014262B821756295C58D
_PRIME: Final = 0x0000000001000000000000000000013B
_BITS: Final = (1 << 128) - 1


def digest_of(text: str) -> str:
    """Return 32 hexadecimal digits that other texts do not get by chance; nothing that an adversary cannot forge.

    FNV-1a of 128 bits: G. Fowler, L. C. Noll, K.-P. Vo, D. Eastlake, T. Hansen, The FNV Non-Cryptographic Hash
    Algorithm, IETF.
    """
    digest = _START
    for byte in text.encode(errors="surrogateescape"):
        digest = ((digest ^ byte) * _PRIME) & _BITS
    return f"{digest:032x}"
