"""``python -m benchmarks.growth``: how times, processor time and memory grow with the number of ranks and nodes.

Each number of ranks is a cluster of its own, one after the other. With ``--nodes``, the ranks are on nodes that
have networks of their own on this machine (:mod:`benchmarks.nodes`). ``--simulated`` measures what the controller
does for engine sets without processes (:mod:`benchmarks.simulated`). Other Pythons (``--python``) measure other
MPI libraries.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from unittest import mock

import numpy

from ipmpi import Cluster
from ipmpi.bench.farm import no_ops
from ipmpi.bench.machine import describe
from ipmpi.bench.timing import sample
from ipmpi.bench.workloads import mpi_library
from ipmpi.client import MultiEngineClient, TaskClient
from ipmpi.errors import KernelError
from ipmpi.launch.processes.mpi import OPEN_MPI, find_mpi

from . import growthtable, simulated
from .nodes import HERE, Nodes, NoNodes, apart
from .processes import Process, Usage, of_cluster, own_bytes

START_TIMEOUT: Final = 600
"""Seconds. 128 ranks on two cores need 150, if these have as much to do for others."""
PUSHED: Final = 10_000_000
"""Bytes of the array that is pushed to all."""


class Running:
    """A cluster that runs.

    Args:
        cluster: it.
        mark: what all of its processes have in their environment.
        register: seconds from nothing to its last engine.
    """

    def __init__(self, cluster: Cluster, mark: str, register: float) -> None:
        self.mec: MultiEngineClient = cluster.multiengine()
        self.tc: TaskClient = cluster.task()
        self.register = register
        self.processes: list[Process] = of_cluster(mark)

    def pids(self, *kinds: str) -> list[int]:
        """The processes of some kinds."""
        return [process.pid for process in self.processes if process.kind in kinds]

    def by_node(self) -> list[list[int]]:
        """Agents and ranks of each node."""
        nodes: dict[int, list[int]] = {}
        for process in self.processes:
            if process.kind in ("agent", "rank"):
                nodes.setdefault(process.network, []).append(process.pid)
        return list(nodes.values())


@contextlib.contextmanager
def running(ranks: int, nodes: Nodes | None) -> Iterator[Running]:
    """A cluster in a folder of its own, which is stopped at the end."""
    found = find_mpi()
    options: dict[str, object] = {}
    address = "127.0.0.1"
    if nodes is not None:
        hydra = found is not None and found.flavour not in OPEN_MPI
        options["launcher_option"] = nodes.launcher_options(ranks, hydra=hydra)
        address = HERE
    with (
        tempfile.TemporaryDirectory(prefix="ipmpi-bench-") as folder,
        mock.patch.dict("os.environ", IPYTHONDIR=folder),
    ):
        begin = time.monotonic()
        with Cluster(
            "local", ranks, echo=None, mpi="mpi4py", timeout=START_TIMEOUT, client_ip=address, engine_ip=address,
            **options,
        ) as cluster:  # fmt: skip
            cluster.wait()
            yield Running(cluster, f"IPYTHONDIR={folder}", time.monotonic() - begin)


def idle(run: Running, seconds: float) -> dict[str, float]:
    """Percent of a core, and how often processes are woken in a second, while nobody asks for anything."""
    time.sleep(2.0)  # what the last command leaves behind: acknowledgements, looks at memory
    watched = {"controller": run.pids("controller"), "ipcluster": run.pids("ipcluster")}
    watched |= {f"node {number}": pids for number, pids in enumerate(run.by_node())}
    before = {name: Usage.of(pids) for name, pids in watched.items()}
    time.sleep(seconds)
    used = {name: Usage.of(pids).since(before[name]) for name, pids in watched.items()}
    nodes = [name for name in used if name.startswith("node")]
    return {
        "idle_node_percent": 100 * max(used[name].seconds for name in nodes) / seconds,
        "idle_node_waits": max(used[name].waits for name in nodes) / seconds,
        "idle_controller_percent": 100 * used["controller"].seconds / seconds,
        "idle_controller_waits": used["controller"].waits / seconds,
        "idle_ipcluster_percent": 100 * used["ipcluster"].seconds / seconds,
        "idle_ipcluster_waits": used["ipcluster"].waits / seconds,
    }


def commands(run: Running, repeat: int) -> dict[str, float]:
    """``execute`` on one and on all, and the processor time of all processes for one on all."""
    one = sample(lambda: run.mec.execute("pass", targets=0), 100 * repeat, warm=10)
    run.mec.execute("pass")
    kinds = ("controller", "agent", "rank")
    before = {kind: Usage.of(run.pids(kind)) for kind in kinds}
    own = time.process_time()
    times = sample(lambda: run.mec.execute("pass"), 50 * repeat, warm=0)
    own = (time.process_time() - own) / len(times)
    used = {kind: Usage.of(run.pids(kind)).since(before[kind]).seconds / len(times) for kind in kinds}
    ranks = len(run.pids("rank"))
    return {
        "execute_one_ms": 1e3 * statistics.median(one),
        "execute_all_ms": 1e3 * statistics.median(times),
        "client_cpu_us": 1e6 * own,
        "controller_cpu_us": 1e6 * used["controller"],
        "agent_cpu_us_per_rank": 1e6 * used["agent"] / ranks,
        "rank_cpu_us_per_rank": 1e6 * used["rank"] / ranks,
    }


def bulk(run: Running, repeat: int) -> dict[str, float]:
    """A push of an array to all."""
    array = numpy.arange(PUSHED // 8, dtype=float)
    times = sample(lambda: run.mec.push({"bench_a": array}), repeat, budget=8.0)
    run.mec.execute("del bench_a")
    return {"push_all_ms": 1e3 * statistics.median(times)}


def farm(run: Running, repeat: int) -> dict[str, float]:
    """No-op tasks by map."""
    count, times = no_ops(run.tc, repeat)
    return {"tasks_per_s": count / statistics.median(times)}


def memory(run: Running) -> dict[str, float]:
    """MB of each kind of process, as a mean."""
    return {
        f"{kind}_mb": statistics.fmean(map(own_bytes, run.pids(kind))) / 1e6
        for kind in ("controller", "agent", "rank")
    }


def measure(ranks: int, nodes: Nodes | None, options: argparse.Namespace) -> dict[str, Any]:
    """One row."""
    load = os.getloadavg()[0]
    with running(ranks, nodes) as run:
        row = {"ranks": ranks, "nodes": len(run.by_node()), "delay_ms": 1e3 * options.delay, "load": load}
        row["register_s"] = run.register
        row["mpi"] = describe(run.mec[run.mec.get_ids()[0]].apply(mpi_library)[0])["mpi"]
        # Memory before anything else, so that it does not depend on what is measured.
        return {
            **row, **memory(run), **idle(run, options.idle), **commands(run, options.repeat),
            **bulk(run, options.repeat), **farm(run, options.repeat),
        }  # fmt: skip


def rows_here(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure all numbers of ranks with the MPI of this Python."""
    rows: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        nodes = None
        if options.nodes:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ipmpi-nodes-")))
            nodes = stack.enter_context(Nodes(options.nodes, folder, options.delay))
        for ranks in options.ranks:
            print(f"measuring {ranks} ranks ...", file=sys.stderr, flush=True)
            try:
                rows.append(measure(ranks, nodes, options))
            except (KernelError, ConnectionError) as error:
                print(f"note: {ranks} ranks: {error}", file=sys.stderr, flush=True)
    return rows


