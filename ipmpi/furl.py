"""Furls: who the controller is, where it may be reached, and the secret that opens one role.

``ipmpi://<certificate hash>@host:port[,host:port...]/<role>/<secret>`` in one line of text, and the files
that hold such lines. A furl is worth as much as an SSH private key: its files are made with mode 0600 in the
same call that creates them, and a file that somebody else could read or plant is refused on load. The two
functions that do this, :func:`write_private` and :func:`read_private`, also serve the controller's certificate.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import os
import re
import secrets
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from .errors import FurlError, SecurityError
from .folders import (
    CLUSTER_NAME as CLUSTER_NAME,
    FILES as FILES,
    NAME_RULE as NAME_RULE,
    cluster_furl_file as cluster_furl_file,
    default_furl_file as default_furl_file,
    ipython_dir as ipython_dir,
    security_dir as security_dir,
)

GRANTS: Final = "ipcontroller-grants.json"
"""The file beside them with the furls that were given out, without their secrets."""

_HOLDERS: Final[Mapping[str, str]] = {
    "engine": "engines (ipengine)",
    "mec": "MultiEngineClient",
    "tc": "TaskClient",
    "monitor": "observers, which may read and change nothing",
}

SECRET_BYTES: Final = 32
FINGERPRINT_BYTES: Final = 32
FILE_BYTES: Final = 8 * 1024
"""The largest furl or certificate file read: a furl of 16 hosts has 5 KiB, certificate and key have 1 KiB."""
HINTS: Final = 16
"""Addresses in one furl: one per network card of a login node, and a few for tunnels."""

_SCHEME: Final = "ipmpi://"
_KEY_CHARACTERS: Final = 52
_ROLE: Final = re.compile(r"[a-z0-9-]{1,32}", re.ASCII)
_KEY: Final = re.compile(r"[a-z2-7]*", re.ASCII)
_HOST: Final = re.compile(r"[A-Za-z0-9._-]{1,253}", re.ASCII)
_IPV6: Final = re.compile(r"(?=[^%]*:)[0-9A-Fa-f:.]{2,45}(%[A-Za-z0-9._-]{1,32})?", re.ASCII)
_PORT: Final = re.compile(r"[0-9]{1,5}", re.ASCII)
_COPY: Final = "copy the whole line of the furl file"


@dataclass(frozen=True, repr=False)
class Furl:
    """A capability: the controller's certificate hash, its addresses, one role, and that role's secret.

    ``str()`` gives the text form, which contains the secret; ``repr()`` does not, so use that in logs.

    Attributes:
        fingerprint: SHA-256 of the controller's certificate (DER), 32 bytes.
        hints: ``(host, port)`` pairs, to be tried in this order.
        role: 'engine', 'mec', 'tc', 'monitor' or the name of a custom interface (a-z, 0-9, '-').
        secret: 32 random bytes.

    Raises:
        FurlError: a field that has no text form.
    """

    fingerprint: bytes
    hints: tuple[tuple[str, int], ...]
    role: str
    secret: bytes

    def __post_init__(self) -> None:
        if len(self.fingerprint) != FINGERPRINT_BYTES or len(self.secret) != SECRET_BYTES:
            raise FurlError("a furl needs a certificate hash and a secret of 32 bytes each")
        if not _ROLE.fullmatch(self.role):
            raise FurlError(f"{self.role!r} cannot be a role: use 1 to 32 of a-z, 0-9 and '-'")
        if not 1 <= len(self.hints) <= HINTS:
            raise FurlError(f"a furl needs 1 to {HINTS} addresses, not {len(self.hints)}")
        for host, port in self.hints:
            if not (_HOST.fullmatch(host) or _IPV6.fullmatch(host)):
                raise FurlError(f"{host[:80]!r} is not a host name or address")
            if not 1 <= port <= 65535:
                raise FurlError(f"port {port} of {host} is not between 1 and 65535")

    @classmethod
    def create(cls, fingerprint: bytes, hints: tuple[tuple[str, int], ...], role: str) -> Furl:
        """A furl with a new random secret."""
        return cls(fingerprint, hints, role, secrets.token_bytes(SECRET_BYTES))

    @classmethod
    def parse(cls, text: str) -> Furl:
        """The furl written in ``text``; blanks around it are ignored.

        Raises:
            FurlError: says which part is missing or wrong, and never shows the secret.
        """
        text = text.strip()
        rest = _after_scheme(text)
        key, at, rest = rest.partition("@")
        if not at:
            raise FurlError(f"this furl ends inside the certificate hash, before '@': {_COPY}")
        fingerprint = _decode_key(key, "certificate hash")
        places, slash, rest = rest.partition("/")
        if not slash:
            raise FurlError(f"this furl ends after the addresses, before '/ROLE/SECRET': {_COPY}")
        hints = tuple(_parse_hint(place) for place in places.split(","))
        role, slash, secret = rest.partition("/")
        if not slash or not secret:
            raise FurlError(f"this furl ends after the role, before the secret: {_COPY}")
        if not _ROLE.fullmatch(role):
            raise FurlError(f"the role of this furl, {role[:40]!r}, is not made of a-z, 0-9 and '-': {_COPY}")
        return cls(fingerprint, hints, role, _decode_key(secret, "secret"))

    def __str__(self) -> str:
        return f"{_SCHEME}{_encode_key(self.fingerprint)}@{self.places}/{self.role}/{_encode_key(self.secret)}"

    def __repr__(self) -> str:
        return f"<Furl {self.role} of {_encode_key(self.fingerprint)[:8]}... at {self.places}, secret not shown>"

    @property
    def places(self) -> str:
        """The addresses as text, for messages: ``host:port[,host:port...]``."""
        return ",".join(place(host, port) for host, port in self.hints)


def place(host: str, port: int) -> str:
    """``host:port``; an IPv6 address in brackets, as in URLs."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _after_scheme(text: str) -> str:
    if not text:
        raise FurlError(f"the furl is empty: {_COPY}, which starts with {_SCHEME}")
    if text.startswith(("pb://", "pbu://")):
        raise FurlError(
            "this is a furl of the old IPython.kernel (pb://), which ipmpi cannot speak to: start a controller "
            f"of ipmpi with `ipcontroller` and use its furl, which starts with {_SCHEME}"
        )
    if _SCHEME.startswith(text):
        raise FurlError(f"this furl ends inside '{_SCHEME}': {_COPY}")
    if not text.startswith(_SCHEME):
        raise FurlError(f"a furl starts with {_SCHEME}, this text does not: {_COPY}")
    if len(text) > FILE_BYTES:
        raise FurlError(f"a text of {len(text)} characters is no furl: {_COPY}, and only that")
    if any(character.isspace() for character in text):
        raise FurlError(f"there is a blank or a line break inside this furl: {_COPY} as one unbroken line")
    return text[len(_SCHEME) :]


