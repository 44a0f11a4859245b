"""What goes wrong in use: one clear sentence with the next step, soon, and no traceback of ours."""

from __future__ import annotations

import http.server
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ipmpi import furl
from ipmpi.client import MultiEngineClient, TaskClient
from ipmpi.errors import InvalidEngineID, KernelError, NoEnginesRegistered, SerializationError
from ipmpi.furl import Furl
from tests.security.cluster import LOOPBACK, Controller, controller, engines, environment, run_command
from tests.security.wire import register

ENGINE, CONTROLLER = "ipmpi.cli.ipengine", "ipmpi.cli.ipcontroller"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    with controller(tmp_path_factory.mktemp("controller")) as found:
        yield found


@pytest.fixture
def mec(running: Controller) -> Iterator[MultiEngineClient]:
    with MultiEngineClient(str(running.furl_file("mec"))) as client:
        yield client


def fails(module: str, home: Path, *arguments: str, extra: dict[str, str] | None = None, expected: int = 1) -> str:
    """Run a command that must fail as users deserve it; gives what it says on the screen."""
    code, screen, seconds = run_command(module, home, *arguments, extra=extra)
    assert code == expected, screen
    assert seconds < 5
    assert "Traceback" not in screen
    sentence = [line for line in screen.splitlines() if line.startswith(module.rpartition(".")[2] + ": ")]
    assert len(sentence) == 1, screen
    return sentence[0]


def client_fails(address: object) -> str:
    """Make a client that must fail; gives what the error says."""
    begin = time.monotonic()
    with pytest.raises(KernelError) as caught:
        MultiEngineClient(str(address))
    assert time.monotonic() - begin < 5
    return str(caught.value)


# --- furls ---------------------------------------------------------------------------------------------------

Spoil = Callable[[str], str]
TEXTS: dict[str, tuple[Spoil, str]] = {
    "truncated": (lambda text: text.strip()[:-7], "copy the whole line of the furl file"),
    "truncated before the secret": (lambda text: text.strip().rpartition("/")[0], "copy the whole line"),
    "empty": (lambda text: "", "copy the whole line"),
    "of the old IPython": (lambda text: "pb://abc@host:1/x", "start a controller of ipmpi with `ipcontroller`"),
    "something else": (lambda text: "#!/bin/sh\nls\n", "copy the whole line"),
    "a wrong letter": (lambda text: text.replace("ipmpi://", "ipmpi://1"), "copy the whole line"),
}


def spoilt(running: Controller, role: str, how: Spoil, folder: Path) -> Path:
    path = folder / "spoilt.furl"
    furl.write_private(path, how(running.furl_file(role).read_text()).encode())
    return path


@pytest.mark.parametrize("case", TEXTS)
def test_wrong_furl(running: Controller, tmp_path: Path, case: str) -> None:
    how, advice = TEXTS[case]
    said = client_fails(spoilt(running, "mec", how, tmp_path))
    assert advice in said
    assert "spoilt.furl" in said


@pytest.mark.parametrize("case", ["truncated", "empty"])
def test_wrong_furl_for_ipengine(running: Controller, tmp_path: Path, case: str) -> None:
    how, advice = TEXTS[case]
    assert advice in fails(ENGINE, tmp_path, "--furl-file", str(spoilt(running, "engine", how, tmp_path)))


def test_no_furl_file(tmp_path: Path) -> None:
    for said in (fails(ENGINE, tmp_path), client_fails(tmp_path / "none.furl")):
        assert "no furl file" in said
        assert "start one with `ipcluster -n 4`" in said


def of_another(running: Controller, role: str, folder: Path) -> Path:
    """A furl of another controller that ran at the same address."""
    path = folder / "another.furl"
    furl.save(path, Furl.create(bytes(range(32)), running.furl(role).hints, role))
    return path


def test_furl_of_another_controller(running: Controller, tmp_path: Path) -> None:
    for said in (
        client_fails(of_another(running, "mec", tmp_path)),
        fails(ENGINE, tmp_path, "--furl-file", str(of_another(running, "engine", tmp_path))),
    ):
        assert "this furl is of another controller" in said
        assert "Fetch the furl file again" in said


