"""What a proxy is asked, and what its answers mean."""

from __future__ import annotations

import base64

import pytest

from ipmpi.errors import ConnectionError
from ipmpi.protocol.httpconnect import ConnectRequest

OK = b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n"


def ask(user: str = "") -> ConnectRequest:
    return ConnectRequest("login1.site.org", 10105, "the proxy p:3128", user)


def test_the_request() -> None:
    lines = ask().data.split(b"\r\n")
    assert lines == [b"CONNECT login1.site.org:10105 HTTP/1.1", b"Host: login1.site.org:10105", b"", b""]
    assert ConnectRequest("fe80::1", 1, "p").data.startswith(b"CONNECT [fe80::1]:1 HTTP/1.1\r\n")


def test_the_password_is_in_its_own_header_only() -> None:
    lines = ask("ann:s3cret").data.split(b"\r\n")
    assert lines[2] == b"Proxy-Authorization: Basic " + base64.b64encode(b"ann:s3cret")


@pytest.mark.parametrize("step", [1, 7, len(OK)])
def test_an_answer_in_pieces(step: int) -> None:
    request = ask()
    answers = [request.receive(OK[at : at + step]) for at in range(0, len(OK), step)]
    assert answers == [False] * (len(answers) - 1) + [True]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "407 .*wants a user name and password.*netrc"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "403 Forbidden.*port 10105; many allow port 443 only.*--engine-port"),
        (b"HTTP/1.0 503 Unavailable\r\n\r\n", "503 .*could not reach the controller"),
        (b"HTTP/1.1 418 \x1b[31mteapot\r\n\r\n", r"418 \?\[31mteapot"),
        (b"HTTP/1.1 hello\r\n\r\n", "without a status"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not answer as an HTTP proxy"),
        (b"\x15\x03\x01", "does not answer as an HTTP proxy"),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>", "gives no tunnel"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000, "has no end"),
    ],
)
def test_an_answer_that_is_no_tunnel_says_what_to_do(answer: bytes, words: str) -> None:
    with pytest.raises(ConnectionError, match=words):
        ask().receive(answer)


def test_a_password_that_is_wrong() -> None:
    with pytest.raises(ConnectionError, match="does not take this user name and password") as caught:
        ask("ann:s3cret").receive(b"HTTP/1.1 407 No\r\n\r\n")
    assert "s3cret" not in str(caught.value)
