"""The doctor at real controllers and engines: each thing that it can find is made to be so."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ipmpi import __version__, furl
from ipmpi.cli import doctor
from ipmpi.furl import Furl
from ipmpi.launch.cluster import records

if TYPE_CHECKING:
    from real_clusters import Cluster

pytestmark = pytest.mark.slow

NewCluster = Callable[..., "Cluster"]
Examined = Callable[..., tuple[int, dict[str, dict[str, Any]]]]
ENGINE = [sys.executable, "-m", "ipmpi.cli.ipengine", "--mpi", "none"]
ROOT = str(Path(__file__).parents[3])


def test_a_cluster_in_good_health(new_cluster: NewCluster, examined: Examined) -> None:
    cluster = new_cluster()
    cluster.launch(ENGINE)
    cluster.launch(ENGINE)
    cluster.wait_for_engines(2)
    code, found = examined()
    assert code == 0
    good = ("furl-folder", "furl-permissions", "reach-mec", "reach-engine", "engines", "version", "clock")
    assert {check: found[check]["level"] for check in (*good, "shared-files", "engine-limits")} == dict.fromkeys(
        (*good, "shared-files", "engine-limits"), "ok"
    ), found
    assert found["reach-elsewhere"]["level"] == "note"  # the tests listen on loopback only
    assert list(cluster.home.glob(".ipmpi-doctor*")) == []
    assert (
        cluster.mec()
        .execute("x = sorted(n for n in dir() if 'doctor' in n or n == 'engine_info'); print(x)")[0]["stdout"]
        .startswith("[]")
    )


def test_what_the_controller_tells(new_cluster: NewCluster) -> None:
    info = new_cluster().mec().cluster_info()
    assert info["version"] == __version__
    assert info["time"] > info["up"] >= 0


@pytest.mark.parametrize(
    ("change", "check", "level", "text"),
    [
        ("import ipmpi; ipmpi.__version__ = '0.0.9'", "version-ipmpi", "warning", "Engine 0 has ipmpi 0.0.9"),
        (
            "import platform; platform.python_version = lambda: '3.9.1'",
            "version-python",
            "problem",
            "Python 3.9.1",
        ),
        ("import time; now = time.time; time.time = lambda: now() + 90", "clock", "warning", "90 s ahead of"),
        ("import time; now = time.time; time.time = lambda: now() - 3600", "clock", "warning", "3600 s behind"),
        ("import os; os.environ['OMP_NUM_THREADS'] = '4096'", "threads", "warning", "may start 4096 threads"),
    ],
)
def test_an_engine_that_differs(
    new_cluster: NewCluster, examined: Examined, change: str, check: str, level: str, text: str
) -> None:
    cluster = new_cluster()
    cluster.launch(ENGINE)
    cluster.wait_for_engines(1)
    cluster.mec().execute(change)
    code, found = examined()
    assert (found[check]["level"], code) == (level, int(level == "problem"))
    assert text in found[check]["text"]
    assert found[check]["fix"]


def test_packages_of_another_release(new_cluster: NewCluster, examined: Examined, tmp_path: Path) -> None:
    for name in ("numpy-1.2.3", "cloudpickle-0.5"):
        (tmp_path / f"{name}.dist-info").mkdir()
        title, _, version = name.partition("-")
        text = f"Metadata-Version: 2.1\nName: {title}\nVersion: {version}\n"
        (tmp_path / f"{name}.dist-info" / "METADATA").write_text(text)
    cluster = new_cluster()
    cluster.launch(ENGINE, PYTHONPATH=f"{tmp_path}:{ROOT}")
    cluster.wait_for_engines(1)
    code, found = examined()
    assert code == 0
    assert "numpy 1.2.3" in found["version-numpy"]["text"]
    assert found["version-numpy"]["level"] == "warning"
    assert "cloudpickle 0.5" in found["version-cloudpickle"]["text"]


def test_the_clock_of_the_controller(new_cluster: NewCluster, examined: Examined, tmp_path: Path) -> None:
    wrong = "import time\nnow = time.time\ntime.time = lambda: now() - 500\n"
    (tmp_path / "sitecustomize.py").write_text(wrong)
    new_cluster(PYTHONPATH=f"{tmp_path}:{ROOT}")
    _, found = examined()
    assert found["clock"]["level"] == "warning"
    assert found["clock"]["text"].startswith("The clock of the controller is 500 s behind this machine's")
    assert found["engines"]["text"] == "A controller runs, and no engine is registered."


@pytest.mark.parametrize(
    ("before", "check", "level", "text"),
    [
        ("ulimit -n 100", "ulimit-files", "problem", "Engine 0 on {host} may have 100 open files"),
        ("export TMPDIR={long}", "tmpdir-length", "warning", "TMPDIR of engine 0 on {host}"),
        ("export TMPDIR=/nowhere", "tmpdir", "problem", "cannot write in /nowhere"),
        ("export IPYTHONDIR={other}", "shared-files", "note", "Engine 0 does not see"),
    ],
)
def test_an_engine_in_a_bad_place(
    new_cluster: NewCluster,
    examined: Examined,
    tmp_path: Path,
    before: str,
    check: str,
    level: str,
    text: str,
) -> None:
    long, other = tmp_path / ("x" * 90), tmp_path / "other"
    long.mkdir()
    cluster = new_cluster()
    engine = shlex.join([*ENGINE, "--furl-file", cluster.files["engine_furl_file"]])
    cluster.launch(["/bin/sh", "-c", f"{before.format(long=long, other=other)}; exec {engine}"])
    cluster.wait_for_engines(1)
    code, found = examined()
    assert (found[check]["level"], code) == (level, int(level == "problem"))
    assert text.format(host=os.uname().nodename) in found[check]["text"]


def test_a_busy_engine_is_not_waited_for(new_cluster: NewCluster, examined: Examined) -> None:
    cluster = new_cluster()
    cluster.launch(ENGINE)
    cluster.launch(ENGINE)
    cluster.wait_for_engines(2)
    mec = cluster.mec()
    busy = mec.execute("import time; time.sleep(100)", targets=[1], block=False)
    code, found = examined("--timeout", "0.5")
    assert code == 0
    assert found["engines"]["text"] == "2 engines registered, 1 answered."
    assert "Engine 1 did not answer in time: busy with execute(" in found["engines-busy"]["text"]
    assert "time.sleep(100)" in found["engines-busy"]["text"]
    mec.interrupt()
    assert busy.wait(20)


# --- the way to the controller -------------------------------------------------------------------------------


def test_a_controller_of_another_protocol(new_cluster: NewCluster, examined: Examined, tmp_path: Path) -> None:
    older = "from ipmpi.protocol.handshake import ListenerHandshake\nmake = ListenerHandshake.__init__\n"
    older += "make.__defaults__ = ((0,), *make.__defaults__[1:])\n"
    (tmp_path / "sitecustomize.py").write_text(older)
    new_cluster(PYTHONPATH=f"{tmp_path}:{ROOT}")
    code, found = examined()
    assert code == 1
    assert found["reach-mec"]["level"] == "ok"
    assert "a client cannot work with it" in found["connect"]["text"]
    assert f"pip install 'ipmpi=={__version__}'" in found["connect"]["fix"]


def test_a_secret_that_is_not_valid_any_more(new_cluster: NewCluster, examined: Examined) -> None:
    cluster = new_cluster()
    path = Path(cluster.files["multiengine_furl_file"])
    known = furl.load(path, "mec")
    furl.save(path, Furl(known.fingerprint, known.hints, "mec", bytes(32)))
    code, found = examined()
    assert code == 1
    assert "Copy ipcontroller-mec.furl again" in found["connect"]["fix"]


def test_the_furl_of_another_controller(new_cluster: NewCluster, examined: Examined) -> None:
    cluster = new_cluster()
    path = Path(cluster.files["multiengine_furl_file"])
    furl.save(path, Furl.create(bytes(32), furl.load(path, "mec").hints, "mec"))
    code, found = examined()
    assert code == 1
    assert "Another controller than that of the mec furl answers" in found["reach-mec"]["text"]


def test_a_controller_that_has_ended(new_cluster: NewCluster, examined: Examined) -> None:
    cluster = new_cluster()
    cluster.controller.kill()
    cluster.controller.wait()
    code, found = examined()
    assert (code, found["reach-mec"]["level"]) == (0, "warning")
    code, found = examined("--furl-file", cluster.files["multiengine_furl_file"])
    assert (code, found["reach-mec"]["level"]) == (1, "problem")
    assert "Connection refused" in found["reach-mec"]["text"]


def test_hosts_that_cannot_be_reached(examined: Examined, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    path = tmp_path / "security" / "ipcontroller-mec.furl"
    furl.save(path, Furl.create(bytes(32), (("no-such-host.invalid", 10105),), "mec"))
    code, found = examined()
    assert code == 1
    assert "its name cannot be looked up" in found["reach-mec"]["text"]
    path.chmod(0o644)
    code, found = examined()
    assert (code, found["furl-permissions"]["level"]) == (1, "problem")
    assert "reach-mec" not in found  # a furl that somebody may have read is not used


def test_before_anything_is_started(examined: Examined, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    code, found = examined()
    assert code == 0
    assert found["furl-file"]["level"] == "note"
    code, found = examined("--furl-file", str(tmp_path / "nowhere"))
    assert (code, found["furl-file"]["text"]) == (1, f"There is no file {tmp_path}/nowhere.")
    code, found = examined("--furl-file", "ipmpi://x")
    assert (code, found["furl-file"]["level"]) == (1, "problem")


class Proxy:
    """An HTTP proxy by which all names and ports lead to one port of this machine."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.asked: list[str] = []
        self._sockets = [socket.create_server(("127.0.0.1", 0))]
        self._threads = [threading.Thread(target=self._accept)]
        self.url = f"http://127.0.0.1:{self._sockets[0].getsockname()[1]}"

    def __enter__(self) -> Proxy:
        self._threads[0].start()
        return self

    def __exit__(self, *why: object) -> None:
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits on it
        for thread in list(self._threads):
            thread.join(10)
        for sock in self._sockets:
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._sockets[0].accept()
            except OSError:
                return
            self._sockets.append(client)
            request = b""
            while b"\r\n\r\n" not in request:
                request += client.recv(4096)
            self.asked.append(request.split()[1].decode())
            far = socket.create_connection(("127.0.0.1", self._port))
            self._sockets.append(far)
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            for source, sink in ((client, far), (far, client)):
                self._threads.append(threading.Thread(target=self._copy, args=(source, sink)))
                self._threads[-1].start()

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("by", ["option", "environment"])
def test_through_a_proxy(
    new_cluster: NewCluster, examined: Examined, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    cluster = new_cluster()
    path = Path(cluster.files["multiengine_furl_file"])
    known = furl.load(path, "mec")
    # Another port, as a controller of this machine would be reached by the Unix socket beside its own.
    furl.save(path, Furl(known.fingerprint, (("controller.invalid", 9),), "mec", known.secret))
    with Proxy(known.hints[0][1]) as proxy:
        if by == "environment":
            monkeypatch.setenv("https_proxy", proxy.url)
        code, found = examined(*(("--proxy", proxy.url) if by == "option" else ()))
    assert code == 0, found
    assert found["reach-mec"]["level"] == "note"  # there is no direct way, and none is needed
    assert found["connect"]["text"].startswith("A client reaches the controller through the proxy 127.0.0.1:")
    assert proxy.asked[0] == "controller.invalid:9"


def test_a_proxy_that_is_not_there(new_cluster: NewCluster, examined: Examined) -> None:
    new_cluster()
    code, found = examined("--proxy", "http://127.0.0.1:9")
    assert code == 1
    assert "A client does not reach the controller through the proxy 127.0.0.1:9" in found["connect"]["text"]
    assert "--client-port 443" in found["connect"]["fix"]


def test_through_ssh(new_cluster: NewCluster, tmp_path: Path) -> None:
    """What stands for ssh runs the last word of its command line, on this machine."""
    new_cluster()
    ssh, far = tmp_path / "fake-ssh", tmp_path / "ipcluster"
    ssh.write_text('#!/bin/sh\nfor word; do :; done\nexec /bin/sh -c "$word"\n')
    home = tmp_path / "ipython"
    far.write_text(f'#!/bin/sh\nIPYTHONDIR={home} exec {sys.executable} -m ipmpi.cli.ipcluster "$@"\n')
    environ = {**os.environ, "IPYTHONDIR": str(tmp_path / "laptop"), "IPMPI_SSH": str(ssh), "PYTHONPATH": ROOT}

    def run() -> tuple[int, dict[str, dict[str, Any]]]:
        for path in (ssh, far):
            path.chmod(0o755)
        done = subprocess.run(
            [sys.executable, "-m", "ipmpi.cli.doctor", "--mpi", "none", "--json", "--ssh", f"user@login:{far}"],
            env=environ, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        diagnostics = json.loads(done.stdout)["findings"]
        return done.returncode, {diagnostic["check"]: diagnostic for diagnostic in diagnostics}

    code, found = run()
    assert code == 0, found
    assert found["connect"]["text"].startswith("A client reaches the controller through ssh user@login")
    assert found["engines"]["level"] == "note"
    assert found["clock"]["level"] == "ok"
    ssh.write_text("#!/bin/sh\necho 'Permission denied (publickey).' >&2\nexit 255\n")
    code, found = run()
    assert code == 1
    assert "Permission denied" in found["connect"]["text"]
    assert found["connect"]["fix"] == "Try by hand: ssh user@login ipcluster list"


# --- the command ---------------------------------------------------------------------------------------------


def test_a_small_limit_of_this_process(tmp_path: Path) -> None:
    command = shlex.join([sys.executable, "-m", "ipmpi.cli.doctor", "--mpi", "none", "--json"])
    done = subprocess.run(
        ["/bin/sh", "-c", f"ulimit -n 100; exec {command}"],
        env={**os.environ, "IPYTHONDIR": str(tmp_path), "PYTHONPATH": ROOT},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    found = {diagnostic["check"]: diagnostic for diagnostic in json.loads(done.stdout)["findings"]}
    assert done.returncode == 1
    assert found["ulimit-files"]["text"].startswith("This process may have 100 open files")


@pytest.mark.mpi
@pytest.mark.mpich
def test_it_names_the_mismatch(
    mpich_python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a user meets it: the mpiexec of one MPI, the Python of another."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", ROOT)
    code = doctor.main(["--launcher", str(Path(mpich_python).with_name("mpiexec"))])
    said = " ".join(capsys.readouterr().out.split())
    assert code == 1
    assert "problem An mpiexec of the MPICH family (hydra) started 2 ranks, but each thinks it is alone" in said
    assert said.endswith(("1 problem.", "warnings.", "1 warning."))


def test_no_mpi_is_loaded_and_bad_launchers_are_told(tmp_path: Path) -> None:
    program = "import sys; from ipmpi.cli import doctor; code = doctor.main(['--launcher', 'nosuchmpiexec'])\n"
    program += "sys.exit(2 if 'mpi4py.MPI' in sys.modules else code)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "IPYTHONDIR": str(tmp_path), "PYTHONPATH": ROOT},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "--launcher nosuchmpiexec: there is no such program" in " ".join(done.stdout.split())


def test_a_cluster_by_its_name(
    new_cluster: NewCluster, examined: Examined, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = new_cluster()
    moved = Path(cluster.files["multiengine_furl_file"]).rename(cluster.home / "security" / "mine-mec.furl")
    records.save(records.ClusterRecord(name="mine", kind="local", n=2, furl_files={"mec": str(moved)}))
    code, found = examined("mine")
    assert (code, found["reach-mec"]["level"], found["engines"]["level"]) == (0, "ok", "note")
    assert doctor.main(["yours"]) == 1
    assert "There is no cluster 'yours'. Those that are known: mine" in capsys.readouterr().err


def test_srun_that_is_not_set_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    srun = tmp_path / "srun"
    srun.write_text("#!/bin/sh\necho 'srun: fatal: Could not establish a configuration source' >&2\nexit 1\n")
    srun.chmod(0o755)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    doctor.main(["--launcher", "nosuchmpiexec", "--json"])
    found = {diagnostic["check"]: diagnostic for diagnostic in json.loads(capsys.readouterr().out)["findings"]}
    assert "Could not establish" in found["srun-mpi"]["text"]
    srun.write_text("#!/bin/sh\necho 'MPI plugin types are...'; echo '\tnone'; echo '\tpmi2'\n")
    doctor.main(["--launcher", "nosuchmpiexec", "--json"])
    found = {diagnostic["check"]: diagnostic for diagnostic in json.loads(capsys.readouterr().out)["findings"]}
    assert found["srun-mpi"]["text"] == "srun offers --mpi=none, pmi2."
