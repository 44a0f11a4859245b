"""``ipcluster slurm --ssh user@login``: the same at the other end of an ssh session (layer L5)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ipmpi.errors import LauncherError


def add_options(p: argparse.ArgumentParser) -> None:
    """What only concerns ssh."""
    p.add_argument("--ssh", default="", metavar="USER@HOST", help="do it there, and bring the connection here")


def main(command: str, words: Sequence[str], parsed: argparse.Namespace) -> int:
    """Stub."""
    raise LauncherError("not yet")
