"""``ipcluster where``: in which line each engine is, also of engines that hang."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ipmpi.cli import argtypes
from ipmpi.client import MultiEngineClient
from ipmpi.launch.cluster import records


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    p = argtypes.Parser(
        prog="ipcluster where",
        description="Show in which function and line the engines of a cluster are, equal places once. Their node "
        "agents read it, so it does not matter whether the engines hang, or hold the interpreter in C code.",
    )
    p.add_cluster_name()
    p.add_argument("--all", action="store_true", help="show all functions that each engine is in")
    p.add_argument(
        "--native", action="store_true",
        help="show functions of C, too, such as those of MPI; halts each engine for some milliseconds",
    )  # fmt: skip
    return p


def main(words: Sequence[str]) -> int:
    """Run the command; return its exit code."""
    parsed = parser().parse_args(words)
    record = records.find(parsed.name)
    with MultiEngineClient(record.furl_files.get("mec", "")) as mec:
        print(mec.where(native=parsed.native).text(stacks=parsed.all))
    return 0
