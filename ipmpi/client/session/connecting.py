"""Opens sessions from the arguments of a client: furl, file, login node, proxy."""

from __future__ import annotations

import os
import weakref

from ... import furl, limits
from ...errors import ClientError
from ...transport.dial.proxies import routes_by
from ...transport.ssh.ssh import SshSession, shared_session
from . import given
from .notices import say
from .session import Session


def connect(
    furl_or_file: str | os.PathLike[str] = "",
    role: str = "mec",
    *,
    name: str = "",
    ssh: str | SshSession | None = None,
    proxy: str | None = None,
) -> Session:
    """Return an open session with a controller.

    Args:
        furl_or_file: the furl or its file; None for the default file of ``role``.
        role: the role that the furl must have.
        name: name of a cluster (with ``ssh``, on that host) instead of a furl.
        ssh: the login node to connect through; without a furl, its default file is used.
        proxy: an HTTP proxy, 'none', or None for that of the environment if a direct connection fails.

    Raises:
        TypeError: an argument is of another type.
        FurlError, SecurityError, ConnectionError, VersionError: the message says what to do.
    """
    named = furl.named(furl_or_file)
    if name is not None:  # some pass "" for no name
        given.text(name, "name=, the name of a cluster,", limits.LINE)
    if ssh is not None and not isinstance(ssh, SshSession):
        ssh = given.text(ssh, "ssh=, the login node,", limits.LINE)
    if proxy is not None:
        given.text(proxy, "proxy=, the HTTP proxy,", limits.LINE)
    if ssh is None:
        routes = routes_by(proxy, os.environ, say)
        session = Session(furl.load_furl_or_file(named, role, name), routes)
    elif proxy:
        raise ClientError(
            "ssh= and proxy= exclude each other: to use ssh through a proxy, set ProxyCommand in ~/.ssh/config"
        )
    else:
        login = shared_session(ssh) if isinstance(ssh, str) else ssh
        if named.strip():
            address = furl.load_furl_or_file(named, role, name)
            login.open()
        else:
            address = login.furl(role, name)
        session = Session(address, [login.route])
    session.open()
    return session


def close_when_unreferenced(owner: object, session: Session) -> None:
    """Close a session when ``owner`` is no longer referenced and its calls have ended."""
    weakref.finalize(owner, session.release).atexit = False  # all sessions are closed together then
