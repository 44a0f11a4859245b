"""From a laptop through a real sshd to a controller and engines behind it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipmpi import furl
from ipmpi.client import MultiEngineClient, TaskClient
from ipmpi.errors import CompositeError, ConnectionError, FurlError, SecurityError
from ipmpi.furl import Furl
from ipmpi.launch.cluster import records
from ipmpi.launch.cluster.records import ClusterRecord
from ipmpi.transport.ssh.ssh import SshSession, shared_session
from tests.reach.conftest import NAME, Server, relays, words_of
from tests.security.cluster import Controller, controller, engines, wait_until
from tests.security.relay import Relay
from tests.security.test_link_cut import through


@pytest.fixture(scope="module")
def cluster(sshd: Server) -> Iterator[Controller]:
    """At the far end, in the folder that a login there has."""
    with controller(sshd.home) as running, engines(sshd.home, 2):
        running.wait_engines(2)
        yield running


@pytest.fixture
def session(login: str) -> Iterator[SshSession]:
    """What all clients of ``login`` share."""
    running = shared_session(login)
    yield running
    running.close()


@pytest.fixture
def mec(cluster: Controller, login: str, session: SshSession) -> Iterator[MultiEngineClient]:
    with MultiEngineClient(ssh=login) as client:
        yield client


def read_bytes(pid: int) -> int:
    """What a process has read so far."""
    return int(Path(f"/proc/{pid}/io").read_text().partition("rchar: ")[2].split()[0])


def kill_in_the_middle(session: SshSession, after: int) -> threading.Thread:
    """Kill ssh when it has read so many bytes more."""
    pid = session.pid
    assert pid is not None
    start = read_bytes(pid)

    def kill() -> None:
        wait_until(lambda: read_bytes(pid) - start > after, "traffic")
        os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


def test_both_clients_through_one_login(mec: MultiEngineClient, login: str, sshd: Server) -> None:
    before = sshd.logins()
    assert mec.get_ids() == [0, 1]
    mec.push({"a": 6})
    assert mec.execute("print(a * 7)")[0]["stdout"] == "42\n"
    with TaskClient(ssh=login) as tc:
        assert tc.map(abs, range(-5, 0)) == [5, 4, 3, 2, 1]
    assert sshd.logins() == before, "the session was there already"


def test_ssh_killed_in_a_large_push_and_in_a_large_pull(
    mec: MultiEngineClient, session: SshSession, sshd: Server, cluster: Controller
) -> None:
    mec.execute("n = 0")
    data = os.urandom(60_000_000)
    logins, ssh = sshd.logins(), session.pid
    killer = kill_in_the_middle(session, 20_000_000)
    mec.push({"data": data})
    killer.join()
    assert session.pid != ssh
    mec.execute("n += 1; same = len(data)")
    killer = kill_in_the_middle(session, 20_000_000)
    assert mec.pull("data", targets=0) == [data]
    killer.join()
    assert mec.pull(("n", "same")) == [[1, len(data)]] * 2
    assert sshd.logins() == logins + 2
    log = cluster.log()
    assert log.count("is back from") >= 2
    assert "it may come back within" not in log, "the connections were held until the client was back"
    wait_until(lambda: len(relays(sshd.home)) == 1, "the end of the relays that were left")


def test_large_bodies_have_a_lane_through_ssh(sshd: Server, login: str, session: SshSession) -> None:
    """The client's end of it is one more channel of the same login."""
    folder = sshd.home / "lanes"
    with (
        controller(folder) as running,
        Relay(running.address("engine")) as relay,
        engines(folder, 1, ["--furl-file", str(through(relay, running, "engine"))]),
    ):
        running.wait_engines(1)
        with MultiEngineClient(str(running.furl("mec")), ssh=login) as mec:
            logins, data = sshd.logins(), os.urandom(20_000_000)
            mec.push({"a": data})
            wait_until(lambda: "have a bulk lane" in running.log(), "a lane")
            mec.push({"b": data})
            assert mec.pull(["a", "b"]) == [[data, data]]
            assert sshd.logins() == logins
            killer = kill_in_the_middle(session, 5_000_000)
            mec.push({"b": data[1:]})
            killer.join()
            assert mec.pull(["a", "b"]) == [[data, data[1:]]]


def test_an_interrupt_goes_through(mec: MultiEngineClient, session: SshSession) -> None:
    ignored = Path(f"/proc/{session.pid}/status").read_text().partition("SigIgn:")[2].split()[0]
    assert int(ignored, 16) & (1 << (signal.SIGINT - 1)), "Ctrl-C is not for ssh"
    pending = mec.execute("import time\nwhile True: time.sleep(0.01)", block=False, targets=0)
    mec.interrupt(targets=0)
    with pytest.raises(CompositeError) as caught:
        pending.get_result()
    assert "KeyboardInterrupt" in str(caught.value)


def test_no_secret_is_shown(
    mec: MultiEngineClient, session: SshSession, cluster: Controller, sshd: Server
) -> None:
    secret = str(cluster.furl("mec")).rpartition("/")[2].encode()
    assert session.pid is not None
    for pid in [session.pid, *relays(sshd.home)]:
        assert not any(secret in word for word in words_of(pid))
        assert secret not in Path(f"/proc/{pid}/environ").read_bytes()
    assert secret.decode() not in sshd.log.read_text()


def test_a_furl_of_ours_is_dialled_from_there(cluster: Controller, login: str, session: SshSession) -> None:
    with MultiEngineClient(str(cluster.furl_file("mec")), ssh=login) as client:
        assert client.get_ids() == [0, 1]
    monitor = session.furl("monitor")
    assert monitor == cluster.furl("monitor")


