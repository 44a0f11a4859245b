"""``python -m benchmarks.elsewhere``: a client on another machine, so that all goes over TCP with TLS.

The machines are network namespaces of this one (:mod:`benchmarks.nodes`). One TLS stream between them, ipmpi and
Dask with TLS have their turns in rounds; then one very big object is pushed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from unittest import mock

from ipmpi.bench.__main__ import parse_size
from ipmpi.bench.cluster import Target, mpi_or_none, own_cluster
from ipmpi.bench.report import aligned, number

from . import bulkrates, turns
from .comparison import Comparison, may_begin
from .nodes import HERE, Nodes, NoNodes, apart
from .systems import OWN, RUNNING
from .systems.stream import served

NODE: Final = "node1"
KEYS: Final = ("push_all", "pull_one", "scatter", "gather")
TURN_LIMIT: Final = 60.0
BIG_LIMIT: Final = 120.0


def _contact(folder: Path, name: str, told: dict[str, str]) -> Path:
    """Write a file that says how to reach a system; it may have a key."""
    file = folder / f"{name.replace(' ', '-')}.json"
    file.touch(0o600)
    file.write_text(json.dumps(told))
    return file


@contextlib.contextmanager
def _dask(engines: int) -> Iterator[dict[str, str]]:
    cluster, told = importlib.import_module("benchmarks.systems.daskcluster").serve(engines, HERE)
    try:
        yield told
    finally:
        cluster.close()


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
    record: dict[str, Any] = {"load": os.getloadavg()[0]}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ipmpi-nodes-")))
        nodes = stack.enter_context(Nodes(1, folder))
        target = stack.enter_context(own_cluster(options.n, mpi_or_none()[0], address=HERE))
        contacts = {OWN: _contact(folder, OWN, {"furl_file": str(target.mec_furl)})}
        stream = stack.enter_context(served(HERE, options.transfer // 8 * 8))
        contacts["one TLS stream"] = _contact(folder, "stream", stream)
        if "Dask with TLS" in systems:
            try:
                told = stack.enter_context(_dask(options.n))
                contacts["Dask with TLS"] = _contact(folder, "dask", told)
            except Exception as error:  # any of Dask's own
                found.add_failure("Dask with TLS", f"{type(error).__name__}: {error}")
        else:
            found.add_failure("Dask with TLS", "not installed")
        end = time.monotonic() + options.seconds
        while may_begin(found.rounds, options.rounds, 0.0, end - time.monotonic()):
            for name in found.begin_round():
                print(f"measuring {name} from another machine ...", file=sys.stderr, flush=True)
                keys = found.rows_for(name)
                found.add(
                    name,
                    turns.take(
                        name, RUNNING[name], keys, options.n, options.transfer, prefix=in_node(nodes),
                        contact=contacts[name], limit=TURN_LIMIT, quote=True,
                    ),
                )  # fmt: skip
        if options.big:
            print("pushing one big object from another machine ...", file=sys.stderr, flush=True)
            record["big"] = push_big(nodes, target, options.big)
    return {**record, **found.record(), "rates": bulkrates.rates(found, options.transfer)}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser("python -m benchmarks.elsewhere", description=__doc__)
    p.add_argument("-n", type=int, default=4, metavar="N", help="engines (4)")
    p.add_argument("--transfer", type=parse_size, default=100_000_000, metavar="SIZE", help="arrays (100MB)")
    p.add_argument("--rounds", type=int, default=3, metavar="K", help="rounds (3)")
    p.add_argument("--seconds", type=float, default=30.0, metavar="S", help="begin no round after these (30)")
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
    if options.json is not None:
        options.json.write_text(json.dumps(record, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
