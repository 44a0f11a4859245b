"""``python -m benchmarks.elsewhere``: a client on another machine, so that all goes over TCP with TLS.

The machines are network namespaces of this one (:mod:`benchmarks.nodes`). One TLS stream between them, ipmpi and
Dask with TLS are each started for their turns, in rounds; then one very big object is pushed.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from unittest import mock

from ipmpi.bench.__main__ import parse_size
from ipmpi.bench.cluster import Target, mpi_or_none, own_cluster
from ipmpi.bench.report import aligned, number
from ipmpi.errors import LauncherError

from . import bulkrates, turns
from .comparison import Comparison, may_begin
from .nodes import HERE, Nodes, NoNodes, apart
from .systems import OWN, RUNNING
from .systems.stream import served

NODE: Final = "node1"
KEYS: Final = ("push_all", "pull_one", "scatter", "gather")
TURN_LIMIT: Final = 60.0
BIG_LIMIT: Final = 120.0


@contextlib.contextmanager
def _ours(engines: int, _size: int) -> Iterator[dict[str, str]]:
    with own_cluster(engines, mpi_or_none()[0], address=HERE) as target:
        yield {"furl_file": str(target.mec_furl)}


def _stream(_engines: int, size: int) -> contextlib.AbstractContextManager[dict[str, str]]:
    return served(HERE, size // 8 * 8)


@contextlib.contextmanager
def _dask(engines: int, _size: int) -> Iterator[dict[str, str]]:
    # Dask sets MALLOC_TRIM_THRESHOLD_ in this process, for its workers. A client that inherits it, of whatever
    # system, maps and clears new pages for every buffer of 128 KiB or more, which more than halves its rates.
    with mock.patch.dict("os.environ"):
        cluster, told = importlib.import_module("benchmarks.systems.daskcluster").serve(engines, HERE)
    try:
        yield told
    finally:
        cluster.close()


_SERVERS: Final[Mapping[str, Callable[[int, int], contextlib.AbstractContextManager[dict[str, str]]]]] = {
    OWN: _ours, "one TLS stream": _stream, "Dask with TLS": _dask
}  # fmt: skip
"""What starts a system here, with so many engines, and says how to reach it."""


def _turn(name: str, keys: Sequence[str], nodes: Nodes, folder: Path, options: argparse.Namespace) -> turns.Turn:
    """Start a system, and give it its turn: while it has that, no other one runs."""
    turn = turns.Turn()
    try:
        with _SERVERS[name](options.n, options.transfer) as told:
            contact = folder / "contact.json"
            contact.touch(0o600)  # it may have a key
            contact.write_text(json.dumps(told))
            turn = turns.take(
                name, RUNNING[name], keys, options.n, options.transfer, prefix=in_node(nodes),
                contact=contact, limit=TURN_LIMIT, quote=True,
            )  # fmt: skip
    except Exception as error:  # any of a system's own, also while it ends
        return dataclasses.replace(turn, why=turn.why or f"{type(error).__name__}: {error}")
    return turn


def in_node(nodes: Nodes) -> list[str]:
    """What to write before a command, to run it on the other machine."""
    return [str(nodes.enter), NODE]


def push_big(nodes: Nodes, target: Target, size: int) -> dict[str, Any]:
    """Push a big object from the other machine; what :class:`benchmarks.bigpush.BigPush` has, or ``failed``."""
    words = [sys.executable, "-m", "benchmarks.bigobject", str(target.mec_furl), str(target.controller_pid)]
    command = [*in_node(nodes), shlex.join([*words, str(size)])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=BIG_LIMIT, check=True)
        return dict(json.loads(done.stdout))
    except subprocess.TimeoutExpired:
        return {"failed": f"gave up after {BIG_LIMIT:g} s"}
    except subprocess.CalledProcessError as error:
        return {"failed": (error.stderr.strip() or f"exit code {error.returncode}").splitlines()[-1]}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All of it, with nodes that the process can have."""
    systems = [name for name, entry in RUNNING.items() if entry.is_installed()]
    found = Comparison(systems, KEYS)
    for name in set(RUNNING) - set(systems):
        found.add_failure(name, "not installed")
    record: dict[str, Any] = {"load": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory(prefix="ipmpi-nodes-") as folder, Nodes(1, Path(folder)) as nodes:
        end = time.monotonic() + options.seconds
        while may_begin(found.rounds, options.rounds, 0.0, end - time.monotonic()):
            for name in found.begin_round():
                print(f"measuring {name} from another machine ...", file=sys.stderr, flush=True)
                found.add(name, _turn(name, found.rows_for(name), nodes, Path(folder), options))
        record |= {**found.record(), "rates": bulkrates.rates(found, options.transfer)}
        write(record, options.json)  # it is there whatever comes of the big object
        if options.big:
            print("pushing one big object from another machine ...", file=sys.stderr, flush=True)
            try:
                with own_cluster(options.n, mpi_or_none()[0], address=HERE) as target:
                    record["big"] = push_big(nodes, target, options.big)
            except LauncherError as error:
                record.setdefault("big", {"failed": str(error)})
    return record


def write(record: dict[str, Any], file: Path | None) -> None:
    """Write what was measured as JSON, if there is a file for it."""
    if file is not None:
        file.write_text(json.dumps(record, indent=1))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser("python -m benchmarks.elsewhere", description=__doc__)
    p.add_argument("-n", type=int, default=4, metavar="N", help="engines (4)")
    p.add_argument("--transfer", type=parse_size, default=100_000_000, metavar="SIZE", help="arrays (100MB)")
    p.add_argument("--rounds", type=int, default=3, metavar="K", help="rounds (3)")
    p.add_argument("--seconds", type=float, default=60.0, metavar="S", help="begin no round after these (60)")
    p.add_argument("--big", type=parse_size, default=0, metavar="SIZE", help="also push one object of this size")
    p.add_argument("--json", type=Path, metavar="FILE", help="write everything to this file")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(words)
    try:
        code = apart("benchmarks.elsewhere", words)
    except NoNodes as error:
        parser().error(str(error))
    if code is not None:
        return code
    with mock.patch.dict("os.environ", PYTHONPATH=turns.python_path()):
        record = measure(options)
    print("\n".join(aligned(bulkrates.rate_rows(record["rates"]))))
    for system, each in record["failed"].items():
        print(*(f"{system}: {key or 'left out'}: {why}" for key, why in each.items()), sep="\n")
    if "big" in record:
        told = record["big"]
        print(told.get("failed") or ", ".join(f"{key} {number(value)}" for key, value in told.items()))
    write(record, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
