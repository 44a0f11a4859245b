"""What a program has of steering, in a process without an agent."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ipmpi import steering
from ipmpi.arrays import published
from ipmpi.engine.mpi.world import World
from ipmpi.engine.rank.controlblock import PAUSED
from ipmpi.errors import ClientError
from ipmpi.protocol import operations
from ipmpi.record import Change, Record
from ipmpi.serialize import dumps
from ipmpi.steering import attaching
from ipmpi.steering.program import Steering, SteeringWarning


@pytest.fixture(autouse=True)
def off(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(attaching.OFF, "off")
    yield
    attaching._attached.clear()
    published._program.clear()


def test_a_program_runs_without_being_steered(capsys: pytest.CaptureFixture[str]) -> None:
    with steering.attach(dt=0.5, nu=2) as s:
        assert [(step, s.step, s.dt) for step in s.loop(3)] == [(0, 0, 0.5), (1, 1, 0.5), (2, 2, 0.5)]
        s.dt = 0.25
        assert s.params == {"dt": 0.25, "nu": 2}
        assert [step for step in s.loop(10, 12)] == [10, 11]
        assert s.count == 4
    assert capsys.readouterr().err == (
        "ipmpi: the program runs without being steered: IPMPI_STEERING is set to off\n"
    )


def test_a_program_that_is_not_steered_knows_its_rank_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may compute with it: by its communicator, and without one by what the launcher says."""
    for name, value in {"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, "mpi4py.MPI", None)  # type: ignore[arg-type]
    s = steering.attach()
    assert (s.rank, s.size) == (2, 4)

    class Part:
        def Get_rank(self) -> int:
            return 1

        def Get_size(self) -> int:
            return 3

    module = SimpleNamespace(
        Is_initialized=lambda: True, Is_finalized=lambda: False, Intracomm=Part, COMM_NULL=None, COMM_WORLD=Part()
    )
    monkeypatch.setitem(sys.modules, "mpi4py.MPI", module)  # type: ignore[arg-type]
    for comm in (None, Part()):
        s = steering.attach(comm)
        assert (s.rank, s.size) == (1, 3)


def test_parameters_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    table = np.zeros(2)
    s = steering.attach(dt=0.5, table=table)
    with pytest.raises(TypeError, match="dt is of type float"):
        s.dt = "small"
    s.table = [1, 2]
    assert table.tolist() == [1, 2]  # the same memory: the program may have kept a reference
    with pytest.raises(AttributeError, match="'dtt' is no parameter of this program"):
        s.dtt  # noqa: B018
    with pytest.raises(ClientError, match="'loop' cannot be the name of a parameter: it is a name of steering"):
        steering.attach(loop=3)
    with pytest.raises(ClientError, match=r"'a b' cannot be the name .*: it is not an identifier of Python"):
        steering.attach(**{"a b": 3})


def test_a_parameter_may_be_in_the_memory_of_a_program_in_c() -> None:
    s = steering.attach()
    place = np.array([0.5])
    s.declare("dt", 0.5, place)
    s.dt = 2
    assert place[0] == 2.0
    place[0] = 3.0
    assert s.dt == 3.0


def test_a_block_of_a_global_array_has_to_be_an_array() -> None:
    s = steering.attach()
    s.publish(T=np.zeros(3), offset=(3,), shape=(9,), halo=1)
    assert s.published["T"] == ((3,), (9,), 1)
    with pytest.warns(
        SteeringWarning, match=r"publish\(x=...\) with offset=.* takes an array, and this is of type int"
    ):
        s.publish(x=3, offset=(3,), shape=(9,))
    assert "x" not in s.published


@pytest.mark.parametrize("place", ["thread", "second time"])
def test_an_attach_that_cannot_be_says_so_and_the_program_goes_on(
    place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(attaching.OFF)
    found: list[Any] = []
    if place == "thread":
        thread = threading.Thread(target=lambda: found.append(steering.attach(dt=1.0)))
        thread.start()
        thread.join()
        words = "attach() was called in a thread"
    else:
        first = Steering({}, World())
        first.show_arrays()
        attaching._attached.append(first)
        found.append(steering.attach(dt=1.0))
        words = "attach() was called before, and its with-statement has not ended"
    assert words in capsys.readouterr().err
    if place == "second time":
        shown = published.program()
        assert shown is not None
        assert shown.published is first.published, "clients see the arrays of the first one"
    assert [step for step in found[0].loop(2)] == [0, 1]


def test_a_record_is_repeated_at_the_same_steps() -> None:
    def setting(tick: int, value: float) -> Change:
        operation = operations.encode(operations.Steer("set"))
        return Change(tick, tick, "set", operation, [bytes(each) for each in dumps({"dt": value}, what="it")], [0])

    stop = Change(6, 6, "stop", operations.encode(operations.Steer("stop")), [], [0])
    record = Record("app.py", 1, [setting(2, 0.5), setting(2, 0.25), setting(4, 1.0), stop])
    with steering.attach(replay=record, dt=0.0) as s:
        assert [(step, s.dt) for step in s.loop(100)] == [(0, 0), (1, 0), (2, 0.25), (3, 0.25), (4, 1), (5, 1)]
    # What is repeated is recorded again.
    assert [each.tick for each in s.record().changes] == [2, 2, 4, 6]
    with pytest.raises(ClientError, match="the record is of 3 ranks, and the program has 1 now"):
        steering.attach(replay=Record("app.py", 3, []), dt=0.0)


def test_a_tick_that_nobody_asks_anything_of_is_cheap() -> None:
    """Under 3 microseconds of processor time on a quiet machine; the test leaves room for a loaded one."""
    s = steering.attach()
    tick, best = s.tick, 1.0
    for _ in range(20):
        begin = time.thread_time()
        for _ in range(2_000):
            tick()
        best = min(best, (time.thread_time() - begin) / 2_000)
    assert best < 6e-6


@pytest.mark.parametrize(("action", "paused"), [("pause", 1), ("step", 0), ("resume", 0)])
def test_the_agent_sees_a_change_before_the_client_has_its_answer(action: str, paused: int) -> None:
    """A client that asks at once where the program is must not be told how it was before."""
    with steering.attach() as s:
        s._ticker.words[PAUSED] = 1 - paused
        s.asked(operations.Steer(action, 10), lambda: None)
        assert s._ticker.words[PAUSED] == paused
