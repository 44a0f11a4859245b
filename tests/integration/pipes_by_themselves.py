"""Every rank sends bytes to every other through MpiPipe and World.poll; run under mpiexec by the tests."""

from __future__ import annotations

import os
import time

from ipmpi.engine.world import start_world
from ipmpi.mpienv import detect

SIZES = (1, 100, 16383, 16384, 300_000, 5_000_000)
LIMIT = 60.0


def pattern(sender: int, length: int) -> bytes:
    return bytes([sender + 1]) * length


def main() -> None:
    world = start_world("mpi4py", detect(os.environ), "")
    others = [rank for rank in range(world.size) if rank != world.rank]
    pipes = {other: world.pipe(other) for other in others}
    got: dict[int, bytearray] = {other: bytearray() for other in others}
    for other, pipe in pipes.items():

        def take(pipe: object = pipe, into: bytearray = got[other]) -> None:
            while len(data := pipe.receive()):  # type: ignore[attr-defined]
                into.extend(data)

        pipe.on_readable = take
    for pipe in pipes.values():
        for length in SIZES:
            pipe.send([pattern(world.rank, length)])
        pipe.send([pattern(world.rank, 10), pattern(world.rank, 70_000), pattern(world.rank, 5)])
    total = sum(SIZES) + 70_015
    end = time.monotonic() + LIMIT
    while any(len(data) < total for data in got.values()) or any(pipe.backlog for pipe in pipes.values()):
        assert time.monotonic() < end, {other: len(data) for other, data in got.items()}
        world.poll()
    for other, data in got.items():
        assert data == pattern(other, total), f"from {other}"
    # Nothing of it was to be seen on the communicator of user code.
    assert not world.mpi.COMM_WORLD.Iprobe()
    gathered = world.exchange("fine")
    if world.rank == 0:
        print(" ".join(gathered), flush=True)
    world.finalize()


if __name__ == "__main__":
    main()
