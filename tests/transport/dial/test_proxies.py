"""Which way is tried: by argument, by environment, by ~/.netrc."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipmpi.errors import ClientError
from ipmpi.transport.dial.proxies import exceptions, proxy_route, routes_by
from ipmpi.transport.dial.routes import DIRECT, ProxyRoute, Route

URL = "http://proxy.site.org:3128"


def routes(proxy: str | None, **environ: str) -> list[Route]:
    said: list[str] = []
    found = routes_by(proxy, {"NETRC": "/nonexistent", **environ}, said.append)
    assert not said
    return found


def names(found: list[Route]) -> list[str]:
    return [route.via for route in found]


def test_without_a_word_the_way_is_direct() -> None:
    assert routes(None) == [DIRECT]


@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
def test_a_proxy_of_the_environment_comes_after_the_direct_way(variable: str) -> None:
    assert names(routes(None, **{variable: URL})) == ["", "through the proxy proxy.site.org:3128"]


def test_a_proxy_that_is_named_is_the_only_way() -> None:
    assert names(routes("http://other:8080", https_proxy=URL)) == ["through the proxy other:8080"]
    assert names(routes("other", https_proxy=URL)) == ["through the proxy other:3128"]


def test_none_switches_off() -> None:
    assert routes("none", https_proxy=URL) == [DIRECT]


def test_socks_in_the_environment_is_not_for_us() -> None:
    assert routes(None, all_proxy="socks5://proxy:1080") == [DIRECT]


@pytest.mark.parametrize("url", ["socks5://p:1080", "https://p:443"])
def test_other_kinds_of_proxy_are_refused(url: str) -> None:
    with pytest.raises(ClientError, match=r"speaks to HTTP proxies.*give it as http://HOST:PORT"):
        routes(url)


@pytest.mark.parametrize("url", ["http://", "http://p:99999", "http://[::1", "http://ann:s3cret@:1"])
def test_rubbish_is_refused_without_showing_a_password(url: str) -> None:
    with pytest.raises(ClientError, match="not the URL of a proxy") as caught:
        routes(url)
    assert "s3cret" not in str(caught.value)


def test_rubbish_in_the_environment_is_only_mentioned() -> None:
    said: list[str] = []
    assert routes_by(None, {"https_proxy": "https://p"}, said.append) == [DIRECT]
    assert len(said) == 1
    assert said[0].startswith("the variable https_proxy is left out of account")


@pytest.mark.parametrize(
    ("host", "tried"),
    [
        ("login1.site.org", True),
        ("a.ccs.ornl.gov", False),
        ("ccs.ornl.gov", False),
        ("notccs.ornl.gov", True),
        ("10.3.4.5", False),
        ("11.3.4.5", True),
        ("exact.host", False),
        ("localhost", False),
        ("127.0.0.1", False),
        ("::1", False),
        ("192.0.2.7", False),
    ],
)
def test_exceptions_of_no_proxy(host: str, tried: bool) -> None:
    text = "localhost,127.0.0.0/8, *.ccs.ornl.gov ,10.0.0.0/8,.exact.host,192.0.2.7,rubbish/77"
    assert exceptions({"no_proxy": text})(host) is tried


def test_a_star_excepts_all() -> None:
    assert not exceptions({"NO_PROXY": "*"})("login1.site.org")


def password(route: ProxyRoute) -> str:
    return route._user


def test_the_password_comes_from_netrc(tmp_path: Path) -> None:
    file = tmp_path / "netrc"
    file.write_text("machine proxy.site.org login ann password s3cret\ndefault login x password y\n")
    file.chmod(0o600)
    assert password(proxy_route(URL, {"NETRC": str(file)})) == "ann:s3cret"
    assert password(proxy_route("http://other", {"NETRC": str(file)})) == ""


def test_the_password_in_a_url_is_kept_out_of_sight() -> None:
    route = proxy_route("http://ann:s%40cret@p:1", {})
    assert password(route) == "ann:s@cret"
    assert "cret" not in f"{route!r} {route.via}"
