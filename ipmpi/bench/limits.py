"""What this machine can do at best, measured without ipmpi: memory, sockets, TLS, threads and MPI.

docs/performance.rst tells what each limit means for the figures.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from ipmpi.launch.processes.mpi import mpi_command
from ipmpi.tls import Identity

from .figures import Figure, from_times, single
from .otherend import PIECE
from .timing import sample
from .workloads import doubles, nothing

SYSTEM: Final = "limits of this machine"
OTHER_END: Final = "ipmpi.bench.otherend"
PING_PONG: Final = "ipmpi.bench.pingpong"
CALLS: Final = 100_000
MPI_LIMIT: Final = 30.0
"""Seconds after which an MPI program is given up."""


class LimitFailed(Exception):
    """A limit could not be measured."""


def measure(size: int, repeat: int, engines: int, mpi: str) -> Iterator[Figure]:
    """All limits.

    Args:
        size: bytes of each transfer.
        repeat: samples of each transfer; 100 times as many of each round trip.
        engines: ranks of the program whose start is measured.
        mpi: ``none`` leaves out what needs MPI, as in :func:`ipmpi.bench.cluster.mpi_or_none`.

    Raises:
        LimitFailed: a process that was needed failed.
    """
    found = [
        *_memory(size, repeat),
        *_streams(size, repeat),
        _unix_round_trip(repeat),
        _thread_round_trip(repeat),
        from_times("limit_calls", "calls of a no-op in one process", "tasks/s", sample(_calls, repeat), CALLS),
    ]
    if mpi != "none":
        found += [_mpi_round_trip(repeat), _mpi_start(engines, repeat)]
    yield from (figure._replace(system=SYSTEM) for figure in found)


def _calls() -> None:
    for _ in map(nothing, range(CALLS)):
        pass


def _memory(size: int, repeat: int) -> Iterator[Figure]:
    source, goal = doubles(size), doubles(size)
    text = f"{source.nbytes / 1e6:g} MB"

    def copy() -> None:
        goal[:] = source

    def fresh() -> float:
        """Seconds of the write alone: to give back the pages is not a part of it."""
        with file_in_memory() as descriptor:
            return sample(partial(write_all, descriptor, source), 1, warm=0)[0]

    yield from_times("limit_memcpy", f"copy {text} in memory", "GB/s", sample(copy, repeat), source.nbytes)
    times = [fresh() for _ in range(repeat)]
    yield from_times("limit_fresh", f"write {text} into a fresh file in memory", "GB/s", times, source.nbytes)
    with file_in_memory() as descriptor:
        times = sample(partial(write_all, descriptor, source), repeat)
    name = "... into one whose pages are there"
    yield from_times("limit_warm", name, "GB/s", times, source.nbytes)


@contextlib.contextmanager
def file_in_memory() -> Iterator[int]:
    """Descriptor of a new file; of one in the temporary folder where the system has none in memory."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("ipmpi-bench")
        try:
            yield descriptor
        finally:
            os.close(descriptor)
    else:
        with tempfile.TemporaryFile() as file:
            yield file.fileno()


def write_all(descriptor: int, array: object) -> None:
    """Write an array at the beginning of a file."""
    data, done = memoryview(array).cast("B"), 0  # type: ignore[arg-type]  # an array is a buffer
    while done < len(data):
        done += os.pwrite(descriptor, data[done:], done)


def _tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    for each in (near, far):
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far


