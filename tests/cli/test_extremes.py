"""Every option of every command at its extremes: refused with one sentence, and no traceback.

The options are found by introspection. An option without a row fails: see ``KINDS`` and ``TEXTS``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import pytest

from ipmpi.cli import ipcluster, ipcontroller, ipengine
from ipmpi.limits import MAX_ENGINES

NO_NUMBER = ["", "x", "1x", "0x10", "1.5.2", "nan", "-nan", "\ud800", "1 000", "5" * 5000, "a" * 100_000]
NO_INT = [*NO_NUMBER, "1.5", "inf", "1e3"]

KINDS: dict[str, tuple[list[str], list[str]]] = {
    "engine_number": ([*NO_INT, "0", "-1", str(MAX_ENGINES + 1), str(2**64)], ["1", str(MAX_ENGINES)]),
    "count": ([*NO_INT, "0", "-1", str(2**64), "1000000"], ["1"]),
    "whole_seconds": ([*NO_INT, "-1", str(2**64), "-inf"], ["0", "1"]),
    "seconds": ([*NO_NUMBER, "0", "-1", "inf", "-inf", "1e400", "1e6"], ["1e-3", "5", "999999"]),
    "_seconds": ([*NO_NUMBER, "0", "-1", "inf", "-inf", "1e400", "1e6"], ["1e-3", "5"]),
    "_wait": ([*NO_NUMBER, "-1", "inf", "-inf", "1e400", "1e10"], ["0", "0.5", "3600"]),
    "_lines": ([*NO_INT, "-1", str(2**64)], ["0", "1"]),
    "_walltime": (
        ["", "x", "nan", "inf", "-1", "1:2:3:4:5", "\ud800", "9" * 5000],
        ["1:00:00", "10m", "2-00:00:00"],
    ),
    "_gpus": (["", "x,", "a b", "\0", "\ud800", "-1", "0", str(2**64), "1.5"], ["1"]),
    # What else is wrong with a proxy is found when it is used: tests/reach/test_proxy.py.
    "_proxy": (["http://user:password@h:3128"], ["http://h:3128", "none"]),
    "launcher_option": (["", " ", "'", "a\nb", "a\0b"], ["--bind-to none", "x"]),
    "gpu_order": (["", "4", "x,y", "0,0", "0,-1", "1.5,2", "\ud800"], ["1,0", "3,2,1,0"]),
    "count_or_none": ([*NO_INT, "-1", str(2**64)], ["0", "1"]),
    "int": (NO_INT, ["0", "8000"]),
}
"""By the name of an option's ``type``: what its parser refuses, and extremes that it takes."""

TEXTS = {
    "a word for the batch system": {
        "--account", "--constraint", "--directive", "--memory", "--partition", "--prologue", "--qos",
        "--skip-directive",
    },
    "a path, looked at when it is used": {
        "--clusterfile", "--engine-furl-file", "--furl-file", "--logdir", "--logfile", "--monitor-furl-file",
        "--multiengine-furl-file", "--slurm-script", "--task-furl-file",
    },
    "a machine, or an address of one": {
        "--client-ip", "--client-location", "--engine-ip", "--engine-location", "--hosts", "--ssh", "--remote",
    },
    "checked by the command that it is handed to": {"--client-port", "--engine-port", "--proxy", "--scheduler"},
    "checked when it is used": {"--batch", "--interface", "--kind", "--launcher", "--name", "name", "what"},
}  # fmt: skip
"""Options that are any text, and what becomes of it."""


def options() -> Iterator[tuple[str, str, argparse.ArgumentParser, argparse.Action]]:
    """Command, name, parser and option, of all that take a value and are for people."""
    parsers = {f"ipcluster {name}": parser for name, parser in ipcluster.parsers().items()}
    parsers |= {"ipcontroller": ipcontroller.parser(), "ipengine": ipengine.parser()}
    for command, parser in parsers.items():
        for action in parser._actions:
            if action.nargs != 0 and action.help is not argparse.SUPPRESS:
                yield command, (action.option_strings or [action.dest])[-1], parser, action


ALL = list(options())
IDS = [f"{command} {name}" for command, name, *_ in ALL]


@pytest.mark.parametrize(("command", "name", "parser", "action"), ALL, ids=IDS)
def test_every_option_has_a_row(
    command: str, name: str, parser: argparse.ArgumentParser, action: argparse.Action
) -> None:
    kind = getattr(action.type, "__name__", None)
    if action.choices is not None and kind is None:
        return  # argparse refuses all others
    if kind in (None, "Path"):
        assert any(name in names for names in TEXTS.values()), (
            f"{command} has an option {name} that takes any text: add it to TEXTS in tests/cli/test_extremes.py, "
            "under what becomes of the text, or give it a type= that refuses what is wrong, with a row in KINDS"
        )
    else:
        assert kind in KINDS, (
            f"{command} has an option {name} with type={kind}: add to KINDS in tests/cli/test_extremes.py what "
            "that refuses (0, -1, nan, inf, very large, empty, surrogates) and extremes that it takes"
        )


NUMBERS = [each for each in ALL if getattr(each[3].type, "__name__", "") in KINDS]


@pytest.mark.parametrize(
    ("command", "name", "parser", "action"), NUMBERS, ids=[f"{command} {name}" for command, name, *_ in NUMBERS]
)
def test_extremes_are_refused_in_one_sentence(
    command: str,
    name: str,
    parser: argparse.ArgumentParser,
    action: argparse.Action,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wrong, taken = KINDS[getattr(action.type, "__name__", "")]
    # The option alone: what else a command needs is not the matter here.
    alone = argparse.ArgumentParser(prog=command)
    alone.add_argument(name, type=action.type, nargs=action.nargs, const=action.const)
    for text in wrong:
        with pytest.raises(SystemExit) as ended:
            alone.parse_args([f"{name}={text}"])
        said = capsys.readouterr().err
        assert ended.value.code == 2, text[:40]
        assert name in said
        assert "Traceback" not in said
    for text in taken:
        alone.parse_args([f"{name}={text}"])


def test_the_table_names_what_there_is() -> None:
    """Rows of options and types that are no more would say that something is tested which is not."""
    assert set().union(*TEXTS.values()) <= {name for _, name, *_ in ALL}
    assert set(KINDS) <= {getattr(action.type, "__name__", "") for *_, action in ALL}
