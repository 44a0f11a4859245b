"""Which HTTP proxy to go through: what the user says, or what the environment says.

A proxy's password comes from ``~/.netrc`` or from where the user has put it, and goes to the proxy only.
"""

from __future__ import annotations

import ipaddress
import netrc
import os
import re
from collections.abc import Callable, Mapping
from urllib.parse import SplitResult, unquote, urlsplit

from ...errors import ClientError
from .routes import DIRECT, ProxyRoute, Route

_VARIABLES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
_DEFAULT_PORT = 3128
_NONE = "none"
_HOST = re.compile(r"[^\s\x00-\x1f\ud800-\udfff]{1,253}")
_EXAMPLE = "give it as http://HOST:PORT, or 'none'"


def routes_by(proxy: str | None, environ: Mapping[str, str], warn: Callable[[str], None]) -> list[Route]:
    """The routes to try, best first.

    Args:
        proxy: URL of an HTTP proxy that is used for all; ``'none'`` for none; None for what the environment says,
            after the direct way.
        environ: environment variables.
        warn: called with a sentence about a variable that is not understood.

    Raises:
        ClientError: the URL is not one of an HTTP proxy.
    """
    if proxy == _NONE:
        return [DIRECT]
    if proxy:
        return [proxy_route(proxy, environ)]
    name = next((name for name in _VARIABLES if environ.get(name)), "")
    if not name or environ[name].startswith("socks"):
        return [DIRECT]
    try:
        return [DIRECT, proxy_route(environ[name], environ, exceptions(environ))]
    except ClientError as error:
        warn(f"the variable {name} is left out of account: {error}")
        return [DIRECT]


def proxy_route(
    url: str, environ: Mapping[str, str], serves: Callable[[str], bool] = lambda host: True
) -> ProxyRoute:
    """The route through the proxy of a URL."""
    parts = _split(url)
    user = ""
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    assert parts.hostname is not None
    return ProxyRoute(
        (parts.hostname, parts.port or _DEFAULT_PORT), user or _user_in_netrc(parts.hostname, environ), serves
    )


def exceptions(environ: Mapping[str, str]) -> Callable[[str], bool]:
    """Whether a host is to be reached by the proxy, as the variable ``no_proxy`` says; this machine never is.

    Entries are names with all names below them, addresses, and networks (``10.0.0.0/8``); ``*`` is everything.
    """
    text = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    entries = [entry.strip().lower() for entry in text.replace(" ", ",").split(",") if entry.strip()]

    def serves(host: str) -> bool:
        address = _address(host)
        if host.lower() == "localhost" or (address is not None and address.is_loopback):
            return False
        return not any(_matches(entry, host.lower(), address) for entry in entries)

    return serves


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _matches(entry: str, host: str, address: _Address | None) -> bool:
    if entry == "*":
        return True
    if address is None:
        name = entry.removeprefix("*").lstrip(".")
        return bool(name) and (host == name or host.endswith(f".{name}"))
    try:
        return address in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        return False


def _address(host: str) -> _Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        usable = _HOST.fullmatch(parts.hostname or "") is not None and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    # A URL may hold a password, so no message shows it.
    if not usable:
        raise ClientError(f"this is not the URL of a proxy: {_EXAMPLE}")
    if parts.scheme != "http":
        raise ClientError(f"ipmpi speaks to HTTP proxies, not to {parts.scheme!r} ones: {_EXAMPLE}")
    return parts


def _user_in_netrc(host: str, environ: Mapping[str, str]) -> str:
    path = environ.get("NETRC") or os.path.expanduser("~/.netrc")
    try:
        # Not authenticators(): an entry "default" is meant for hosts of other kinds.
        found = netrc.netrc(path).hosts.get(host)
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
        return ""
    return f"{found[0]}:{found[2]}" if found else ""
