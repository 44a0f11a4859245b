"""The ring of MPI calls: what a rank writes, another process reads, whatever the writer is doing."""

from __future__ import annotations

import struct
import subprocess
import sys
import time

import pytest

from ipmpi.engine.rank import callring
from ipmpi.engine.rank.callring import CALLS, NONE, RECORDS, TEXTS, CallRing, read_calls
from ipmpi.engine.rank.controlblock import ControlBlock
from ipmpi.protocol.mpicalls import MpiCall


@pytest.fixture
def memory() -> memoryview:
    return memoryview(bytearray(CALLS))


def call(ring: CallRing, name: str = "Barrier", comm: str = "comm", number: int = 0, **more: int) -> int:
    return ring.entered(name, comm, number, **more)


def user_code(ring: CallRing, *args: object, **kwargs: int) -> int:
    return call(ring, *args, **kwargs)  # type: ignore[arg-type]


def read(memory: memoryview, most: int = 10) -> list[MpiCall]:
    return read_calls(memory, most, time.monotonic_ns())


def test_a_call_is_told_with_its_place_in_user_code_and_how_long_it_has_lasted(memory: memoryview) -> None:
    ring = CallRing(memory)
    assert read(memory) == []
    at = user_code(ring, "Bcast", "comm", 118, count=8, root=2)
    (found,) = read_calls(memory, 10, time.monotonic_ns() + 5 * 10**9)
    assert (found.name, found.comm, found.number, found.count, found.root) == ("Bcast", "comm", 118, 8, 2)
    assert (found.peer, found.tag, found.open) == (None, None, True)
    assert found.file.endswith("test_callring.py")
    assert found.function == "user_code"
    assert found.line == user_code.__code__.co_firstlineno + 1
    assert 5 <= found.since < 10
    ring.left(at)
    (found,) = read_calls(memory, 10, time.monotonic_ns() + 5 * 10**9)
    assert not found.open
    assert found.since < 1


def test_only_the_last_calls_are_kept_and_the_newest_comes_last(memory: memoryview) -> None:
    ring = CallRing(memory)
    for number in range(1, RECORDS + 100):
        ring.left(user_code(ring, number=number))
    assert [one.number for one in read(memory, 3)] == [RECORDS + 97, RECORDS + 98, RECORDS + 99]
    assert len(read(memory, 10 * RECORDS)) == RECORDS


def test_a_record_that_is_being_written_is_left_out(memory: memoryview) -> None:
    ring = CallRing(memory)
    first = user_code(ring, number=1)
    user_code(ring, number=2)
    struct.pack_into("=q", memory, 8 * first, 0)
    assert [one.number for one in read(memory)] == [2]


def test_a_text_is_never_shown_for_another_one(memory: memoryview) -> None:
    """A session runs many cells, each with a file name of its own."""
    ring = CallRing(memory)
    user_code(ring, "Old")
    for number in range(3 * TEXTS):
        name = f"call {number}"
        user_code(ring, name, number=number)
        newest = read(memory, 1)[0]
        assert (newest.name, newest.number, newest.function) == (name, number, "user_code")
    assert all(one.name in ("", f"call {one.number}") for one in read(memory, RECORDS))


def test_a_long_path_keeps_its_end(memory: memoryview) -> None:
    code = compile("def f(ring):\n    return g(ring)\n", "/scratch" + "/long" * 100 + "/heat.py", "exec")
    namespace: dict[str, object] = {"g": call}
    exec(code, namespace)
    namespace["f"](CallRing(memory))  # type: ignore[operator]
    assert read(memory)[0].file.endswith("/long/heat.py")


def test_codes_that_are_gone_are_forgotten(memory: memoryview, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callring, "_CODES", 4)
    ring = CallRing(memory)
    for number in range(20):
        namespace: dict[str, object] = {"g": call}
        exec(compile(f"def f{number}(ring):\n    return g(ring)\n", f"cell {number}", "exec"), namespace)
        namespace[f"f{number}"](ring)  # type: ignore[operator]
        assert read(memory, 1)[0].function == f"f{number}"
    assert len(ring._codes) <= 4


_WRITER = """
import sys
from ipmpi.engine.rank.callring import CallRing
from ipmpi.engine.rank.controlblock import ControlBlock
ring = CallRing(ControlBlock(int(sys.argv[1])).calls)
def step(number):
    return enter(number)
def enter(number):
    return ring.entered("even" if number % 2 == 0 else "odd", str(number % 2), number, number, root=-number)
print("begins", flush=True)
number = 0
while True:
    number += 1
    ring.left(step(number))
"""


def test_another_process_reads_whole_records_while_the_rank_writes() -> None:
    block, descriptor = ControlBlock.create()
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(descriptor)], pass_fds=[descriptor], stdout=subprocess.PIPE
    )
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"begins\n"
        seen = 0
        end = time.monotonic() + 30
        while seen < 3_000 and time.monotonic() < end:
            for one in read(block.calls, 64):
                seen += 1
                assert (one.count, one.root) == (one.number, -one.number)
                assert (one.name, one.comm) == (("even", "0") if one.number % 2 == 0 else ("odd", "1"))
                assert one.function == "step"
        assert seen >= 3_000
    finally:
        writer.kill()
        writer.communicate()


def test_a_number_that_a_call_does_not_have_is_none(memory: memoryview) -> None:
    user_code(CallRing(memory), count=NONE, tag=NONE)
    found = read(memory)[0]
    assert found.count is None
    assert found.tag is None


def test_calls_that_began_earlier_are_left_out(memory: memoryview) -> None:
    ring = CallRing(memory)
    ring.left(ring.entered("Bcast", "comm", 1))
    between = time.monotonic_ns()
    ring.entered("Barrier", "comm", 2)
    now = time.monotonic_ns()
    assert [call.name for call in read_calls(memory, 10, now, between)] == ["Barrier"]
    assert read_calls(memory, 10, now, now + 1) == []
