"""``ipcluster completion``: scripts for completion of command lines in shells."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Final

from ipmpi.cli import argtypes, ipcluster, ipcontroller, ipengine

SHELLS: Final = ("bash", "zsh", "tcsh")
_FILES: Final = (argtypes.path, argtypes.path_name, argtypes.some_path, argtypes.furl_or_path)


def main(words: Sequence[str]) -> int:
    """Print the script for a shell; return the exit code."""
    shell = parser().parse_args(words).shell
    import shtab

    cluster = argparse.ArgumentParser(prog="ipcluster")
    commands = cluster.add_subparsers()
    for name, one in ipcluster.parsers().items():
        # Each has a --help of its own.
        commands.add_parser(name, parents=[one], add_help=False, help=ipcluster.commands()[name].purpose)
    for whole in (cluster, ipcontroller.parser(), ipengine.parser()):
        _complete_files(whole, shtab.FILE)
        print(shtab.complete(whole, shell))
    return 0


def _complete_files(one: argparse.ArgumentParser, files: object) -> None:
    for action in one._actions:
        if action.type in _FILES:
            action.complete = files  # type: ignore[attr-defined]
        if isinstance(action.choices, dict):
            for command in action.choices.values():
                _complete_files(command, files)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argtypes.Parser(
        prog="ipcluster completion",
        description="Print what a shell needs to complete ipcluster, ipcontroller and ipengine with the Tab key. "
        'For bash, add this to ~/.bashrc: eval "$(ipcluster completion bash)"',
    )
    p.add_argument("shell", choices=SHELLS, help="for which shell")
    return p
