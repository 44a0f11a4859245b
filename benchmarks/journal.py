"""``python -m benchmarks.journal``: what a journal costs, with it and without it in turns, in one run."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from ipmpi.bench.timing import sample
from ipmpi.bench.workloads import nothing
from ipmpi.client import MultiEngineClient, TaskClient

ENGINES: Final = 2
MAPPED: Final = 50_000
SUBMITTED: Final = 5_000


class Work(NamedTuple):
    """One kind of work: its name, the unit of its figure, and how often a turn does it."""

    name: str
    unit: str
    times: int
    do: Callable[[MultiEngineClient, TaskClient], object]
    amount: int = 1


def one_by_one(_mec: MultiEngineClient, tc: TaskClient) -> None:
    """Submit tasks one by one, then wait for all."""
    tc.gather([tc.submit(nothing) for _ in range(SUBMITTED)])


WORKS: Final = (
    Work("execute on one engine", "ms", 100, lambda mec, _: mec.execute("pass", 0)),
    Work("execute on all", "ms", 100, lambda mec, _: mec.execute("pass")),
    Work("one task, submit to result", "ms", 100, lambda _, tc: tc.submit(nothing).result()),
    Work(f"submit {SUBMITTED:,} one by one", "tasks/s", 1, one_by_one, SUBMITTED),
    Work(f"map, {MAPPED:,} no-op tasks", "tasks/s", 1, lambda _, tc: tc.map(nothing, range(MAPPED)), MAPPED),
)


def free_port() -> int:
    """A port of this machine that nobody has at the moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def controller(folder: Path, *options: str) -> Iterator[tuple[dict[str, str], int]]:
    """A controller that only this machine reaches, in a new folder; yields what it tells first, and its pid."""
    folder.mkdir(mode=0o700)
    reader, writer = os.pipe()
    words = [
        "ipmpi.cli.ipcontroller",
        "--ready-fd",
        str(writer),
        "--client-ip",
        "127.0.0.1",
        "--engine-ip",
        "127.0.0.1",
    ]
    environ = {**os.environ, "IPYTHONDIR": str(folder)}
    with open(folder / "log", "ab") as log, open(reader) as news:
        process = subprocess.Popen(
            [sys.executable, "-m", *words, *options], env=environ, pass_fds=(writer,),
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
        os.close(writer)
        try:
            yield json.loads(news.readline()), process.pid
        finally:
            process.terminate()
            process.wait()


@contextlib.contextmanager
def cluster(folder: Path, journal: bool) -> Iterator[tuple[MultiEngineClient, TaskClient]]:
    """A controller with or without a journal, two engines without MPI, and clients."""
    options = ["--client-port", str(free_port()), "--engine-port", str(free_port())]
    if journal:
        options += ["--journal", str(folder / "journal")]
    environ = {**os.environ, "IPYTHONDIR": str(folder)}
    with contextlib.ExitStack() as stack:
        told, _ = stack.enter_context(controller(folder, *options))
        log = stack.enter_context(open(folder / "log", "ab"))
        for _ in range(ENGINES):
            process = subprocess.Popen(
                [sys.executable, "-m", "ipmpi.cli.ipengine", "--mpi", "none"], env=environ,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
            stack.callback(process.wait)
            stack.callback(process.terminate)
        mec = stack.enter_context(MultiEngineClient(told["multiengine_furl_file"]))
        mec.wait_for_engines(ENGINES)
        yield mec, stack.enter_context(TaskClient(told["task_furl_file"]))


def sync_times(path: Path) -> list[float]:
    """How long it takes until one page is on the disk of ``path``: what each transaction waits for."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)

    def write() -> None:
        os.pwrite(descriptor, bytes(4096), 0)
        os.fdatasync(descriptor)

    try:
        return sample(write, 50)
    finally:
        os.close(descriptor)


def main() -> int:
    """Measure, and print a table."""
    command_line = argparse.ArgumentParser("python -m benchmarks.journal", description=__doc__)
    command_line.add_argument("--rounds", type=int, default=6, help="turns of each (default: %(default)s)")
    command_line.add_argument("--json", type=Path, help="also write all figures to this file")
    options = command_line.parse_args()
    loads = [os.getloadavg()[0]]
    found: dict[str, dict[str, list[float]]] = {work.name: {"off": [], "on": []} for work in WORKS}
    with tempfile.TemporaryDirectory(prefix="ipmpi-bench-") as folder, contextlib.ExitStack() as stack:
        clusters = {kind: stack.enter_context(cluster(Path(folder, kind), kind == "on")) for kind in ("off", "on")}
        for number in range(options.rounds):
            for work in WORKS:
                for kind in ("off", "on") if number % 2 else ("on", "off"):
                    found[work.name][kind] += sample(partial(work.do, *clusters[kind]), work.times, budget=8.0)
            loads.append(os.getloadavg()[0])
        sync = statistics.median(sync_times(Path(folder, "synced")))
    print(f"load {min(loads):.1f} to {max(loads):.1f}; {ENGINES} engines; medians of {options.rounds} turns")
    print(f"to write 4 KiB and wait until they are on this disk takes {1e3 * sync:.2f} ms\n")
    print(f"{'':36} {'without':>14} {'with':>14}   ratio")
    record = {}
    for work in WORKS:
        off, on = (statistics.median(found[work.name][kind]) for kind in ("off", "on"))
        shown = [f"{1e3 * t:.2f} ms" if work.unit == "ms" else f"{work.amount / t:,.0f}/s" for t in (off, on)]
        print(f"{work.name:36} {shown[0]:>14} {shown[1]:>14}   {on / off:.2f} of the time")
        record[work.name] = {"off_s": off, "on_s": on, "ratio": on / off, "amount": work.amount}
    if options.json is not None:
        options.json.write_text(json.dumps({"loads": loads, "sync_s": sync, "figures": record}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
