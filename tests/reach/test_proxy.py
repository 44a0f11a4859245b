"""Engines and clients that reach their controller through an HTTP proxy."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipmpi import limits
from ipmpi.client import MultiEngineClient, TaskClient
from ipmpi.errors import ClientError, ConnectionError, KernelError
from ipmpi.transport.dial import dial
from ipmpi.transport.dial.routes import ProxyRoute
from ipmpi.transport.loop import Loop
from tests.reach.proxy import Proxy
from tests.security.cluster import Controller, controller, engines, run_command, wait_until


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy() as running:
        yield running


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    with controller(tmp_path_factory.mktemp("controller")) as started:
        yield started


def test_an_engine_and_clients_through_a_proxy(running: Controller, proxy: Proxy) -> None:
    with engines(running.home, 1, ["--proxy", proxy.url]):
        running.wait_engines(1)
        assert proxy.asked == [running.address("engine")]
        with MultiEngineClient(str(running.furl_file("mec")), proxy=proxy.url) as mec:
            mec.push({"a": 6})
            assert mec.pull("a") == [6]
            with TaskClient(str(running.furl_file("tc")), proxy=proxy.url) as tc:
                assert tc.submit(pow, 2, 5).result(10) == 32
            assert proxy.asked[1:] == [running.address("mec"), running.address("tc")]
            secret = str(running.furl("mec")).rpartition("/")[2]
            assert secret.encode() not in proxy.seen
            assert b"\x16\x03" in proxy.seen[:100], "TLS begins here, and ends at the controller"
            proxy.cut()
            assert mec.pull("a") == [6], "the session goes on through a new connection"
    running.wait_engines(0)


def test_large_bodies_have_a_lane_through_the_proxy(tmp_path: Path, proxy: Proxy) -> None:
    with controller(tmp_path) as running, engines(tmp_path, 1, ["--proxy", proxy.url]):
        running.wait_engines(1)
        with MultiEngineClient(str(running.furl_file("mec")), proxy=proxy.url) as mec:
            data = b"a large body. " * 500_000
            mec.push({"a": data})
            wait_until(lambda: "have a bulk lane" in running.log(), "a lane")
            assert sorted(proxy.asked) == sorted([running.address("engine"), running.address("mec")] * 2)
            mec.push({"b": data})
            assert mec.pull(["a", "b"]) == [[data, data]]
            proxy.cut()
            mec.push({"b": data[1:]})
            assert mec.pull(["a", "b"]) == [[data, data[1:]]]


def test_large_bodies_go_by_the_session_where_a_proxy_lets_nothing_but_tls_pass(
    tmp_path: Path, proxy: Proxy
) -> None:
    proxy.only_tls = True
    with controller(tmp_path) as running, engines(tmp_path, 1, ["--proxy", proxy.url]):
        running.wait_engines(1)
        with MultiEngineClient(str(running.furl_file("mec")), proxy=proxy.url) as mec:
            data = b"a large body. " * 500_000
            mec.push({"a": data})
            wait_until(lambda: "have no bulk lane: bodies go by the session" in running.log(), "a lane that fails")
            mec.push({"b": data})
            assert mec.pull(["a", "b"]) == [[data, data]]


def test_the_environment_names_the_second_try(
    running: Controller, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    # This name means something to the proxy only, as that of a login node outside.
    furl = str(running.furl("mec"))
    host, port = running.address("mec")
    outside = furl.replace(f"{host}:{port}", f"login.invalid:{port}")
    proxy.hosts["login.invalid"] = host
    monkeypatch.setenv("https_proxy", proxy.url)
    # Nor is the controller's Unix socket on the laptop.
    monkeypatch.setattr(dial, "is_possible", lambda: False)
    with MultiEngineClient(outside) as mec:
        assert mec.get_ids() == []
        assert proxy.asked == [("login.invalid", port)]
    with MultiEngineClient(furl) as mec:
        assert mec.get_ids() == []
    assert len(proxy.asked) == 1, "the direct way comes first, and loopback is never sought at a proxy"
    monkeypatch.setenv("no_proxy", "*.invalid")
    with pytest.raises(ConnectionError, match=r"login.invalid:\d+: its name cannot be looked up"):
        MultiEngineClient(outside)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 407 Who?\r\n\r\n", "407 Who.*wants a user name"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "403 Forbidden.*--client-port"),
        (b"220 mail.example.org ESMTP\r\n", "does not answer as an HTTP proxy"),
    ],
)
def test_refusals(running: Controller, proxy: Proxy, answer: bytes, words: str) -> None:
    proxy.answer = answer
    with pytest.raises(ConnectionError, match=words):
        MultiEngineClient(str(running.furl_file("mec")), proxy=proxy.url)


def test_a_user_name_and_password(
    running: Controller, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    proxy.user = base64.b64encode(b"ann:s3cret")
    file = tmp_path / "netrc"
    file.write_text("machine 127.0.0.1 login ann password s3cret\n")
    file.chmod(0o600)
    monkeypatch.setenv("NETRC", str(file))
    with MultiEngineClient(str(running.furl_file("mec")), proxy=proxy.url) as mec:
        assert mec.get_ids() == []


def test_nobody_listens(running: Controller) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ConnectionError, match=f"the proxy 127.0.0.1:{port} is not reached: Connection refused"):
        MultiEngineClient(str(running.furl_file("mec")), proxy=f"http://127.0.0.1:{port}")


def connect(route: ProxyRoute, address: tuple[str, int]) -> KernelError | socket.socket:
    """The end of one attempt, in a loop of its own."""
    loop = Loop()
    found: list[KernelError | socket.socket] = []

    def done(what: KernelError | socket.socket) -> None:
        found.append(what)
        loop.stop()

    route.connect(loop, address, done, done)
    loop.run()
    loop.close()
    return found[0]


def test_a_slow_answer_is_waited_for(proxy: Proxy) -> None:
    proxy.held.clear()
    with socket.create_server(("127.0.0.1", 0)) as target:
        opener = threading.Thread(target=lambda: proxy.requested.wait(10) and proxy.held.set())
        opener.start()
        sock = connect(ProxyRoute(("127.0.0.1", proxy.port)), target.getsockname()[:2])
        assert isinstance(sock, socket.socket)
        sock.close()
        opener.join()


def test_an_answer_that_never_comes(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy.held.clear()
    monkeypatch.setattr(limits, "PROXY_TIMEOUT", 0.1)
    error = connect(ProxyRoute(("127.0.0.1", proxy.port)), ("h", 1))
    assert "gave no answer within 0 s" in str(error)


def test_a_connection_that_is_closed_instead(proxy: Proxy) -> None:
    proxy.answer = b"HTTP/1.1 2"
    error = connect(ProxyRoute(("127.0.0.1", proxy.port)), ("h", 1))
    assert "closed the connection without an answer" in str(error)


def test_ipengine_takes_no_password_from_its_command_line(tmp_path: Path) -> None:
    code, said, _ = run_command("ipmpi.cli.ipengine", tmp_path, "--proxy", "http://ann:s3cret@p:3128")
    assert code == 2
    assert "a password does not belong into a command line" in said
    assert "~/.netrc" in said
    assert "s3cret" not in said


def test_ipengine_explains_a_proxy_that_it_cannot_use(running: Controller) -> None:
    code, said, _ = run_command("ipmpi.cli.ipengine", running.home, "--mpi", "none", "--proxy", "socks5://p:1080")
    assert code == 1
    assert "ipmpi speaks to HTTP proxies, not to 'socks5' ones" in said


def test_ssh_and_proxy_together() -> None:
    with pytest.raises(ClientError, match="ProxyCommand"):
        MultiEngineClient(ssh="login", proxy="http://p:1")
