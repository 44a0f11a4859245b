"""An ssh session with an ssh that runs its command on this machine: channels, losses, pauses, errors."""

from __future__ import annotations

import os
import queue
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ipmpi import limits
from ipmpi.errors import ClientError, ConnectionError, FurlError, KernelError, SecurityError, VersionError
from ipmpi.transport.loop import Loop
from ipmpi.transport.ssh import sshprocess
from ipmpi.transport.ssh.ssh import SshSession, shared_session
from ipmpi.transport.ssh.sshprocess import explain, split_destination, ssh_argv
from tests.processes import processes_with
from tests.reach.conftest import far_command, relays
from tests.security.cluster import wait_until


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """IPYTHONDIR at the far end."""
    folder = tmp_path / "far"
    folder.mkdir()
    return folder


@pytest.fixture
def session(fake_ssh: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshSession]:
    monkeypatch.setattr(limits, "SSH_RECONNECT_FIRST", 0.1)
    remote = far_command(fake_ssh, home, {})
    with SshSession(f"login:{remote}") as running:
        yield running
    wait_until(lambda: not relays(home), "the end of the far end")


def logins(folder: Path) -> int:
    return len((folder / "logins").read_text().splitlines())


class Caller:
    """Opens connections by a route, from a loop in another thread, as clients do."""

    def __init__(self, session: SshSession) -> None:
        self._route = session.route
        self._loop = Loop()
        self._thread = threading.Thread(target=self._loop.run, daemon=True)
        self._thread.start()

    def connect(self, address: tuple[str, int]) -> socket.socket:
        answers: queue.Queue[socket.socket | KernelError] = queue.Queue()
        self._loop.call_threadsafe(lambda: self._route.connect(self._loop, address, answers.put, answers.put))
        answer = answers.get(timeout=20)
        if isinstance(answer, KernelError):
            raise answer
        answer.settimeout(20)
        return answer

    def close(self) -> None:
        self._loop.stop()
        self._thread.join(5)
        self._loop.close()


@pytest.fixture
def caller(session: SshSession) -> Iterator[Caller]:
    running = Caller(session)
    yield running
    running.close()


