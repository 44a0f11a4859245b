"""Which ranks a collective of names is for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from ipmpi.client.engines.arrays import placed
from ipmpi.engine.mpi.team import Place
from ipmpi.errors import ClientError, InvalidEngineID, NoEnginesRegistered
from ipmpi.protocol import operations

if TYPE_CHECKING:
    from conftest import FakeSession

    from ipmpi.client import MultiEngineClient

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


def test_looking_at_an_array_is_no_change_of_a_program(session: FakeSession, mec: MultiEngineClient) -> None:
    mec.scatter("T", np.arange(8.0))
    session.sent.clear()
    array = mec.array("T")
    array.stats()
    np.testing.assert_array_equal(array[::2], [0, 2, 4, 6])
    assert [each.operation for each in session.sent] == [operations.Apply(reads=True)] * 3
