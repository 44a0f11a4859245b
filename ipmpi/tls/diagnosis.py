"""What went wrong with a TLS link, in words."""

from __future__ import annotations

from cryptography import x509
from OpenSSL import SSL

from ..errors import ConnectionError, RemoteProtocolError, SecurityError


class TlsError(RemoteProtocolError):
    """What arrived is not TLS 1.3 between two ends of ipmpi. Send what ``ciphertext_to_send`` has, then close."""


class TlsClosed(ConnectionError):
    """The peer ended the link on purpose (close_notify): nothing was cut off."""


def check_dates(certificate: x509.Certificate, now: float, where: str) -> None:
    """Raise SecurityError if the certificate is not valid ``now`` (seconds since the epoch)."""
    try:
        begin, end = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    except ValueError:
        raise SecurityError(f"the certificate of the controller at {where} has no readable dates") from None
    if now > end:
        raise SecurityError(
            f"the certificate of the controller at {where} has expired: delete its .pem file in the security "
            "folder there, start the controller again and copy the new furl files"
        )
    if now < begin:
        raise SecurityError(
            f"the certificate of the controller at {where} is not valid yet: is the clock of this machine, or "
            "of the controller's, wrong?"
        )


def reasons_of(error: SSL.Error) -> str:
    """OpenSSL's own words."""
    entries = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return "; ".join(str(entry[-1]) for entry in entries) or str(error)


def not_tls(first: bytes) -> str | None:
    """What a peer speaks whose first bytes are no TLS record, or None if they may be one."""
    if not first or (first[0] in (20, 21, 22, 23) and first[1:2] in (b"", b"\x03")):
        return None
    if first.startswith((b"GET ", b"HEAD ", b"POST ", b"PUT ", b"OPTIONS ", b"CONNECT ", b"HTTP/", b"PRI * ")):
        return "the other end speaks plain HTTP, not TLS: this is no link of ipmpi; check host and port"
    if first.startswith(b"SSH-"):
        return "the other end speaks SSH, not TLS: this is no link of ipmpi; check host and port"
    return f"the other end does not speak TLS (its first bytes: {first!r}): check host and port"


def sentence_for(reasons: str) -> str:
    """What OpenSSL's reasons mean for a link of ipmpi."""
    if any(sign in reasons for sign in ("unsupported protocol", "protocol version", "wrong version", "wrong ssl")):
        return (
            "the other end does not offer TLS 1.3, only an older version or something else: it is no ipmpi, "
            f"or something between the two ends rewrites TLS ({reasons})"
        )
    if "no shared cipher" in reasons or "handshake failure" in reasons:
        return f"the other end offers no cipher suite that ipmpi accepts: it is no ipmpi ({reasons})"
    return f"the TLS link broke: what arrived was changed on the way, or is not from ipmpi ({reasons})"