def _encode_key(key: bytes) -> str:
    return base64.b32encode(key).decode("ascii").rstrip("=").lower()


def _decode_key(text: str, part: str) -> bytes:
    if not _KEY.fullmatch(text):
        raise FurlError(f"the {part} of this furl has characters other than a-z and 2-7: {_COPY}")
    if len(text) != _KEY_CHARACTERS:
        wrong = "is cut off" if len(text) < _KEY_CHARACTERS else "has something added to it"
        raise FurlError(f"the {part} of this furl {wrong} ({len(text)} of {_KEY_CHARACTERS} characters): {_COPY}")
    key = base64.b32decode(text.upper() + "====")
    if _encode_key(key) != text:
        raise FurlError(f"the last character of the {part} of this furl is wrong: {_COPY}")
    return key


def _parse_hint(place: str) -> tuple[str, int]:
    host, colon, port = place.rpartition(":")
    if not colon or "]" in port:
        raise FurlError(f"the address {place[:80]!r} in this furl has no port: {_COPY}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if not _IPV6.fullmatch(host):
            raise FurlError(f"{host[:80]!r} in this furl is not an IPv6 address: {_COPY}")
    elif ":" in host:
        raise FurlError(f"the IPv6 address in {place[:80]!r} needs brackets, as in [::1]:10105")
    elif not _HOST.fullmatch(host):
        raise FurlError(f"{host[:80]!r} in this furl is not a host name or address: {_COPY}")
    if not _PORT.fullmatch(port) or not 1 <= int(port) <= 65535:
        raise FurlError(f"the port {port[:20]!r} of {host} in this furl is not between 1 and 65535: {_COPY}")
    return host, int(port)


# --- where furl files are ------------------------------------------------------------------------------


def save(path: Path, furl: Furl) -> None:
    """Write a furl file that only its owner can read; see :func:`write_private`."""
    write_private(path, f"{furl}\n".encode("ascii"))


def load(path: Path, expected_role: str | None = None) -> Furl:
    """The furl in a file.

    Raises:
        FurlError: no such file, no furl in it, or one of another role; the sentence says what to do.
        SecurityError: somebody else can read or could have planted the file.
    """
    try:
        data = read_private(path)
    except FileNotFoundError:
        raise FurlError(
            f"no furl file {path}: is a controller running? start one with `ipcluster -n 4`, or copy the file "
            "here from the machine where the controller runs"
        ) from None
    try:
        furl = Furl.parse(data.decode("ascii"))
    except UnicodeDecodeError:
        raise FurlError(f"{path} is not a furl file: it contains bytes that are not plain text") from None
    except FurlError as error:
        raise FurlError(f"{path}: {error}") from None
    if expected_role is not None:
        _check_role(furl, expected_role, str(path))
    return furl


def named(furl_or_file: str | os.PathLike[str]) -> str:
    """What a user named as a furl or a file with one, as text.

    Raises:
        TypeError: it is nothing that could be one.
        FurlError: it has characters that no furl and no file name has.
    """
    text = os.fspath(furl_or_file) if isinstance(furl_or_file, os.PathLike) else furl_or_file
    if not isinstance(text, str):
        raise TypeError(f"a furl or a file with one is a str or a path, not {furl_or_file!r}")
    try:
        usable = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        usable = False
    if not usable or len(text) > FILE_BYTES:
        raise FurlError(f"{text[:80]!r} is neither a furl nor the name of a file")
    return text


def load_furl_or_file(text_or_path: str | os.PathLike[str], role: str, name: str = "") -> Furl:
    """The furl that a user named: its text, a file, a cluster, or '' for the default file of ``role``.

    Args:
        text_or_path: the text or the file.
        role: what it has to be for.
        name: of a cluster that `ipcluster list` shows; instead of a text or file.

    Raises:
        TypeError: it is neither.
        FurlError, SecurityError: as :func:`load`.
    """
    given = named(text_or_path).strip()
    if name and given:
        raise FurlError(f"a furl and the name {name!r} of a cluster were given: one of them is enough")
    if name:
        path = cluster_furl_file(role, name)
        if not path.parent.exists():
            raise FurlError(
                f"there is no cluster {name!r} here (no folder {path.parent}): `ipcluster list` shows those that "
                "run"
            )
        return load(path, role)
    if not given:
        return load(default_furl_file(role), role)
    if "://" in given:
        furl = Furl.parse(given)
        _check_role(furl, role, "the furl given")
        return furl
    try:
        path = Path(given).expanduser()
    except RuntimeError as error:  # ~somebody, whom this machine does not know
        raise FurlError(f"no furl file {given[:80]!r}: {error}") from None
    return load(path, role)


def _check_role(furl: Furl, expected: str, source: str) -> None:
    if furl.role == expected:
        return
    holder = _HOLDERS.get(furl.role, f"the interface '{furl.role}'")
    wanted = _HOLDERS.get(expected, f"the interface '{expected}'")
    raise FurlError(
        f"{source} holds a furl for {holder}; what is needed here is the one for {wanted}: "
        f"use {FILES.get(expected, f'ipcontroller-{expected}.furl')} of the same controller"
    )


# --- secrets at rest ------------------------------------------------------------------------------------


def write_private(path: Path, data: bytes) -> None:
    """Replace ``path`` in one step by a file that only its owner can read or write.

    The folder is created with mode 0700; an existing ``security`` folder of ours, and those of clusters in it, are
    tightened to that, any other is left alone but refused if others could exchange files in it. No name is ever
    followed through a link, and the file has mode 0600 from the call that creates it.

    Raises:
        SecurityError: the folder, or what is at ``path`` already, cannot be trusted.
        FurlError: the file cannot be written; the sentence has the reason of the operating system.
    """
    try:
        folder = _open_folder(path.parent)
        try:
            _replace(folder, path, data)
        finally:
            os.close(folder)
    except OSError as error:
        raise FurlError(f"cannot write {path}: {error.strerror or error}") from error


def create_private(path: Path) -> None:
    """Make an empty file that only its owner can read or write, unless there is one; as :func:`write_private`.

    Of several processes that do this at once, one makes the file, and all have the same one.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        folder = _open_folder(path.parent)
        try:
            with contextlib.suppress(FileExistsError):
                descriptor = os.open(path.name, flags, 0o600, dir_fd=folder)
                try:
                    os.fchmod(descriptor, 0o600)
                finally:
                    os.close(descriptor)
                _sync_folder(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise FurlError(f"cannot write {path}: {error.strerror or error}") from error


def _open_folder(folder: Path) -> int:
    if folder.parent == security_dir():
        os.close(_open_folder(folder.parent))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        # Linux answers ENOTDIR, other systems ELOOP, for a link where a folder must be.
        if error.errno in (errno.ELOOP, errno.ENOTDIR) and folder.is_symlink():
            raise SecurityError(
                f"the folder {folder} is a symbolic link: give the path that it points to"
            ) from None
        raise
    try:
        _check_folder(descriptor, folder)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_folder(descriptor: int, folder: Path) -> None:
    status = os.fstat(descriptor)
    # Only folders that are ours by name: tightening whatever the user named could lock others out of /tmp.
    ours = folder.name == "security" or folder.parent == security_dir()
    if ours and status.st_uid == os.geteuid() and status.st_mode & 0o077:
        os.fchmod(descriptor, 0o700)
        return
    # In a sticky folder (/tmp) others can add names but not replace ours.
    if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
        raise SecurityError(
            f"others can exchange files in the folder {folder}: run `chmod go-w {folder}`, or use another folder"
        )


def _replace(folder: int, path: Path, data: bytes) -> None:
    try:
        present = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        pass
    else:
        if not stat.S_ISREG(present.st_mode):
            raise SecurityError(f"{path} is {_kind(present.st_mode)}, not a file: remove it and try again")
    temporary = f".{path.name}.{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600, dir_fd=folder)
    try:
        try:
            os.fchmod(descriptor, 0o600)  # gives back what an umask like 0o277 took away; never widens
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        os.unlink(temporary, dir_fd=folder)
        raise
    _sync_folder(folder)


def _sync_folder(folder: int) -> None:
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot sync folders
            raise


def read_private(path: Path, limit: int = FILE_BYTES) -> bytes:
    """The contents of a file that nobody but this user can have read or written.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        SecurityError: a link, not a regular file, somebody else's, or readable by others.
        FurlError: larger than ``limit`` bytes, or the operating system refuses.
    """
    # O_NONBLOCK: opening a FIFO that somebody put there must not wait for a writer.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise
    except OSError as error:
        _explain_open(path, error)
    try:
        _check_file(os.fstat(descriptor), path, limit)
        data = b""
        while len(data) <= limit and (piece := os.read(descriptor, limit + 1 - len(data))):
            data += piece
    except OSError as error:
        raise FurlError(f"cannot read {path}: {error.strerror or error}") from error
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise FurlError(f"{path} is larger than {limit} bytes: it is not a file of ipmpi")
    return data


def check_private(path: Path) -> None:
    """Raise SecurityError or FurlError unless ``path`` is a file that nobody but this user can read or write."""
    _check_file(os.stat(path, follow_symlinks=False), path, sys.maxsize)


def _explain_open(path: Path, error: OSError) -> NoReturn:
    if error.errno == errno.ELOOP:
        raise SecurityError(
            f"{path} is a symbolic link, which is not followed: give the path it points to"
        ) from None
    raise FurlError(f"cannot read {path}: {error.strerror or error}") from error


def _check_file(status: os.stat_result, path: Path, limit: int) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise FurlError(f"{path} is a folder: name the file in it, as in {path / FILES['mec']}")
    if not stat.S_ISREG(status.st_mode):
        raise SecurityError(f"{path} is {_kind(status.st_mode)}, not a file: remove it, and copy the file again")
    if status.st_uid != os.geteuid():
        raise SecurityError(
            f"{path} belongs to user {status.st_uid}, you are user {os.geteuid()}: copy it to a file of your own"
        )
    if status.st_nlink != 1:
        raise SecurityError(
            f"{path} has {status.st_nlink} names (hard links), and may have been put there by somebody else: "
            "delete it, and copy the file again"
        )
    # Entries of an access control list show here too: their mask takes the place of the group's bits.
    if status.st_mode & 0o077:
        raise SecurityError(
            f"others may read or change {path} (mode {stat.S_IMODE(status.st_mode):04o}): run `chmod 600 {path}`. "
            "If somebody may have read it, stop the controller and start a new one with new furls"
        )
    if status.st_size > limit:
        raise FurlError(f"{path} has {status.st_size} bytes, more than {limit}: it is not a file of ipmpi")


def _kind(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    if stat.S_ISFIFO(mode):
        return "a FIFO"
    return "a folder" if stat.S_ISDIR(mode) else "a device or socket"
