"""The controller's certificate and its private key."""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from OpenSSL import SSL

from ..errors import SecurityError
from ..furl import read_private, write_private
from .context import CIPHER_SUITES, base_context

CERTIFICATE_DAYS: Final = 3650
BACKDATED: Final = datetime.timedelta(days=1)
"""A laptop's clock may be behind the controller's; the certificate is valid from a day before it was made."""


@dataclass(frozen=True, repr=False)
class Identity:
    """A controller's certificate (DER) and the private key that belongs to it."""

    certificate_der: bytes
    private_key: ec.EllipticCurvePrivateKey
    suites: bytes = CIPHER_SUITES
    """The cipher suites that its listener accepts."""

    @classmethod
    def create(cls, now: float, suites: bytes = CIPHER_SUITES) -> Identity:
        """A new self-signed P-256 certificate, valid for ten years from ``now`` (seconds since the epoch)."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ipmpi")])
        start = datetime.datetime.fromtimestamp(now, datetime.timezone.utc)
        builder = x509.CertificateBuilder(
            issuer_name=name,
            subject_name=name,
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=start - BACKDATED,
            not_valid_after=start + datetime.timedelta(days=CERTIFICATE_DAYS),
        )
        return cls(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER), key, suites)

    @classmethod
    def from_pem(cls, data: bytes) -> Identity:
        """The identity that :meth:`to_pem` wrote; raises SecurityError if this is not one."""
        try:
            certificate = x509.load_pem_x509_certificate(data)
            key = load_pem_private_key(data, password=None)
            matches = key.public_key() == certificate.public_key()
        except (ValueError, TypeError, x509.InvalidVersion, UnsupportedAlgorithm):
            raise SecurityError("there is no readable certificate with its private key in it") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not matches:
            raise SecurityError("the certificate and the private key in it do not belong together")
        return cls(certificate.public_bytes(Encoding.DER), key)

    def to_pem(self) -> bytes:
        """Private key and certificate as text, the key without a password: keep it in a private file."""
        key = self.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return key + x509.load_der_x509_certificate(self.certificate_der).public_bytes(Encoding.PEM)

    @cached_property
    def fingerprint(self) -> bytes:
        """SHA-256 of the certificate, 32 bytes: what furls carry."""
        return hashlib.sha256(self.certificate_der).digest()

    @cached_property
    def master(self) -> bytes:
        """A secret, 32 bytes, that only who has the private key can know, and that does not betray the key."""
        key = self.private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        return hashlib.sha256(b"ipmpi master secret" + key).digest()

    @cached_property
    def context(self) -> SSL.Context:
        """Settings of a listener that shows this certificate."""
        context = base_context(SSL.TLS_SERVER_METHOD, self.suites)
        context.use_certificate(x509.load_der_x509_certificate(self.certificate_der))
        context.use_privatekey(self.private_key)
        return context

    def check(self) -> None:
        """Raise SecurityError, if no listener can be secure with the OpenSSL that is here."""
        _ = self.context

    def __repr__(self) -> str:
        return f"<Identity {self.fingerprint.hex()[:16]}..., private key not shown>"


def load_or_create_identity(path: Path, now: float) -> Identity:
    """The identity in the file ``path``; a new one is made and written if there is none.

    Raises:
        SecurityError: the file cannot be trusted or understood; deleting it makes a new controller.
        FurlError: the file cannot be read or written.
    """
    try:
        data = read_private(path)
    except FileNotFoundError:
        identity = Identity.create(now)
        write_private(path, identity.to_pem())
        return identity
    try:
        return Identity.from_pem(data)
    except SecurityError as error:
        raise SecurityError(
            f"{path}: {error}. Delete the file to get a new certificate; every furl file must then be copied again"
        ) from None