def test_loose_permissions(running: Controller, tmp_path: Path) -> None:
    for role in ("mec", "engine"):
        path = tmp_path / f"{role}.furl"
        path.write_bytes(running.furl_file(role).read_bytes())
        path.chmod(0o644)
        said = client_fails(path) if role == "mec" else fails(ENGINE, tmp_path, "--furl-file", str(path))
        assert f"run `chmod 600 {path}`" in said


def test_furl_for_something_else(running: Controller, tmp_path: Path) -> None:
    assert "use ipcontroller-mec.furl" in client_fails(running.furl_file("engine"))
    assert "use ipcontroller-mec.furl" in client_fails(running.furl_file("tc"))
    with pytest.raises(KernelError, match=r"use ipcontroller-tc\.furl"):
        TaskClient(str(running.furl_file("mec")))
    said = fails(ENGINE, tmp_path, "--furl-file", str(running.furl_file("mec")))
    assert "use ipcontroller-engine.furl" in said


# --- nobody, or somebody else, at the address --------------------------------------------------------------------


def with_address(running: Controller, role: str, address: tuple[str, int], folder: Path) -> Path:
    real = running.furl(role)
    path = folder / f"moved-{role}.furl"
    furl.save(path, Furl(real.fingerprint, (address,), role, real.secret))
    return path


def said_at(running: Controller, address: tuple[str, int], folder: Path) -> list[str]:
    """What a client and an engine say about an address."""
    return [
        client_fails(with_address(running, "mec", address, folder)),
        fails(ENGINE, folder, "--furl-file", str(with_address(running, "engine", address, folder))),
    ]


def test_controller_is_not_running(running: Controller, tmp_path: Path) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))  # bound and not listening: refused, and nobody else can get the port
        for said in said_at(running, sock.getsockname(), tmp_path):
            assert "no controller answers" in said
            assert "Connection refused" in said
            assert "`ipcluster -n 4` starts one" in said


