"""A task that kills its rank, among 600 that do not: only that one is lost, and the cluster goes on.

``IPMPI_POISON=20`` makes twenty tries of each kind, and prints what was lost.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import cloudpickle
import pytest

import ipmpi
from ipmpi import errors

TRIES = int(os.environ.get("IPMPI_POISON", "1"))
OTHERS = 600
PATIENCE = 120.0

pytestmark = [pytest.mark.slow, pytest.mark.mpi, pytest.mark.timeout(90 + 60 * TRIES)]

# Engines cannot import this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def dies(number: int) -> None:
    """End the process that runs this, in one of the ways in which processes end."""
    os.kill(os.getpid(), number)


def works(number: int) -> int:
    """Take a few milliseconds."""
    return sum(range(20_000)) * 0 + number


@pytest.mark.parametrize("mpi", ["auto", "none"])
def test_only_the_poison_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mpi: str, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    lost = []
    for attempt in range(TRIES):
        how = (signal.SIGKILL, signal.SIGSEGV)[attempt % 2]
        place = (attempt * 97 + OTHERS // 2) % OTHERS
        lost.append(lost_tasks(mpi, place, int(how)))
    if TRIES > 1:
        with capsys.disabled():
            print(f"\n--mpi {mpi}: besides the poison, lost of {OTHERS} tasks in {TRIES} tries: {lost}")
    assert lost == [0] * TRIES


def lost_tasks(mpi: str, place: int, how: int) -> int:
    """How many of the others did not come back."""
    with ipmpi.Cluster("local", n=4, mpi=mpi, echo=None, client_ip="127.0.0.1", engine_ip="127.0.0.1") as cluster:
        tc = cluster.task()
        before = [tc.submit(works, number) for number in range(place)]
        poison = tc.submit(dies, how)
        after = [tc.submit(works, number) for number in range(place, OTHERS)]
        with pytest.raises(errors.EngineLost, match="3 engines were lost"):
            poison.result(timeout=PATIENCE)
        outcomes = [each.exception(timeout=PATIENCE) for each in [*before, *after]]
        assert cluster.multiengine().get_ids(), "an engine is left, or was started again"
        good = [
            each.result() for each, outcome in zip([*before, *after], outcomes, strict=True) if outcome is None
        ]
        assert set(good) <= set(range(OTHERS))
        return OTHERS - len(set(good))
