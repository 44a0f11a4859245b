"""``ipcontroller`` as a process: options, furl files, restarts, signals."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ipmpi import furl
from ipmpi.client import MultiEngineClient
from ipmpi.client.session.connecting import connect
from ipmpi.errors import ConnectionError, SecurityError
from ipmpi.furl import Furl
from ipmpi.protocol import messages as m
from ipmpi.transport.dial.addresses import is_unspecified
from tests.ports import fixed_port
from tests.security.cluster import LOOPBACK, Controller, controller, run_command, wait_until
from tests.security.wire import Member

ROLES = ("engine", "mec", "tc", "monitor")
COMMAND = "ipmpi.cli.ipcontroller"


def furls(running: Controller) -> dict[str, str]:
    return {role: running.furl_file(role).read_text() for role in ROLES}


def restarted(home: Path, options: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The furls before and after a restart."""
    with controller(home, options) as first:
        before = furls(first)
    with controller(home, options) as second:
        return before, furls(second)


def test_furl_files_are_private_and_each_role_has_its_own_secret(tmp_path: Path) -> None:
    with controller(tmp_path) as running:
        folder = tmp_path / "security"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {path.name for path in folder.iterdir()} == set(furl.FILES.values())
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in folder.iterdir())
        assert len({running.furl(role).secret for role in ROLES}) == 4


def test_fixed_ports_keep_certificate_and_secrets_over_a_restart(tmp_path: Path) -> None:
    ports = ["--client-port", str(fixed_port()), "--engine-port", str(fixed_port())]
    before, after = restarted(tmp_path, [*LOOPBACK, *ports])
    assert before == after
    for side in ("client", "engine"):
        assert stat.S_IMODE((tmp_path / "security" / f"ipcontroller-{side}.pem").stat().st_mode) == 0o600


def test_random_ports_make_everything_new(tmp_path: Path) -> None:
    before, after = restarted(tmp_path, [*LOOPBACK])
    for role in ROLES:
        old, new = Furl.parse(before[role]), Furl.parse(after[role])
        assert old.secret != new.secret
        assert old.fingerprint != new.fingerprint


def test_locations_are_what_the_furls_say(tmp_path: Path) -> None:
    places = ["--client-location", "login.example, 10.0.0.7", "--engine-location", "ib0.example"]
    with controller(tmp_path, [*LOOPBACK, *places]) as running:
        port = running.furl("mec").hints[0][1]
        assert running.furl("mec").hints == (("login.example", port), ("10.0.0.7", port))
        assert [host for host, _ in running.furl("engine").hints] == ["ib0.example"]


@pytest.mark.parametrize("ip", ["", "::", "0.0.0.0"])
def test_no_furl_has_an_address_that_means_another_machine_wherever_it_is_read(tmp_path: Path, ip: str) -> None:
    options = ["--client-ip", ip, "--engine-ip", ip] if ip else []
    with controller(tmp_path, options) as running:
        for role in ("mec", "engine"):
            hosts = [host for host, _ in running.furl(role).hints]
            assert not any(map(is_unspecified, hosts)), hosts
            assert hosts[-1] in ("127.0.0.1", "::1")
            assert any(":" in host for host in hosts) <= (ip != "0.0.0.0")


