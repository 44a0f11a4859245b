"""Every option of every command at its extremes: refused with one sentence, and no traceback.

The options are found by introspection. An option without a row fails: see ``KINDS``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ipmpi.cli import ipcluster, ipcontroller, ipengine, local, options as options_of, steerconfig
from ipmpi.limits import MAX_ENGINES

DEEP = "/" + "a/" * 1000
OTHERS = ["", "-x", "..", DEEP]
"""What each row of ``KINDS`` either refuses or takes."""

NO_NUMBER = [*OTHERS, "x", "1x", "0x10", "1.5.2", "nan", "-nan", "\ud800", "1 000", "5" * 5000, "a" * 100_000]
NO_INT = [*NO_NUMBER, "1.5", "inf", "1e3"]
NO_DIGITS = [*NO_INT, "+1", " 1", "1_0"]

LONG = "a" * 1_000_000
NO_TEXT = ["\0", "a\0b", "\ud800", "a\nb", LONG]
"""What no option takes."""

KINDS: dict[str, tuple[list[str], list[str]]] = {
    "engine_number": ([*NO_INT, "0", "-1", str(MAX_ENGINES + 1), str(2**64)], ["1", str(MAX_ENGINES)]),
    "count": ([*NO_DIGITS, "0", "-1", str(2**64), "1000000"], ["1"]),
    "whole_seconds": ([*NO_DIGITS, "-1", str(2**64), "-inf"], ["0", "1"]),
    "seconds": ([*NO_NUMBER, "0", "-1", "inf", "-inf", "1e400", "1e6"], ["1e-3", "5", "999999"]),
    "seconds_or_none": ([*NO_NUMBER, "-1", "inf", "-inf", "1e400", "1e10"], ["0", "0.5", "3600"]),
    "lines": ([*NO_DIGITS, "-1", str(2**64), "10000000"], ["0", "1", "9999999"]),
    "log_lines": ([*NO_DIGITS, "-1", str(2**64), "10001"], ["0", "1", "10000"]),
    "duration": ([*OTHERS, "0s", "7", "7 d", "-1d", "1.5h", "9" * 12 + "w", "7D"], ["1s", "30m", "12h", "7d"]),
    "size": ([*OTHERS, "-1", "1.5G", "10 G", "G", "9" * 16], ["0", "10G", "500m", "1048576"]),
    "task_name": (["", " ", "a\tb", DEEP, LONG[:121]], ["sweep-12", "unnamed-17", "-x", ".."]),
    "result_file": (["", " ", LONG[:256], "~no-such-user/x"], ["-x", "..", DEEP, "~/x", "a.npz"]),
    "walltime": (
        [*OTHERS, "x", "nan", "inf", "-1", "1:2:3:4:5", "9" * 5000],
        ["1:00:00", "10m", "2-00:00:00"],
    ),
    "gpus": ([*OTHERS, "x,", "a b", "-1", "0", str(2**64), "1.5"], ["1"]),
    "launcher_option": (["", " ", "'"], ["--bind-to none", "x", "-x", "..", DEEP]),
    "gpu_order": ([*OTHERS, "4", "x,y", "0,0", "0,-1", "1.5,2"], ["1,0", "3,2,1,0"]),
    "count_or_none": ([*NO_DIGITS, "-1", str(2**64)], ["0", "1"]),
    "port": ([*NO_INT, "-1", "65536", str(2**64)], ["0", "8000", "65535"]),
    # What else is wrong with a proxy is found when it is used: tests/reach/test_proxy.py.
    "proxy": (["http://user:password@h:3128", "-x", "a b"], ["http://h:3128", "none", "", "..", DEEP]),
    "url": (["-x", "http://h: 3128"], ["http://h:3128", "none", "", "..", DEEP]),
    "line": ([], ["", " ", "-x", "..", DEEP, "64 ranks: Grüße"]),
    "some_line": (["", " ", "\t"], ["-C nvme", "module load x", "-x", "..", DEEP]),
    "word": (["a b", "a\tb"], ["", "gpu&ib", "-x", "..", DEEP]),
    "_memory": (["-x", "..", DEEP, "64 G", "1.5G", "G", "9" * 13], ["", "64G", "500M", "1"]),
    "path_name": ([LONG[:256], "~no-such-user/x", "/a" * 2048], ["", "-x", "..", DEEP, "~/x", "\udcff", "a b"]),
    "path": ([LONG[:256], "~no-such-user/x", "/a" * 2048], ["", "-x", "..", DEEP, "~/x", "\udcff", "a b"]),
    "some_path": (["", " ", LONG[:256], "~no-such-user/x"], ["-x", "..", DEEP, "~/x", "a b"]),
    "furl_or_path": (
        [LONG[:256], "~no-such-user/x", f"ipmpi://{LONG}", "ipmpi://a@\0/mec/a"],
        ["", "-", "-x", "..", DEEP, "~/x", "ipmpi://"],
    ),
    "cluster_name": (["-x", "..", DEEP, "a/b", "ipcontroller-x", "a b", LONG[:65]], ["", "a", "a+2", LONG[:64]]),
    "new_cluster_name": (["-x", "..", DEEP, "a/b", "ipcontroller-x", "a b", "a+2"], ["", "a", LONG[:64]]),
    "_cluster_or_job": (["-x", "..", DEEP, "a b"], ["", "a", "12", "12[].server", "12_3"]),
    "system_name": (["-x", "..", DEEP, "condor"], ["", "slurm", "pbs"]),
    "_kind_named": (["-x", "..", DEEP, "condor"], ["", "local", "slurm"]),
    "host": (
        ["-x", "..", DEEP, "a b", "a..b", LONG[:64], "http://me"],
        ["", "me.example.", "::1", "fe80::1%eth0"],
    ),
    "hosts": (["-x", "..", DEEP, "a,b c", "a,-x", "a," * 17, "http://me"], ["", "me.example, 10.0.0.1,::1"]),
    "engines_on_hosts": (
        ["", "-x", "..", DEEP, "a:0", "a:-1", f"a:{2**64}", "a,a", "a:1,", "a b"],
        ["a", "me@a:2,b:3"],
    ),
    "destination": (
        ["-x", "a b", "me@", "me@-x", "a:'", ":x"],
        ["", "..", DEEP, "me@a", "a:bin/ipcluster -x"],
    ),
    "command": (["-x", " ", "'"], ["", "..", DEEP, "srun --mpi=pmix"]),
    "scheduler": (["-x", "..", DEEP, "a b", "a:b:c", ":x", "1a"], ["", "lifo", "my.module:Order"]),
    "admission": (["", "-x", "..", DEEP, "All", "none"], ["all", "ask"]),
    "lasting": ([*OTHERS, "x", "nan", "inf", "-1", "0", "367-00:00:00", "9" * 5000], ["1s", "2h", "366-00:00:00"]),
    "file_or_screen": ([LONG[:256], "~no-such-user/x", "/a" * 2048], ["-", "", "-x", "..", DEEP, "~/x", "a b"]),
    "total": ([*NO_DIGITS, "-1", str(2**64), "1.5G", "G", "9999999T"], ["0", "500", "64k", "2G", "1T"]),
    "engine_ids": (
        [*NO_NUMBER, "-1", "1-0", "0-", "0,,1", str(MAX_ENGINES), f"0-{2**64}", "1.5"],
        ["0", "0-3,7", "0, 2"],
    ),
    "furl_id": ([*OTHERS, "a b", "ABC", "1", "a" * 17], ["7ab3", "a" * 16]),
    "plug_in": (["", "-x", "..", DEEP, "a", "a:b:c", ":x", "a:"], ["my.module:name"]),
}
"""By the name of an option's ``type``: what its parser refuses, and extremes that it takes."""

