"""Which program is meant, and what is said while it is waited for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ipmpi.client.engines import programs, simulation
from ipmpi.errors import ClientError, CompositeError, RemoteExit
from ipmpi.protocol.inquiries import RankStep


def client(*engines: tuple[int, int, str]) -> Any:
    """A client of a controller with these engines: id, set, program."""
    rows = [{"id": number, "set": key, "program": program} for number, key, program in engines]
    return SimpleNamespace(cluster_info=lambda: {"engines": rows})


def test_the_only_program_is_found_beside_engines() -> None:
    assert programs.find(client((0, 1, ""), (1, 2, "a.py"), (2, 2, "a.py")), "", 0.0) == ("a.py", [1, 2])


def test_without_a_program_it_says_what_to_do() -> None:
    with pytest.raises(
        ClientError, match=r"no program is attached to this controller.*mpirun -n 4 python app\.py"
    ):
        programs.find(client((0, 1, "")), "", 0.0)
    with pytest.raises(ClientError, match=r"no program called 'b\.py' is attached"):
        programs.find(client((0, 1, "a.py")), "b.py", 0.0)


def test_of_several_one_is_chosen_by_name() -> None:
    both = client((0, 1, "a.py"), (1, 2, "b.py"))
    with pytest.raises(
        ClientError, match=r"2 programs are attached .*\(a\.py, b\.py\).*simulation\(program='a\.py'\)"
    ):
        programs.find(both, "", 0.0)
    assert programs.find(both, "b.py", 0.0) == ("b.py", [1])


def test_it_says_for_which_ranks_others_hold() -> None:
    places = {0: RankStep(9, 9, True), 1: RankStep(7, 7), 2: RankStep(7, 7)}
    late = {engine: place for engine, place in places.items() if not place.holds}
    assert simulation.waits_for(late, places) == (
        "all ranks stop at step 9 or later; engines 1-2 are still in step 7"
    )
    late.pop(2)
    assert simulation.waits_for(late, places) == "all ranks stop at step 9 or later; engine 1 is still in step 7"
    assert simulation.waits_for({}, places) == ""


def test_a_sentence_that_all_ranks_say_is_raised_once() -> None:
    def failed(*errors: BaseException) -> CompositeError:
        return CompositeError("one or more", [(type(each), each, None) for each in errors])

    same = failed(ClientError("nothing registered"), ClientError("nothing registered"))
    assert str(simulation._plain(same)) == "nothing registered"
    assert simulation._plain(failed(ClientError("this"), ClientError("that"))) is None
    assert simulation._plain(failed(ValueError("x"), ValueError("x"))) is None
    assert simulation._plain(failed(RemoteExit("x"))) is None
