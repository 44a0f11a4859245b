"""GPUs of a node and the ranks on it."""

from __future__ import annotations

import pytest

from ipmpi.environment import gpus
from ipmpi.environment.mpienv import LaunchedRank
from ipmpi.errors import LauncherError


def ranks(local_rank: int | None, local_size: int | None) -> LaunchedRank:
    return LaunchedRank("openmpi", 0, None, local_rank, local_size)


def test_numbers_and_orders() -> None:
    assert gpus.parse("4") == ["0", "1", "2", "3"]
    assert gpus.parse("3, 2,1,0") == ["3", "2", "1", "0"]


@pytest.mark.parametrize("text", ["", "two", "1,1", "-1", "0,", "1.5", "GPU-1", "0," + "9" * 5000])
def test_what_are_no_gpus_is_told_with_what_to_type(text: str) -> None:
    with pytest.raises(ValueError, match=r"give how many a node has \(4\), or their order \(3,2,1,0\)"):
        gpus.parse(text)


@pytest.mark.parametrize("text", ["0", "99999"])
def test_a_number_that_cannot_be(text: str) -> None:
    with pytest.raises(ValueError, match="Give a number from 1 on"):
        gpus.parse(text)


@pytest.mark.parametrize(
    ("count", "size", "shares"),
    [
        (4, 4, ["0", "1", "2", "3"]),
        (4, 2, ["0,1", "2,3"]),
        (4, 3, ["0", "1", "2,3"]),
        (2, 4, ["0", "0", "1", "1"]),
        (4, 1, ["0,1,2,3"]),
        (2, None, ["0", "1", "0", "1"]),
    ],
)
def test_all_gpus_are_used_and_shared_if_there_are_more_ranks(
    count: int, size: int | None, shares: list[str]
) -> None:
    listed = gpus.parse(str(count))
    got = [gpus.variables(listed, ranks(rank, size), {}) for rank in range(len(shares))]
    assert [each["CUDA_VISIBLE_DEVICES"] for each in got] == shares
    assert all(
        each["HIP_VISIBLE_DEVICES"] == each["ZE_AFFINITY_MASK"] == share
        for each, share in zip(got, shares, strict=True)
    )


def test_an_engine_by_itself_has_all() -> None:
    assert gpus.variables(["0", "1"], None, {})["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_an_order_of_the_user_s() -> None:
    assert gpus.variables(["3", "2", "1", "0"], ranks(0, 4), {})["CUDA_VISIBLE_DEVICES"] == "3"


def test_what_the_batch_system_has_given_is_shared_out() -> None:
    environ = {"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b,GPU-c,GPU-d", "PATH": "/bin"}
    assert gpus.variables(gpus.parse("4"), ranks(1, 2), environ) == {"CUDA_VISIBLE_DEVICES": "GPU-c,GPU-d"}


def test_what_amd_hides_first_is_counted_from_zero_above() -> None:
    environ = {"ROCR_VISIBLE_DEVICES": "4,5,6,7", "HIP_VISIBLE_DEVICES": "0,1,2,3"}
    found = gpus.variables(gpus.parse("4"), ranks(1, 2), environ)
    assert found == {"ROCR_VISIBLE_DEVICES": "6,7", "HIP_VISIBLE_DEVICES": "0,1"}


def test_what_the_launcher_has_shared_out_stays() -> None:
    assert gpus.variables(gpus.parse("4"), ranks(1, 4), {"CUDA_VISIBLE_DEVICES": "2"}) == {}


def test_without_a_local_rank_it_is_told_what_to_do() -> None:
    with pytest.raises(
        LauncherError, match=r"'openmpi' does not say. Start the engines with mpirun, mpiexec or srun"
    ):
        gpus.variables(["0"], ranks(None, None), {})
