"""Whether another process still runs, where that can be seen."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ipmpi import processid

ASK = "from ipmpi import processid; print(processid.own(), flush=True); input()"


def test_a_process_is_gone_when_it_has_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", ASK], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        identity = child.stdout.readline().decode().strip()
        assert processid.number(identity) == child.pid
        assert len(identity) <= processid.LONGEST
        assert not processid.is_gone(identity)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert processid.is_gone(identity), "its parent has not asked for its exit code"
    assert processid.is_gone(identity)


def test_a_process_with_the_same_number_is_another_one() -> None:
    place, pid, began = processid.own().split()
    assert not processid.is_gone(f"{place} {pid} {began}")
    assert processid.is_gone(f"{place} {pid} {int(began) + 1}")


def test_of_other_machines_and_containers_nothing_is_known() -> None:
    place, _, began = processid.own().split()
    gone = f"{2**22 + 1} {began}"  # more than any process id
    assert processid.is_gone(f"{place} {gone}")
    for other in ("", "x", place + "1", place.split("/")[0] + "/pid:[1]"):
        assert not processid.is_gone(f"{other} {gone}")


@pytest.mark.parametrize("rest", ["", "1", "0 0", "-1 5", "x y", "9" * 30 + " 1", "\N{SUPERSCRIPT TWO} 1"])
def test_rubbish_is_nobody(rest: str) -> None:
    place = processid.own().split()[0]
    assert not processid.is_gone(f"{place} {rest}")
    assert not processid.is_gone(rest)
