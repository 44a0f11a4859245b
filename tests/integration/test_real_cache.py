"""A queue that outlives its job: tasks wait without engines, and results of a job before need none."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from ipmpi.client import TaskClient
from ipmpi.client.cache.store import FILE, Store
from tests.security.cluster import controller, engines, environment, wait_until

pytestmark = [pytest.mark.timeout(240)]

LOG = "calls.txt"


def square(x: int, log: str) -> int:
    with open(log, "a") as file:
        file.write(f"{x}\n")
    return x * x


def test_a_later_job_does_the_missing_part_only_and_waits_for_engines(tmp_path: Path) -> None:
    log, cache = str(tmp_path / LOG), tmp_path / "cache"

    def called() -> list[int]:
        return sorted(map(int, Path(log).read_text().split()))

    with controller(tmp_path / "first") as first, TaskClient(first.furl_file("tc"), cache_folder=cache) as tc:
        # Nobody is there to run it: it is accepted, and waits.
        waits = tc.submit(square, 100, log, cache=True)
        plain = tc.submit(square, 101, log)
        assert tc.get_ids() == []
        assert (waits.done(), plain.done()) == (False, False)
        assert tc.queue_status()["scheduled"] == 2
        with engines(first.home, 2):
            assert (waits.result(60), plain.result(60)) == (10_000, 10_201)
            assert tc.map(square, range(50), [log] * 50, cache=True) == [x * x for x in range(50)]
    assert called() == [*range(50), 100, 101]

    with controller(tmp_path / "second") as second, TaskClient(second.furl_file("tc"), cache_folder=cache) as tc:
        assert tc.get_ids() == []
        assert tc.map(square, range(50), [log] * 50, cache=True) == [x * x for x in range(50)]
        assert tc.submit(square, 100, log, cache=True).done()
        new = tc.submit(square, 51, log, cache=True)
        assert not new.done()
        with engines(second.home, 1):
            assert tc.map(square, range(51), [log] * 51, cache=True) == [x * x for x in range(51)]
            assert new.result(60) == 51 * 51
    assert called() == [*range(52), 100, 101]


PROGRAM = """
import sys
from ipmpi.client import TaskClient
from tests.integration.test_real_cache import square_or_wait

furl, cache, log = sys.argv[1:]
TaskClient(furl, cache_folder=cache).map(square_or_wait, [*range(20), 1000], [log] * 21, cache=True)
"""


def square_or_wait(x: int, log: str) -> int:
    if x == 1000:
        while not Path(f"{log}.goes-on").exists():
            time.sleep(0.01)
    return square(x, log)


def test_what_came_before_the_client_was_killed_is_kept(tmp_path: Path) -> None:
    """Its map was not complete, and waits for a call that takes for ever."""
    log, cache = str(tmp_path / LOG), tmp_path / "cache"
    with controller(tmp_path / "job") as job, engines(job.home, 2):
        job.wait_engines(2)
        command = [sys.executable, "-c", PROGRAM, str(job.furl_file("tc")), str(cache), log]
        program = subprocess.Popen(command, env=environment(job.home))
        try:
            wait_until(lambda: (cache / FILE).exists(), "a cache", 60)
            store = Store(cache, 1 << 30)
            wait_until(lambda: store.size()[0] == 20, "20 results", 60)
        finally:
            program.kill()
            program.wait(60)
        Path(f"{log}.goes-on").touch()
        with TaskClient(job.furl_file("tc"), cache_folder=cache) as tc:
            got = tc.map(square_or_wait, [*range(20), 1000], [log] * 21, cache=True)
            assert got == [x * x for x in [*range(20), 1000]]
            assert tc.cache_info().hits == 20
    computed = list(map(int, Path(log).read_text().split()))
    assert sorted(x for x in computed if x != 1000) == list(range(20))
