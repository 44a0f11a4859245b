"""Which ranks a collective of names is for."""

from __future__ import annotations

import pytest

from ipmpi.client.engines.arrays import placed
from ipmpi.engine.mpi.team import Place
from ipmpi.errors import ClientError, InvalidEngineID, NoEnginesRegistered

ONE_SET = [{"id": 4 + rank, "rank": rank, "set": "s"} for rank in (2, 0, 1)]


def test_engines_are_in_the_order_of_the_targets() -> None:
    assert placed(ONE_SET, None, "reduce()") == Place((4, 5, 6), (0, 1, 2))
    assert placed(ONE_SET, [6, 4], "reduce()") == Place((6, 4), (2, 0))


def test_who_is_not_there_is_said() -> None:
    with pytest.raises(InvalidEngineID, match="engine with id 3 does not exist"):
        placed(ONE_SET, [4, 3], "reduce()")
    with pytest.raises(NoEnginesRegistered):
        placed([], None, "reduce()")
    with pytest.raises(ValueError, match="no engines among these targets"):
        placed(ONE_SET, [], "reduce()")


def test_engines_of_several_sets_have_no_mpi_in_common() -> None:
    other = [{"id": 9, "rank": 0, "set": "t"}]
    with pytest.raises(
        ClientError, match=r"reduce\(\) is done by MPI, .* of 2 sets: \[4-6\] and \[9\]\. Name the engines of one"
    ):
        placed([*ONE_SET, *other], None, "reduce()")
    assert placed([*ONE_SET, *other], [9], "reduce()") == Place((9,), (0,))
