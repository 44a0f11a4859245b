"""Engines on other machines: which, and by which command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipmpi.cli import engines, ssh
from ipmpi.cli.options import set_arguments
from ipmpi.errors import LauncherError
from ipmpi.launch.cluster.hosts import HostOptions, engines_argv, read_clusterfile, read_hosts

PYTHON = """
# as the original had it
send_furl = True
engines = { 'host1.example.com' : 2,
            'me@host2' : 5 }
other = open('/etc/passwd').read()
"""


def test_hosts_of_the_command_line() -> None:
    assert read_hosts("h1:2, me@h2:4,h3") == {"h1": 2, "me@h2": 4, "h3": 1}


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("", r"'' is no name of a host"),
        ("-oProxyCommand=x:1", "is no name of a host; write HOST:ENGINES"),
        ("a b:1", "is no name of a host"),
        ("h:0", r"'0' is not a number of engines for h \(1 to 65536\)"),
        ("h:many", "is not a number of engines"),
        ("h:1,h:2", "h is there twice"),
    ],
)
def test_hosts_that_are_refused(text: str, refusal: str) -> None:
    with pytest.raises(LauncherError, match=refusal):
        read_hosts(text)


@pytest.mark.parametrize("text", [PYTHON, "[engines]\n'host1.example.com' = 2\n'me@host2' = 5\n"])
def test_cluster_files_are_read_and_never_run(tmp_path: Path, text: str) -> None:
    path = tmp_path / "clusterfile.py"
    path.write_text(text)
    assert read_clusterfile(path) == {"host1.example.com": 2, "me@host2": 5}


def test_toml_that_could_be_python(tmp_path: Path) -> None:
    path = tmp_path / "clusterfile"
    path.write_text("# ours\n[engines]\nh1 = 2\nh2 = 4\n")
    assert read_clusterfile(path) == {"h1": 2, "h2": 4}


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("send_furl = True\n", "names no engines"),
        ("engines = dict(h=1)\n", "names no engines"),
        ("engines = {'h': 'x'}\n", "is not a number of engines for h"),
        ("}{", "is neither TOML nor Python"),
    ],
)
def test_cluster_files_that_are_refused(tmp_path: Path, text: str, refusal: str) -> None:
    path = tmp_path / "clusterfile"
    path.write_text(text)
    with pytest.raises(LauncherError, match=refusal):
        read_clusterfile(path)


def test_a_missing_cluster_file(tmp_path: Path) -> None:
    with pytest.raises(LauncherError, match="cannot be read"):
        read_clusterfile(tmp_path / "nothing")


def test_the_furl_is_not_in_the_command_line() -> None:
    options = HostOptions({"h1": 2}, Path("/l"), "1", Path("/secret.furl"), mpi="none", remote="env/bin/ipcluster")
    argv = engines_argv(options, "h1", 2, {"IPMPI_SSH": "ssh -F '/my config'"})
    assert argv[:3] == ["ssh", "-F", "/my config"]
    assert argv[-3:-1] == ["--", "h1"]
    assert argv[-1] == "env/bin/ipcluster engines -n 2 --furl-file - --mpi none --timeout 60"


def test_options_of_the_set_reach_the_other_machines() -> None:
    parsed = ssh.parser().parse_args(["--hosts", "h1:2", "--comm", "polled", "--on-loss", "abort"])
    options = HostOptions({"h1": 2}, Path("/l"), "1", Path("/f"), arguments=tuple(set_arguments(parsed)))
    far = engines_argv(options, "h1", 2, {})[-1]
    assert far == "ipcluster engines -n 2 --furl-file - --mpi auto --timeout 60 --comm polled --on-loss abort"
    there = engines.parser().parse_args(far.split()[2:])
    assert (there.comm, there.on_loss) == ("polled", "abort")