CHOICES = ([*OTHERS, "no-such-choice"], [])
"""The same for an option with a list of words."""


def options() -> Iterator[tuple[str, str, argparse.ArgumentParser, argparse.Action]]:
    """Command, name, parser and option, of all that take a value and are for people."""
    parsers = {f"ipcluster {name}": parser for name, parser in ipcluster.parsers().items()}
    parsers |= {"ipcontroller": ipcontroller.parser(), "ipengine": ipengine.parser()}
    parsers["ipmpi-steer-config"] = steerconfig.parser()
    for command, parser in parsers.items():
        for action in parser._actions:
            if action.nargs != 0 and action.help is not argparse.SUPPRESS:
                yield command, (action.option_strings or [action.dest])[-1], parser, action


ALL = list(options())
IDS = [f"{command} {name}" for command, name, *_ in ALL]


def row(action: argparse.Action) -> tuple[list[str], list[str]] | None:
    if action.choices is not None and action.type is None:
        return CHOICES
    return KINDS.get(getattr(action.type, "__name__", ""))


@pytest.mark.parametrize(("command", "name", "parser", "action"), ALL, ids=IDS)
def test_every_option_has_a_row(
    command: str, name: str, parser: argparse.ArgumentParser, action: argparse.Action
) -> None:
    kind = getattr(action.type, "__name__", None)
    found = row(action)
    assert found is not None, (
        f"{command} has an option {name} with type={kind}: add to KINDS in tests/cli/test_extremes.py what that "
        "refuses, and extremes that it takes. If it takes text, there is a type for it in ipmpi/cli/argtypes.py"
    )
    missing = set(OTHERS) - {*found[0], *found[1]}
    assert not missing, f"say in the row of {kind} whether it takes {[text[:20] for text in missing]}"