@pytest.mark.parametrize("location", ["0.0.0.0", "login1,::"])
def test_a_location_that_means_this_machine_wherever_it_is_read_is_refused(tmp_path: Path, location: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ipmpi.cli.ipcontroller", *LOOPBACK, "--engine-location", location],
        env={**os.environ, "IPYTHONDIR": str(tmp_path)}, capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "means 'this machine' wherever it is read. Give a name or an address" in done.stderr
    assert not (tmp_path / "security" / "ipcontroller-engine.furl").exists()


def test_furl_files_where_they_were_asked_for(tmp_path: Path) -> None:
    names = {"engine": "engine", "multiengine": "mec", "task": "tc", "monitor": "monitor"}
    options = [part for name in names for part in (f"--{name}-furl-file", str(tmp_path / "own" / name))]
    with controller(tmp_path, [*LOOPBACK, *options]) as running:
        for name, role in names.items():
            assert furl.load(tmp_path / "own" / name).role == role
        assert running.told[0]["multiengine_furl_file"] == str(tmp_path / "own" / "multiengine")


def test_log_file_with_a_prefix(tmp_path: Path) -> None:
    with controller(tmp_path, [*LOOPBACK, "-l", str(tmp_path / "log" / "ipcontroller-")]) as running:
        path = tmp_path / "log" / f"ipcontroller-{os.uname().nodename}-{running.pid}.log"
        wait_until(lambda: "Controller is ready" in path.read_text(), "the last line of the start")
        assert running.log() == ""
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("first", ["closed port", "silent", "unknown name"])
def test_second_host_hint_is_used_where_the_first_does_not_answer(tmp_path: Path, first: str) -> None:
    with controller(tmp_path) as running, socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        if first == "silent":
            silent.listen()
        host = "name.invalid" if first == "unknown name" else "127.0.0.1"
        real = running.furl("mec")
        session = connect(str(Furl(real.fingerprint, ((host, port), *real.hints), "mec", real.secret)))
        assert session.request(m.GetIds).result(5) == []
        session.close()


def test_second_address_of_a_name_is_used_where_the_first_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Like localhost, which is ::1 first on many machines, and a controller that listens on 127.0.0.1."""
    with controller(tmp_path) as running, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        real = running.furl("mec")
        look_up = socket.getaddrinfo

        def two_addresses(host: str, port: int, **how: object) -> list[object]:
            entry = look_up("127.0.0.1", port, type=socket.SOCK_STREAM)[0]
            return [(*entry[:4], closed.getsockname()), entry] if host == "two.example" else [entry]

        monkeypatch.setattr(socket, "getaddrinfo", two_addresses)
        session = connect(str(Furl(real.fingerprint, (("two.example", real.hints[0][1]),), "mec", real.secret)))
        assert session.request(m.GetIds).result(5) == []
        session.close()


def test_wrong_certificate_behind_one_hint_does_not_hide_the_right_one(tmp_path: Path) -> None:
    with controller(tmp_path) as running:
        real, other = running.furl("mec"), running.furl("engine")
        session = connect(str(Furl(real.fingerprint, (*other.hints, *real.hints), "mec", real.secret)))
        session.close()


INTERFACE = """
from ipmpi.controller.interfaces import Interface
from ipmpi.protocol import messages

reader = Interface(
    "reader",
    frozenset({messages.GetIds, messages.QueueStatus, messages.ClusterInfo}),
    permits=lambda message: not isinstance(message, messages.QueueStatus) or message.targets == [],
)
not_an_interface = 5
"""


def test_custom_interface_has_a_furl_of_its_own_and_its_permits_decides(tmp_path: Path) -> None:
    (tmp_path / "site_interface.py").write_text(INTERFACE)
    options = [*LOOPBACK, "--interface", "site_interface:reader"]
    with controller(tmp_path, options, cwd=tmp_path) as running:
        address = running.furl("reader")
        assert address.secret not in {running.furl(role).secret for role in ROLES}
        with Member(address) as member:
            member.say(m.GetIds(1))
            assert member.hear(m.Reply).value == []
            member.say(m.QueueStatus(2, []))
            assert member.hear(m.Reply).value == []
            member.say(m.QueueStatus(3, None))
            refused = member.hear(m.Refused)
            assert (refused.id, refused.error) == (3, "SecurityError")
            assert "'reader'" in refused.text
            assert not member.is_ended()
            member.say(m.Kill(4, None))
            assert member.is_ended()


@pytest.mark.parametrize(
    "name", ["site_interface:missing", "nowhere:reader", "site_interface:not_an_interface", ""]
)
def test_interface_that_is_none_is_explained(tmp_path: Path, name: str) -> None:
    (tmp_path / "site_interface.py").write_text(INTERFACE)
    code, screen, _ = run_command(COMMAND, tmp_path, *LOOPBACK, "--interface", name)
    assert code == (1 if name else 2)
    assert (f"--interface {name}" if name else "--interface: '' is no plug-in") in screen
    assert "Traceback" not in screen


ORDER = """
class Longest:
    newest_first = False

    def rank(self, queued):
        return (-(queued.expected or 0.0),)

class Unfinished:
    newest_first = False
"""


def test_scheduler_of_ones_own_decides_which_task_is_next(tmp_path: Path) -> None:
    (tmp_path / "site_order.py").write_text(ORDER)
    options = [*LOOPBACK, "--scheduler", "site_order:Longest"]
    with (
        controller(tmp_path, options, cwd=tmp_path) as running,
        Member(running.furl("tc")) as client,
        Member(running.furl("engine")) as engine,
    ):
        for number, expected in ((1, 1.0), (2, 3.0), (3, 2.0)):
            terms = m.TaskOptions(b"", f"{number}", expected=expected)
            client.say(m.SubmitTasks(number, terms, bytes(4), [0]), body=[b""])
        client.say(m.TaskStatus(4))
        assert client.hear(m.Reply).value["scheduled"] == 3
        engine.say(m.Register([m.EngineInfo(0, 0, "host", 1)], "", ""))
        engine.say(m.WantTasks(3))
        assert [engine.hear(m.GiveTasks).options.label for _ in range(3)] == ["2", "3", "1"]


@pytest.mark.parametrize("name", ["best", "site_order:missing", "site_order:Unfinished", "nowhere:Longest"])
def test_scheduler_that_is_none_is_explained(tmp_path: Path, name: str) -> None:
    (tmp_path / "site_order.py").write_text(ORDER)
    code, screen, _ = run_command(COMMAND, tmp_path, *LOOPBACK, "--scheduler", name)
    assert code == 1
    assert f"--scheduler {name}" in screen
    assert "Traceback" not in screen


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    with controller(tmp_path) as running:
        assert running.stop(number) == 0
        assert running.log().rstrip().endswith("Controller stopped")
        assert "Traceback" not in running.log()


def test_it_ends_with_whoever_started_it(tmp_path: Path) -> None:
    read, write = os.pipe()
    try:
        with controller(tmp_path, [*LOOPBACK, "--lifeline-fd", str(read)], pass_fds=[read]) as running:
            assert running.is_alive()
            os.close(write)
            write = -1
            assert running.process.wait(5) == 0
            assert "the parent process of this controller has ended" in running.log()
    finally:
        os.close(read)
        if write >= 0:
            os.close(write)


def test_clients_are_told_why_it_was_stopped(tmp_path: Path) -> None:
    read, write = os.pipe()
    try:
        with controller(tmp_path, [*LOOPBACK, "--lifeline-fd", str(read)], pass_fds=[read]) as running:
            client = MultiEngineClient(str(running.furl_file("mec")))
            assert client.get_ids() == []
            os.write(write, b"nonsense\n" + json.dumps({"stopped": "All engines have ended: because."}).encode())
            os.write(write, b"\n")
            assert running.stop(signal.SIGINT) == 0
            with pytest.raises(ConnectionError, match=r"was stopped: All engines have ended: because\. Make"):
                client.get_ids()
            assert "said something unexpected: b'nonsense'" in running.log()
    finally:
        os.close(read)
        os.close(write)


def core_limit(pid: int) -> list[str]:
    line = next(
        x for x in Path(f"/proc/{pid}/limits").read_text().splitlines() if x.startswith("Max core file size")
    )
    return line.split()[4:6]


def test_no_core_file_is_possible(tmp_path: Path) -> None:
    with controller(tmp_path, cwd=tmp_path) as running:
        assert core_limit(running.pid) == ["0", "0"]
        assert running.stop(signal.SIGSEGV) == -signal.SIGSEGV
        assert not [path for path in tmp_path.iterdir() if path.name.startswith("core")]


def test_stranger_with_an_old_furl_is_told(tmp_path: Path) -> None:
    ports = ["--client-port", str(fixed_port())]
    with controller(tmp_path, [*LOOPBACK, *ports]) as running:
        real = running.furl("mec")
        running.furl_file("mec").unlink()
    with controller(tmp_path, [*LOOPBACK, *ports]) as running:
        assert running.furl("mec").fingerprint == real.fingerprint
        with pytest.raises(SecurityError, match="does not accept the 'mec' furl"):
            connect(str(real))
        wait_until(lambda: "refused a connection" in running.log(), "the refusal in the log")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_running_out_of_descriptors_is_survived_without_a_storm(tmp_path: Path) -> None:
    with controller(tmp_path) as running, contextlib.ExitStack() as stack:
        used = {int(path.name) for path in Path(f"/proc/{running.pid}/fd").iterdir()}
        limit = 1 + [number for number in range(100) if number not in used][2]  # three numbers are free below it
        resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (limit, limit))
        members = [stack.enter_context(Member(running.furl("mec"))) for _ in range(3)]
        waiting = [stack.enter_context(socket.create_connection(running.address("mec"), 5)) for _ in range(3)]
        wait_until(lambda: "cannot be accepted" in running.log(), "the line in the log")
        before = cpu_seconds(running.pid)
        for _ in range(50):
            members[0].ping()
            time.sleep(0.01)
        assert cpu_seconds(running.pid) - before < 0.25
        assert running.log().count("cannot be accepted") == 1
        for sock in waiting:
            sock.close()
        members.pop().close()
        with Member(running.furl("mec")) as member:
            member.ping()


def test_as_many_descriptors_as_the_system_allows(tmp_path: Path) -> None:
    with controller(tmp_path) as running:
        soft, hard = resource.prlimit(running.pid, resource.RLIMIT_NOFILE)
        assert soft == hard


def test_it_loads_nothing_that_only_ipcluster_needs() -> None:
    """Most of the time from the end of a controller until the next one listens is the loading of modules."""
    code = "import sys, ipmpi.cli.ipcontroller; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "ipmpi.controller.service" in loaded
    assert [name for name in loaded if name.startswith("ipmpi.launch") or name in ("psutil", "jinja2")] == []