def test_web_server_at_the_address(running: Controller, tmp_path: Path) -> None:
    class Quiet(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            for said in said_at(running, ("127.0.0.1", server.server_port), tmp_path):
                assert "no controller answers" in said
                assert "127.0.0.1" in said
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("banner", "sentence"),
    [(b"SSH-2.0-OpenSSH_9.2\r\n", "speaks SSH, not TLS"), (b"HTTP/1.1 400 Bad\r\n\r\n", "speaks plain HTTP"),
     (bytes(range(20)), "does not speak TLS")],
    ids=["ssh", "http", "garbage"],
)  # fmt: skip
def test_garbage_peer(running: Controller, tmp_path: Path, banner: bytes, sentence: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            for _ in range(2):
                peer, _ = server.accept()
                with peer:
                    peer.recv(100)
                    peer.sendall(banner)
                    peer.settimeout(5)
                    while peer.recv(4096):
                        pass

        thread = threading.Thread(target=answer)
        thread.start()
        for said in said_at(running, server.getsockname(), tmp_path):
            assert sentence in said
            assert "check host and port" in said
        thread.join()


OTHER_RELEASE = """
import ipmpi.protocol.handshake as handshake
for end in (handshake.DiallerHandshake, handshake.ListenerHandshake):
    names = end.__init__.__code__.co_varnames[: end.__init__.__code__.co_argcount]
    end.__init__.__defaults__ = tuple((7,) if d == (1,) else d for d in end.__init__.__defaults__)
"""


def test_version_mismatch(running: Controller, tmp_path: Path) -> None:
    """A controller of a later release, made by changing the default of its handshake at start-up."""
    (tmp_path / "sitecustomize.py").write_text(OTHER_RELEASE)
    path = f"{tmp_path}:{environment(tmp_path)['PYTHONPATH']}"
    with controller(tmp_path / "home", extra={"PYTHONPATH": path}) as later:
        for said in (
            client_fails(later.furl_file("mec")),
            fails(ENGINE, tmp_path, "--furl-file", str(later.furl_file("engine"))),
        ):
            assert "(protocol 7), here is ipmpi" in said
            assert "Upgrade ipmpi here" in said


# --- ipcontroller --------------------------------------------------------------------------------------------


def test_port_is_taken(running: Controller, tmp_path: Path) -> None:
    port = running.address("mec")[1]
    said = fails(CONTROLLER, tmp_path, *LOOPBACK, "--client-port", str(port))
    assert f"port {port} is taken on 127.0.0.1:{port}" in said
    assert "choose another port, or leave the port option out" in said


@pytest.mark.parametrize("port", ["70000", "-5"])
def test_port_that_is_none(tmp_path: Path, port: str) -> None:
    said = fails(CONTROLLER, tmp_path, *LOOPBACK, f"--client-port={port}", expected=2)
    assert f"port {port} is not between 1 and 65535" in said


def test_address_that_is_not_ours(tmp_path: Path) -> None:
    assert "cannot listen on 192.0.2.1" in fails(CONTROLLER, tmp_path, "--client-ip", "192.0.2.1")
    assert "cannot listen on 'name.invalid'" in fails(CONTROLLER, tmp_path, "--client-ip", "name.invalid")


def test_location_that_is_none(tmp_path: Path) -> None:
    said = fails(CONTROLLER, tmp_path, *LOOPBACK, "--client-location", "http://me", expected=2)
    assert "'http://me' is not a host name or address" in said


@pytest.mark.parametrize("module", [CONTROLLER, ENGINE])
def test_log_file_that_cannot_be_written(tmp_path: Path, module: str) -> None:
    (tmp_path / "file").write_text("")
    said = fails(module, tmp_path, "-l", str(tmp_path / "file" / "log"))
    assert "cannot write the log file" in said
    assert "choose another -l PREFIX" in said


def test_furl_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = fails(CONTROLLER, tmp_path, *LOOPBACK, "--task-furl-file", str(tmp_path / "file" / "tc.furl"))
    assert "cannot write" in said


# --- MPI -----------------------------------------------------------------------------------------------------


@pytest.mark.mpi
@pytest.mark.parametrize("rank", [0, 2])
def test_ranks_that_each_think_they_are_alone(
    running: Controller, tmp_path: Path, rank: int, need: Callable[[str, object], None]
) -> None:
    """The variables of an MPICH launcher, and the Open MPI library of this environment."""
    mpi4py = pytest.importorskip("mpi4py")
    need("the Open MPI wheel", Path(sys.prefix, "bin", "prterun").exists())
    assert mpi4py is not None
    launched = {"PMI_RANK": str(rank), "PMI_SIZE": "4", "OMPI_ALLOW_RUN_AS_ROOT": "1"}
    arguments = ("--furl-file", str(running.furl_file("engine")))
    code, screen, seconds = run_command(ENGINE, tmp_path, *arguments, extra=launched)
    assert code == 1
    assert seconds < 5
    assert "Traceback" not in screen
    said = [line for line in screen.splitlines() if line.startswith("ipengine: ")]
    assert len(said) == (1 if rank == 0 else 0)
    if rank == 0:
        assert "started 4 ranks, but each thinks it is alone" in said[0]
        assert "mpiexec" in said[0]
        assert "--mpi none" in said[0]


# --- calls ---------------------------------------------------------------------------------------------------


def test_no_engines(mec: MultiEngineClient) -> None:
    with pytest.raises(NoEnginesRegistered, match="mpirun -n 4 ipengine"):
        mec.execute("a = 1")


def test_unknown_engine(running: Controller, mec: MultiEngineClient) -> None:
    engine, number = register(running.furl("engine"), wanted=3)
    assert number == 3
    with engine, pytest.raises(InvalidEngineID, match=r"Engine with id 17 is not registered \(registered: 3\)"):
        mec.execute("a = 1", targets=17)


def test_what_cannot_be_pickled_is_named(tmp_path: Path) -> None:
    with controller(tmp_path) as own, engines(tmp_path, 1):
        own.wait_engines(1)
        with MultiEngineClient(str(own.furl_file("mec"))) as mec:
            mec.push({"kept": 1})
            with pytest.raises(SerializationError, match="lock"):
                mec.push({"good": 1, "bad": [threading.Lock()]})
            # Nothing was lost, and the client works on.
            assert mec.pull("kept") == [1]
            assert "good" not in mec.keys()[0]