class TcpServer:
    """Serves each connection in a thread."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self._serve = serve
        self._sock = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._sock.getsockname()[:2]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._sock.accept()
                thread = threading.Thread(target=self._run, args=(sock,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _run(self, sock: socket.socket) -> None:
        with sock, suppress(OSError):
            self._serve(sock)

    def __enter__(self) -> TcpServer:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        for thread in self._threads:
            thread.join(10)


def echo(sock: socket.socket) -> None:
    while data := sock.recv(65536):
        sock.sendall(data)


def receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        assert piece, f"it ended after {len(data)} of {size} bytes"
        data += piece
    return data


# --- connections -------------------------------------------------------------------------------------------


def test_bytes_and_ends_pass_both_ways(caller: Caller) -> None:
    data = random.Random(1).randbytes(3 * limits.SSH_WINDOW)
    with TcpServer(echo) as server, caller.connect(server.address) as sock:
        sender = threading.Thread(target=lambda: (sock.sendall(data), sock.shutdown(socket.SHUT_WR)))
        sender.start()
        assert receive(sock, len(data)) == data
        assert sock.recv(1) == b"", "the server's end has come through, after its data"
        sender.join()


def test_a_connection_that_is_refused_there(caller: Caller, session: SshSession) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ConnectionError, match="Connection refused"):
        caller.connect(("127.0.0.1", port))
    assert session.pid is not None, "which is no reason to end ssh"


def test_a_slow_connection_stops_its_own_sender_only(caller: Caller, home: Path) -> None:
    sent = [0]

    def flood(sock: socket.socket) -> None:
        while True:
            sent[0] += sock.send(bytes(65536))

    with (
        TcpServer(flood) as endless,
        TcpServer(echo) as server,
        caller.connect(endless.address) as stuck,
        caller.connect(server.address) as quick,
    ):
        (far,) = relays(home)
        for _ in range(50):
            quick.sendall(bytes(200_000))
            receive(quick, 200_000)
        # A window, and what the kernel holds for the sockets in between.
        assert sent[0] < 40 * limits.MIB
        before = sent[0]
        receive(stuck, 5 * limits.SSH_WINDOW)
        wait_until(lambda: sent[0] > before, "the flood that goes on")
        resident = Path(f"/proc/{far}/status").read_text().partition("VmHWM:")[2].split()[0]
        assert int(resident) < 120_000, "KiB"


def test_many_connections_share_one_login(caller: Caller, fake_ssh: Path) -> None:
    with TcpServer(echo) as server:
        socks = [caller.connect(server.address) for _ in range(20)]
        for number, sock in enumerate(socks):
            sock.sendall(bytes([number]) * 1000)
        for number, sock in enumerate(socks):
            assert receive(sock, 1000) == bytes([number]) * 1000
            sock.close()
    assert logins(fake_ssh) == 1


def test_a_forwarded_port_tries_the_hints_in_turn(session: SshSession) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = closed.getsockname()[:2]
    with TcpServer(echo) as server:
        address = session.forward([nobody, server.address])
        for _ in range(2):
            with socket.create_connection(address, 20) as sock:
                sock.sendall(b"hello")
                assert receive(sock, 5) == b"hello"


# --- losses ------------------------------------------------------------------------------------------------


def test_when_ssh_is_killed_connections_end_and_the_next_gets_a_new_one(
    caller: Caller, session: SshSession, fake_ssh: Path, home: Path
) -> None:
    with TcpServer(echo) as server:
        sock = caller.connect(server.address)
        assert session.pid is not None
        os.kill(session.pid, signal.SIGKILL)
        assert sock.recv(1) == b""
        sock.close()
        with caller.connect(server.address) as again:
            again.sendall(b"x")
            assert receive(again, 1) == b"x"
        assert logins(fake_ssh) == 2


def test_pauses_between_logins_grow(session: SshSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: 1.0)
    monkeypatch.setattr(limits, "SSH_RECONNECT_FIRST", 0.5)
    session._was_up = True
    pauses = []
    for _ in range(7):
        session._pause()
        pauses.append(round(session._not_before - Loop.now(), 1))
    assert pauses == [0.5, 1.5, 4.5, 13.5, 40.5, 60.0, 60.0]


def test_a_login_that_fails_after_the_first_is_told_to_those_who_wait(
    caller: Caller, session: SshSession, fake_ssh: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with TcpServer(echo) as server:
        sock = caller.connect(server.address)
        (fake_ssh / "broken").write_text("kex_exchange_identification: Connection closed by remote host\n")
        assert session.pid is not None
        os.kill(session.pid, signal.SIGKILL)
        assert sock.recv(1) == b""
        sock.close()
        with pytest.raises(ConnectionError, match=r"ssh does not reach login \(kex_exchange.*`ssh login true`"):
            caller.connect(server.address)
        assert "kex_exchange" not in capfd.readouterr().err, "nobody waits for this at the terminal"
        (fake_ssh / "broken").unlink()
        caller.connect(server.address).close()


# --- commands and files of the far end ---------------------------------------------------------------------


def test_a_command_gives_its_lines_and_exit_code(session: SshSession) -> None:
    lines: list[str] = []
    assert session.run(["--help"], lines.append) == 0
    assert lines[0].startswith("usage: ipcluster")
    lines.clear()
    assert session.run(["--no-such-option"], lines.append) == 2
    assert "unrecognized arguments: --no-such-option" in lines[-1], "standard error is there as well"


def test_a_command_that_nobody_waits_for_cleans_up(session: SshSession, home: Path) -> None:
    running: list[int] = []

    def stop(line: str) -> None:
        if "running" in line:
            running.extend(set(processes_with(f"IPYTHONDIR={home}")) - set(relays(home)))
            raise KeyboardInterrupt

    loopback = ["--client-ip", "127.0.0.1", "--engine-ip", "127.0.0.1"]
    with pytest.raises(KeyboardInterrupt):
        session.run(["local", "-n", "1", "--mpi", "none", *loopback], stop)
    assert len(running) == 4, "ipcluster, controller, engine and its agent"
    wait_until(lambda: set(processes_with(f"IPYTHONDIR={home}")) <= set(relays(home)), "the end of the cluster")


def test_a_furl_that_is_not_there_says_on_which_machine(session: SshSession) -> None:
    with pytest.raises(FurlError, match=r"on login: no furl file .*/far/security/ipcontroller-mec.furl"):
        session.furl("mec")
    with pytest.raises(FurlError, match=r"on login: there is no cluster 'big' here .*/far/security/big\): `ipcl"):
        session.furl("mec", "big")


def test_no_orphans_when_the_laptop_is_killed(fake_ssh: Path, home: Path) -> None:
    remote = far_command(fake_ssh, home, {})
    program = (
        "import sys; from ipmpi.transport.ssh.ssh import SshSession\n"
        "s = SshSession(sys.argv[1]); s.run(['--help'])\n"
        "print('up', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, f"login:{remote}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as laptop:
        assert laptop.stdout is not None
        assert laptop.stdout.readline() == b"up\n"
        assert len(relays(home)) == 1
        laptop.kill()
    wait_until(lambda: not relays(home), "the end of the far end")


# --- errors ------------------------------------------------------------------------------------------------


def furl_error(destination: str) -> KernelError:
    with SshSession(destination) as session, pytest.raises(KernelError) as caught:
        session.furl("mec")
    return caught.value


def test_there_is_no_ssh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPMPI_SSH", "/nowhere/ssh -F x")
    error = furl_error("login")
    assert str(error) == (
        "there is no program '/nowhere/ssh' here: install OpenSSH's client, or name another one in the "
        "environment variable IPMPI_SSH"
    )


def test_there_is_no_ipcluster(fake_ssh: Path) -> None:
    error = furl_error("login:/nowhere/ipcluster")
    assert isinstance(error, ConnectionError)
    assert "there is no '/nowhere/ipcluster' on login (" in str(error)
    assert "ssh='login:/path/to/ipcluster'" in str(error)


@pytest.mark.parametrize(
    ("script", "kind", "words"),
    [
        (
            "echo 'ipcluster: error: invalid choice: relay' >&2; exit 2",
            VersionError,
            "another version; upgrade it",
        ),
        ("printf '\\nipmpi-relay 7 ipmpi 3.0\\n'; cat", VersionError, "login: its ipmpi 3.0 speaks version 7"),
        ("echo This account is not available; exit 1", ConnectionError, "exit code 1 .*account is not available"),
        ("yes n | head -c 100000; cat", ConnectionError, "prints more than"),
    ],
)
def test_a_far_end_that_is_none(fake_ssh: Path, script: str, kind: type[KernelError], words: str) -> None:
    path = fake_ssh / "ipcluster"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    with SshSession(f"login:{path}") as session, pytest.raises(kind, match=words):
        session.furl("mec")


def test_a_login_without_an_end(
    fake_ssh: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sshprocess, "_PATIENCE", 0.05)
    monkeypatch.setattr(limits, "SSH_LOGIN_TIMEOUT", 0.2)
    error = furl_error("login:cat #")
    assert "the login to login was not over within 0 s; see how far `ssh login cat # --help` gets" in str(error)
    assert "ipmpi: waiting for `ssh login` and `cat # relay` there" in capfd.readouterr().err


def test_ctrl_c_during_the_login_ends_ssh(fake_ssh: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(home))

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    def when_it_runs() -> None:
        wait_until(lambda: processes_with(f"IPYTHONDIR={home}"), "an ssh")
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with SshSession("login:cat #") as session:
            thread = threading.Thread(target=when_it_runs)
            thread.start()
            with pytest.raises(KeyboardInterrupt):
                session.furl("mec")
            thread.join()
            wait_until(lambda: not processes_with(f"IPYTHONDIR={home}"), "its end")
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_what_the_far_end_says_instead_of_frames_ends_the_session(fake_ssh: Path) -> None:
    path = fake_ssh / "ipcluster"
    path.write_text("#!/bin/sh\nprintf '\\nipmpi-relay 2 ipmpi 0.1\\n'; echo Traceback most recent call; cat\n")
    path.chmod(0o755)
    error = furl_error(f"login:{path}")
    assert "something else writes into this stream" in str(error)


def test_denied_is_final() -> None:
    error = explain(255, "login", "ipcluster", "ann@login: Permission denied (publickey).")
    assert isinstance(error, SecurityError), "dialling again would only get the user locked out"
    assert "ssh-add" in str(error)


def test_clients_that_dial_again_ask_nothing(
    caller: Caller, session: SshSession, fake_ssh: Path, home: Path
) -> None:
    with TcpServer(echo) as server:
        sock = caller.connect(server.address)
        (fake_ssh / "broken").write_text("ann@login: Permission denied (password).\n")
        assert session.pid is not None
        os.kill(session.pid, signal.SIGKILL)
        assert sock.recv(1) == b""
        sock.close()
        with pytest.raises(SecurityError, match=r"again without asking you .*: make a new client, which may ask"):
            caller.connect(server.address)
        with pytest.raises(SecurityError, match="ssh-add"):
            session.open()
        (fake_ssh / "broken").unlink()
        session.open()
    options = [line.count("BatchMode=yes") for line in (fake_ssh / "logins").read_text().splitlines()]
    assert options == [0, 1, 0, 0]


def test_a_session_that_was_closed_is_not_waited_for(caller: Caller, session: SshSession) -> None:
    session.open()
    session.close()
    with pytest.raises(ClientError, match="was closed; make a new one"):
        caller.connect(("127.0.0.1", 1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ann@login1.site.org", ("ann@login1.site.org", "ipcluster")),
        ("login", ("login", "ipcluster")),
        ("ann@login:venv/bin/ipcluster", ("ann@login", "venv/bin/ipcluster")),
        ("login:module load x && ipcluster", ("login", "module load x && ipcluster")),
        ("ssh://ann@login:2222", ("ssh://ann@login:2222", "ipcluster")),
        ("ann@2001:db8::1", ("ann@2001:db8::1", "ipcluster")),
    ],
)
def test_destinations(text: str, expected: tuple[str, str]) -> None:
    assert split_destination(text, "ipcluster") == expected


@pytest.mark.parametrize("text", ["", "-oProxyCommand=evil", "two words"])
def test_no_destinations(text: str) -> None:
    with pytest.raises(ClientError, match="no destination for ssh: give it as 'user@host'"):
        SshSession(text)


def test_the_command_line() -> None:
    argv = ssh_argv("ann@login", "ipcluster", {"IPMPI_SSH": "ssh -F '/my config'"}, quiet=False)
    assert argv[4:7] == ["ssh", "-F", "/my config"]
    assert argv[-3:] == ["--", "ann@login", "ipcluster relay"]
    assert "ControlMaster=no" in argv
    assert "BatchMode=yes" not in argv
    assert "BatchMode=yes" in ssh_argv("login", "ipcluster", {}, quiet=True)


def test_a_session_is_shared_until_it_is_closed(fake_ssh: Path) -> None:
    first = shared_session("login")
    assert shared_session("login") is first
    assert shared_session("other") is not first
    first.close()
    with pytest.raises(ClientError, match="was closed; make a new one"):
        first.furl("mec")
    assert shared_session("login") is not first


def test_relay_by_hand_says_what_it_is(root: Path) -> None:
    master, slave = os.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "ipmpi.cli.relay"],
        stdin=slave,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    os.close(master)
    os.close(slave)
    assert done.returncode == 2
    assert "there is nothing to type here" in done.stderr