def test_a_furl_of_a_named_cluster(
    cluster: Controller, session: SshSession, sshd: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(sshd.home))
    records.save(ClusterRecord("big", "slurm", 2, furl_files={"mec": str(cluster.furl_file("mec"))}))
    assert session.furl("mec", "big") == cluster.furl("mec")
    with pytest.raises(FurlError, match="the cluster 'big' has no furl file for tc yet"):
        session.furl("tc", "big")


def test_plain_clients_use_a_forwarded_port(
    cluster: Controller, session: SshSession, tmp_path: Path, sshd: Server
) -> None:
    there = session.furl("mec")
    here = Furl(there.fingerprint, (session.forward(there.hints),), there.role, there.secret)
    furl.save(tmp_path / "mec.furl", here)
    with MultiEngineClient(str(tmp_path / "mec.furl")) as client:
        data = os.urandom(30_000_000)
        killer = kill_in_the_middle(session, 10_000_000)
        client.push({"data": data})
        killer.join()
        assert client.pull("data", targets=1) == [data]
    assert "it may come back within" not in cluster.log()


def test_when_all_is_closed_nothing_is_left_there(cluster: Controller, login: str, sshd: Server) -> None:
    with SshSession(login) as session, MultiEngineClient(ssh=session) as client:
        assert client.get_ids() == [0, 1]
        assert relays(sshd.home)
        number = cluster.log().count("is gone: it said goodbye")
    wait_until(lambda: cluster.log().count("is gone: it said goodbye") == number + 1, "its goodbye", 5)
    wait_until(lambda: not relays(sshd.home), "the end of the far end")


def test_nothing_is_left_there_when_the_laptop_is_killed(cluster: Controller, login: str, sshd: Server) -> None:
    program = (
        "import sys; from ipmpi.client import MultiEngineClient\n"
        "mec = MultiEngineClient(ssh=sys.argv[1]); print('up', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, login], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as laptop:
        assert laptop.stdout is not None
        assert laptop.stdout.readline() == b"up\n"
        assert relays(sshd.home)
        laptop.kill()
    wait_until(lambda: not relays(sshd.home), "the end of the far end", 5)


def test_no_controller_there(login: str, session: SshSession, sshd: Server, cluster: Controller) -> None:
    gone = Furl(cluster.furl("mec").fingerprint, (("127.0.0.1", 1),), "mec", bytes(32))
    with pytest.raises(ConnectionError, match=rf"127.0.0.1:1 through ssh {NAME}: Connection refused"):
        MultiEngineClient(str(gone), ssh=login)


def test_another_controller_than_that_of_the_furl(login: str, session: SshSession, cluster: Controller) -> None:
    real = cluster.furl("mec")
    forged = Furl(bytes(32), real.hints, "mec", real.secret)
    with pytest.raises(SecurityError, match="certificate"):
        MultiEngineClient(str(forged), ssh=login)


# --- ssh itself --------------------------------------------------------------------------------------------


def test_a_key_that_is_not_allowed(sshd: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = (
        (sshd.folder / "ssh_config").read_text().replace("IdentityFile", "PubkeyAuthentication no\n IdentityFile")
    )
    (tmp_path / "config").write_text(config)
    monkeypatch.setenv("IPMPI_SSH", f"ssh -F {tmp_path}/config")
    with pytest.raises(
        SecurityError, match=rf"ssh cannot log in to {NAME} \(.*Permission denied.*ssh {NAME} true"
    ):
        MultiEngineClient(ssh=NAME)


def test_a_host_key_that_has_changed(sshd: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wrong = (sshd.folder / "known").read_text().split(" ")[0] + " " + (sshd.folder / "user.pub").read_text()
    (tmp_path / "known").write_text(wrong)
    config = (sshd.folder / "ssh_config").read_text().replace(str(sshd.folder / "known"), str(tmp_path / "known"))
    (tmp_path / "config").write_text(config)
    monkeypatch.setenv("IPMPI_SSH", f"ssh -F {tmp_path}/config")
    with pytest.raises(SecurityError, match="Host key verification failed"):
        MultiEngineClient(ssh=NAME)


def test_questions_of_ssh_are_asked_on_the_terminal(sshd: Server, login: str, tmp_path: Path) -> None:
    config = (sshd.folder / "ssh_config").read_text().replace("Checking yes", "Checking ask")
    (tmp_path / "config").write_text(config.replace(str(sshd.folder / "known"), str(tmp_path / "known")))
    program = "import sys; from ipmpi.transport.ssh import ssh; print(ssh.SshSession(sys.argv[1]).run(['--help']))"
    spawn = "import pty, sys; pty.spawn(sys.argv[1:])"
    with subprocess.Popen(
        [sys.executable, "-c", spawn, sys.executable, "-c", program, login],
        env={**os.environ, "IPMPI_SSH": f"ssh -F {tmp_path}/config"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
    ) as laptop:  # fmt: skip
        assert laptop.stdout is not None
        assert laptop.stdin is not None
        said = b""
        while b"(yes/no" not in said:
            said += (more := laptop.stdout.read(1000))
            assert more, said
        laptop.stdin.write(b"yes\n")
        assert laptop.stdout.read().strip().endswith(b"0")


def test_a_machine_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPMPI_SSH", "ssh -F none -p 1")
    with pytest.raises(ConnectionError, match=r"ssh does not reach 127.0.0.1 \(.*refused.*must work first"):
        MultiEngineClient(ssh="127.0.0.1")


def test_ipcluster_is_not_installed_there(sshd: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPMPI_SSH", sshd.client)
    with pytest.raises(
        ConnectionError, match=f"there is no 'venv/bin/ipcluster' on {NAME} .*not found|No such file"
    ):
        MultiEngineClient(ssh=f"{NAME}:venv/bin/ipcluster")