def rows_of(python: str, arguments: list[str]) -> list[dict[str, Any]]:
    """Have another Python measure, with its MPI."""
    with tempfile.TemporaryDirectory(prefix="ipmpi-bench-") as folder:
        record = Path(folder, "rows.json")
        command = [python, "-m", "benchmarks.growth", *arguments, "--json", str(record)]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
        if done.returncode or not record.exists():
            print(
                f"note: {python} has measured nothing (exit code {done.returncode})", file=sys.stderr, flush=True
            )
            return []
        return list(json.loads(record.read_text())["rows"])


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser("python -m benchmarks.growth", description=__doc__)
    p.add_argument(
        "--ranks", type=numbers, default=[1, 4, 16, 64], metavar="N,N...", help="numbers of ranks (1,4,16,64)"
    )
    p.add_argument(
        "--nodes", type=int, default=0, metavar="N", help="so many nodes, which divide each number of ranks"
    )
    p.add_argument(
        "--delay", type=float, default=0.0, metavar="SECONDS", help="what a packet takes between nodes (0)"
    )
    p.add_argument("--python", action="append", default=[], metavar="FILE", help="measure with this Python, too")
    p.add_argument("--simulated", action="store_true", help="sets of 64, 4,096 and 65,536 ranks without processes")
    p.add_argument("--repeat", type=int, default=3, help="50 times as many commands (default: %(default)s)")
    p.add_argument(
        "--idle", type=float, default=10.0, metavar="SECONDS", help="how long to look at an idle cluster"
    )
    p.add_argument("--json", type=Path, metavar="FILE", help="also write all figures to this file")
    p.add_argument("--plot", type=Path, metavar="FILE", help="also draw them (needs matplotlib)")
    return p


def numbers(text: str) -> list[int]:
    """Parse ``1,4,16``."""
    found = [int(word) for word in text.split(",")]
    if min(found) < 1:
        raise ValueError("ranks are counted from 1")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Measure, and print tables."""
    words = sys.argv[1:] if arguments is None else arguments
    options = parser().parse_args(words)
    if options.nodes < 0:
        parser().error("--nodes is a number of nodes, or 0 for this machine as it is")
    if not 0 <= options.delay < 60:
        parser().error("--delay is a number of seconds below 60")
    if any(ranks % max(1, options.nodes) for ranks in options.ranks):
        parser().error(f"--nodes {options.nodes} has to divide each number of --ranks")
    if options.delay and not options.nodes:
        parser().error("--delay is between nodes: --nodes N")
    if options.nodes:
        try:
            code = apart("benchmarks.growth", words)
        except NoNodes as error:
            parser().error(str(error))
        if code is not None:
            return code
    record: dict[str, Any] = {"machine": describe(""), "rows": rows_here(options)}
    for python in options.python:
        passed = ["--ranks", ",".join(map(str, options.ranks)), "--nodes", str(options.nodes)]
        passed += ["--delay", str(options.delay), "--repeat", str(options.repeat), "--idle", str(options.idle)]
        record["rows"] += rows_of(python, passed)
    if options.simulated:
        record["simulated"] = simulated.rows()
    print(growthtable.tables(record))
    if options.json is not None:
        options.json.write_text(json.dumps(record, indent=1))
    if options.plot is not None:
        growthtable.plot(record["rows"], options.plot)
    return 0 if record["rows"] else 1


if __name__ == "__main__":
    sys.exit(main())
