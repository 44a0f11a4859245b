"""From what a user gives to an open session: furls, files, login nodes, proxies."""

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
    """A session with the controller of a furl, a furl file, a cluster, or the default file of ``role``.

    Args:
        furl_or_file: the furl, or the file.
        role: what the furl must be for.
        name: a cluster, with ``ssh`` one that is there; instead of a furl.
        ssh: the login node to go through; without a furl, the default file *there* is meant.
        proxy: an HTTP proxy, 'none', or None for what the environment says, after the direct way.

    Raises:
        TypeError: an argument is of another type.
        FurlError, SecurityError, ConnectionError, VersionError: what is wrong, and what to do.
    """
    named = furl.named(furl_or_file)
    if name is not None:  # as some say it who mean none
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
            "ssh= and proxy= together: ssh has a way of its own through a proxy, ProxyCommand in ~/.ssh/config"
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
    """Close a session when ``owner`` is no longer referenced and what is under way has ended."""
    weakref.finalize(owner, session.release).atexit = False  # then all sessions are closed at once