def positional(name: str) -> bool:
    return not name.startswith("-")


@pytest.mark.parametrize(("command", "name", "parser", "action"), ALL, ids=IDS)
def test_extremes_are_refused_in_one_sentence(
    command: str,
    name: str,
    parser: argparse.ArgumentParser,
    action: argparse.Action,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = row(action)
    assert found is not None
    wrong, taken = found
    # The option alone: what else a command needs is not the matter here.
    alone = type(parser)(prog=command)
    alone.add_argument(name, type=action.type, nargs=action.nargs, const=action.const, choices=action.choices)
    for text in [*wrong, *NO_TEXT]:
        with pytest.raises(SystemExit) as ended:
            alone.parse_args(["--", text] if positional(name) else [f"{name}={text}"])
        said = capsys.readouterr().err
        assert ended.value.code == 2, text[:40]
        assert f"argument {name}: " in said or f"argument {action.metavar}: " in said
        assert len(said) < 1000
        assert "Traceback" not in said
    for text in [*taken, *(action.choices or ())]:
        alone.parse_args(["--", text] if positional(name) else [f"{name}={text}"])


@pytest.mark.parametrize(("command", "name", "parser", "action"), ALL, ids=IDS)
def test_a_default_is_what_the_option_would_take(
    command: str, name: str, parser: argparse.ArgumentParser, action: argparse.Action
) -> None:
    if isinstance(action.default, str) and callable(action.type):
        action.type(action.default)  # argparse does this, too, and would refuse a command line without the option


def test_the_table_names_what_there_is() -> None:
    """Rows of options and types that are no more would say that something is tested which is not."""
    assert set(KINDS) <= {getattr(action.type, "__name__", "") for *_, action in ALL}


@pytest.mark.parametrize(
    ("main", "words"),
    [
        (ipcontroller.main, ["--name=a/b"]),
        (ipcontroller.main, ["-l", "~no-such-user/log"]),
        (ipcontroller.main, ["--client-port=65536"]),
        (ipcontroller.main, ["--journal=~no-such-user/journal", "--client-port=1", "--engine-port=2"]),
        (ipengine.main, ["--furl-file=a\0b"]),
        (ipcluster.main, ["--task-furl-file", LONG]),
        (ipcluster.main, ["--detach", "--logdir=~no-such-user/log"]),
        (ipcluster.main, ["ssh", "--hosts="]),
        (ipcluster.main, ["slurm", "-n", "2", "--detach", "--memory=much"]),
        (ipcluster.main, ["engines", "--kind=condor"]),
        (ipcluster.main, [LONG]),
        (ipcluster.main, ["stop", "-" + LONG]),
    ],
    ids=lambda each: each[0][:20] if isinstance(each, list) else each.__module__,
)
def test_nothing_was_begun(
    main: Callable[[list[str]], int],
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    try:
        code: object = main(words)
    except SystemExit as ended:
        code = ended.code
    said = capsys.readouterr().err.splitlines()[-1]
    assert code == (1 if words == [LONG] else 2)
    assert said.startswith(main.__module__.rpartition(".")[2])
    assert len(said) < 1000
    assert not list(tmp_path.iterdir())


def test_a_file_that_begins_with_a_dash_is_no_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    parsed = local.parser().parse_args(["--task-furl-file=-x", "--client-ip=::1"])
    again = ipcontroller.parser().parse_args(options_of.controller_arguments(parsed, "default"))
    assert (again.task_furl_file, again.client_ip) == ("./-x", "::1")
