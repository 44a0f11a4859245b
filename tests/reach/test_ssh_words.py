"""What a far end prints reaches the user, and does nothing to his terminal or memory."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipmpi import limits
from ipmpi.errors import ConnectionError
from ipmpi.transport.ssh.ssh import SshSession


@pytest.fixture
def shell(fake_ssh: Path, tmp_path: Path) -> Iterator[SshSession]:
    """A session whose far end runs a line of shell where ipcluster should be."""
    program = (
        "import sys; from ipmpi.cli import relay; relay.IPCLUSTER = ('sh', '-c', 'eval \"$1\"', 'sh'); "
        "sys.exit(relay.main())"
    )
    path = fake_ssh / "odd"
    environ = f"export IPYTHONDIR={tmp_path} PYTHONPATH={os.getcwd()}"
    path.write_text(f"#!/bin/sh\n{environ}\nexec {shlex.quote(sys.executable)} -c {shlex.quote(program)}\n")
    path.chmod(0o755)
    with SshSession(f"login:{path}") as running:
        yield running


def test_what_the_far_end_prints_does_not_steer_the_terminal(shell: SshSession) -> None:
    lines: list[str] = []
    assert shell.run([r"printf '\033]0;title\007\tred\r\n\303\244 \302\233'; exit 3"], lines.append) == 3
    assert lines == ["?]0;title?\tred", "\u00e4 ?"]


def test_a_line_without_an_end_comes_in_pieces(shell: SshSession) -> None:
    sizes: list[int] = []
    size = 2 * limits.SSH_WINDOW
    assert shell.run([f"head -c {size} /dev/zero | tr '\\0' x"], lambda line: sizes.append(len(line))) == 0
    assert sum(sizes) == size
    assert limits.SSH_WINDOW < max(sizes) <= limits.SSH_WINDOW + limits.SSH_CHUNK


def test_what_ssh_says_does_not_steer_the_terminal(fake_ssh: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (fake_ssh / "broken").write_text("\033[2JGo away\r\nNow\n")
    with SshSession("login") as session, pytest.raises(ConnectionError, match="Now"):
        session.open()
    assert capfd.readouterr().err == "?[2JGo away\nNow\n"
