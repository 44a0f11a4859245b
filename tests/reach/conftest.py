"""A real OpenSSH server on loopback, and what is behind it."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.processes import processes_with
from tests.security.cluster import environment, wait_until

NAME = "login"


def far_command(folder: Path, home: Path, environ: Mapping[str, str]) -> Path:
    """ipcluster as pip installs it there; what a login prints before it is part of the trouble."""
    path = folder / "ipcluster"
    known = environment(home)
    variables = {name: known[name] for name in ("IPYTHONDIR", "PYTHONPATH")} | environ
    lines = [f"export {name}={shlex.quote(text)}" for name, text in variables.items()]
    python = shlex.quote(sys.executable)
    path.write_text(
        "#!/bin/sh\necho Welcome to the login node\n" + "\n".join(lines) + "\n"
        f'exec {python} -m ipmpi.cli.ipcluster "$@"\n'
    )
    path.chmod(0o755)
    return path


def relays(home: Path) -> list[int]:
    """Processes of far ends with this IPYTHONDIR that run now."""
    return [pid for pid in processes_with(f"IPYTHONDIR={home}") if b"relay" in words_of(pid)]


def words_of(pid: int) -> list[bytes]:
    """The command line of a process."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


class Server:
    """An sshd with a host key, a user key and a configuration of its own, which nobody else uses.

    Attributes:
        home: IPYTHONDIR at the far end.
        client: what ``IPMPI_SSH`` has to be.
        remote: what runs ipcluster at the far end.
    """

    def __init__(self, folder: Path, sshd: str, **environ: str) -> None:
        self.folder = folder
        self.home = folder / "far"
        self.home.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        for key in ("host", "user"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True, timeout=20
            )
        shutil.copy(folder / "user.pub", folder / "authorized")
        public = (folder / "host.pub").read_text()
        (folder / "known").write_text(f"[127.0.0.1]:{self.port} {public}")
        self.remote = str(far_command(folder, self.home, environ))
        (folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nPasswordAuthentication no\n"
            f"KbdInteractiveAuthentication no\nPrintMotd no\nBanner {folder}/banner\nMaxStartups 100\n"
        )
        (folder / "banner").write_text("Authorized use only.\n")
        (folder / "ssh_config").write_text(
            f"Host {NAME}\n HostName 127.0.0.1\n Port {self.port}\n User {getpass.getuser()}\n"
            f" IdentityFile {folder}/user\n IdentitiesOnly yes\n UserKnownHostsFile {folder}/known\n"
            " GlobalKnownHostsFile none\n StrictHostKeyChecking yes\n"
        )
        self.client = shlex.join(["ssh", "-F", str(folder / "ssh_config")])
        self.log = folder / "sshd.log"
        # Its own folder for privilege separation is a path fixed at build time.
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
        with open(self.log, "ab") as log:
            # It ends with its input, so also when the tests are killed.
            self.process = subprocess.Popen(
                ["/bin/sh", "-c", '"$@" & cat; kill $!; wait', "sh",
                 sshd, "-D", "-e", "-f", f"{folder}/sshd_config"],
                stdin=subprocess.PIPE, stdout=log, stderr=log,
            )  # fmt: skip
        wait_until(self._listens, "an sshd that listens")

    def _listens(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(self.log.read_text())
        return "Server listening" in self.log.read_text()

    def logins(self) -> int:
        """How often somebody has logged in."""
        return self.log.read_text().count("Accepted publickey")

    def stop(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(10)


def find_sshd(need: Callable[[str, object], None]) -> str:
    """The path of the server's program."""
    program = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    need("no OpenSSH server; install openssh-server", program)
    need("no OpenSSH client; install openssh-client", shutil.which("ssh"))
    assert program is not None
    return program


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory, need: Callable[[str, object], None]) -> Iterator[Server]:
    """The server."""
    server = Server(tmp_path_factory.mktemp("ssh"), find_sshd(need))
    yield server
    server.stop()


FAKE = """#!/bin/sh
# An ssh without a network: it runs the command here.
echo "$@" >>"$(dirname "$0")/logins"
if [ -e "$(dirname "$0")/broken" ]; then cat "$(dirname "$0")/broken" >&2; exit 255; fi
for command; do :; done
exec sh -c "exec $command"
"""


@pytest.fixture
def fake_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder; its file ``logins`` has a line for each start, and ``broken`` makes the next ones fail."""
    program = tmp_path / "ssh"
    program.write_text(FAKE)
    program.chmod(0o755)
    monkeypatch.setenv("IPMPI_SSH", str(program))
    return tmp_path


@pytest.fixture
def login(sshd: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """What to give for ``ssh=``."""
    monkeypatch.setenv("IPMPI_SSH", sshd.client)
    return f"{NAME}:{sshd.remote}"
