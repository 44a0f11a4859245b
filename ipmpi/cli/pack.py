"""``ipcluster pack``: the environment in one file, for ``ipcluster slurm --stage-env``."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Final

from ipmpi.cli import argtypes
from ipmpi.launch.batch.packedenvironment import pack, this_interpreter

_MEGABYTE: Final = 1e6


def main(words: Sequence[str]) -> int:
    """Write the archive; return the exit code."""
    parsed = parser().parse_args(words)
    archive = parsed.file.expanduser().absolute()
    python = this_interpreter()
    begun = time.monotonic()
    packed = pack(archive, python)
    print(
        f"{python.prefix}{' and its Python' if packed.has_python else ''}: {packed.files:,} files, "
        f"{packed.size / _MEGABYTE:,.0f} MB, in {time.monotonic() - begun:.0f} s"
    )
    for path in packed.elsewhere:
        print(f"not packed, and read where it is: what {path.name} names")
    print(f"Use it with: ipcluster slurm --stage-env {archive}. Pack again when you have installed something.")
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argtypes.Parser(
        prog="ipcluster pack",
        description="Pack the environment of this Python into one file. With --stage-env, jobs copy it to their "
        "nodes, so that a thousand ranks do not look for thousands of small files on a shared file system.",
        allow_abbrev=False,
    )
    p.add_argument("file", type=argtypes.some_path, metavar="FILE", help="the file, where the nodes can read it")
    return p