@contextlib.contextmanager
def other_end(far: socket.socket, how: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Have a process of its own be the other end of a connection; see :mod:`ipmpi.bench.otherend`."""
    command = [sys.executable, "-m", OTHER_END, how, str(far.fileno()), *arguments]
    with far:
        process = subprocess.Popen(command, pass_fds=[far.fileno()], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    except (ConnectionError, ssl.SSLError) as error:
        raise LimitFailed(f"The process {OTHER_END} ended in the middle of a transfer: {error}") from error
    finally:
        process.kill()
        process.communicate()


def _streams(size: int, repeat: int) -> Iterator[Figure]:
    times, _ = _stream(size, repeat)
    yield from_times("limit_tcp", "one TCP stream on this machine", "GB/s", times, size)
    with tempfile.TemporaryDirectory(prefix="ipmpi-bench-") as folder:
        pem = Path(folder, "pem")
        pem.write_bytes(Identity.create(time.time()).to_pem())
        times, used = _stream(size, repeat, str(pem))
    yield from_times("limit_tls", "one TLS stream on this machine", "GB/s", times, size)
    yield single("limit_tls_cpu", "... processor time of both ends for 1 GB", "s", used * 1e9 / size)


def _stream(size: int, repeat: int, pem: str = "") -> tuple[list[float], float]:
    """Seconds of each transfer, and the processor time of both ends for one."""
    near, far = _tcp_pair()
    data = memoryview(bytes(range(256)) * (-(-size // 256)))[:size]
    with other_end(far, "stream", str(size), *filter(None, [pem])) as process:
        connection: socket.socket = near if not pem else client_context().wrap_socket(near)
        with connection:
            before = time.process_time()
            times = sample(partial(send_all, connection, data), repeat)
            used = time.process_time() - before
        assert process.stdout is not None
        told = process.stdout.readline()
    if not told.strip():
        raise LimitFailed(f"The process {OTHER_END} did not say how much processor time it used")
    return times, (used + float(told)) / (1 + len(times))  # sample() makes one transfer to begin with


def send_all(connection: socket.socket, data: memoryview) -> None:
    """Send bytes to :func:`ipmpi.bench.otherend.stream`, and wait until it has all of them."""
    for start in range(0, len(data), PIECE):
        connection.sendall(data[start : start + PIECE])
    if connection.recv(1) != b"k":
        raise ConnectionResetError("it closed the connection")


def client_context() -> ssl.SSLContext:
    """TLS 1.3 without a look at the certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The other end is a process of ours at the end of a socket that nobody else has.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def _unix_round_trip(repeat: int) -> Figure:
    near, far = socket.socketpair()
    with near, other_end(far, "echo"):

        def there_and_back() -> None:
            near.sendall(b"x")
            if not near.recv(1):
                raise ConnectionResetError("it closed the connection")

        times = sample(there_and_back, 200 * repeat, warm=50)
    return from_times("limit_unix", "Unix socket between processes, there and back", "ms", times)


def _thread_round_trip(repeat: int) -> Figure:
    there: queue.SimpleQueue[bool] = queue.SimpleQueue()
    back: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def answer() -> None:
        while there.get():
            back.put(True)

    def there_and_back() -> None:
        there.put(True)
        back.get()

    other = threading.Thread(target=answer, daemon=True)
    other.start()
    try:
        times = sample(there_and_back, 200 * repeat, warm=50)
    finally:
        there.put(False)
        other.join()
    return from_times("limit_threads", "hand-off to a thread, there and back", "ms", times)


def _run_mpi(ranks: int, program: list[str]) -> str:
    argv, extra = mpi_command(ranks, program=program, root=os.geteuid() == 0, single_host=True)
    try:
        done = subprocess.run(
            argv, env={**extra, **os.environ}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=MPI_LIMIT, check=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise LimitFailed(f"{argv[0]} with {ranks} ranks did not end within {MPI_LIMIT:g} s") from None
    except subprocess.CalledProcessError as error:
        last = "\n".join(str(error.stderr).splitlines()[-5:])
        raise LimitFailed(
            f"{argv[0]} with {ranks} ranks ended with exit code {error.returncode}:\n{last}"
        ) from error
    return done.stdout


def _mpi_round_trip(repeat: int) -> Figure:
    told = _run_mpi(2, [sys.executable, "-m", PING_PONG, str(200 * repeat)])
    return from_times("limit_mpi", "MPI between 2 ranks, there and back", "ms", json.loads(told))


def _mpi_start(engines: int, repeat: int) -> Figure:
    start: Callable[[], object] = partial(
        _run_mpi, engines, [sys.executable, "-c", "import numpy; from mpi4py import MPI"]
    )
    name = f"mpiexec of {engines} ranks that import numpy and mpi4py"
    return from_times("limit_start", name, "s", sample(start, min(3, repeat), warm=0))
