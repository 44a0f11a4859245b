"""Clients that are killed, and come back: their tasks go on, and another process finds all results.

The long form: ``IPMPI_CLIENT_KILLS=100 IPMPI_LEFT_TASKS=10000 pytest tests/integration/test_real_leaving.py``.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ipmpi import errors
from ipmpi.client import MapResults, TaskClient
from tests.figures import report
from tests.integration.test_real_journal import runs
from tests.integration.vanishing import client_process, kill, with_two_sets
from tests.security.cluster import Controller, wait_until

KILLS = int(os.environ.get("IPMPI_CLIENT_KILLS", "3"))
TASKS = int(os.environ.get("IPMPI_LEFT_TASKS", "500"))

pytestmark = [pytest.mark.timeout(120 + (20 + TASKS // 100) * KILLS)]


@pytest.fixture(scope="module", params=["journal", "memory"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    """A controller with and without a journal, and two sets of one engine each."""
    with with_two_sets(tmp_path_factory.mktemp(request.param), request.param == "journal") as controller:
        yield controller


def client(controller: Controller, source: str) -> subprocess.Popen[str]:
    """A process with a TaskClient ``tc`` that runs the source, says 'ready', and waits."""
    imports = "from tests.integration.test_real_journal import note\n"
    return client_process(controller, "tc", "TaskClient", imports + textwrap.dedent(source))


@pytest.fixture
def tc(cluster: Controller) -> Iterator[TaskClient]:
    with TaskClient(str(cluster.furl_file("tc"))) as found:
        yield found


def has(tc: TaskClient, name: str, tasks: int) -> Callable[[], bool]:
    """Whether so many tasks are there: those that a client has not sent yet are gone with it."""
    return lambda: any(
        each.name == name and each.waiting + each.running + each.done + each.failed == tasks
        for each in tc.history()
    )


def gone(tc: TaskClient, name: str) -> Callable[[], bool]:
    return lambda: any(each.name == name and not each.is_there for each in tc.history())


def test_all_results_are_found_by_a_new_client(cluster: Controller, tc: TaskClient, tmp_path: Path) -> None:
    seconds = []
    for turn in range(KILLS):
        began = time.monotonic()
        path, name = tmp_path / f"ran{turn}", f"sweep-{turn}"
        source = f"""
            futures = [tc.submit(note, {str(path)!r}, i, name={name!r}) for i in range({TASKS})]
            futures[{TASKS // 3}].result()
        """
        process = client(cluster, source)
        wait_until(has(tc, name, TASKS), "all have arrived at the controller")
        kill(process)
        found = tc.resume(name)
        assert isinstance(found, list)
        assert [future.result(60) for future in found] == [i * i for i in range(TASKS)]
        assert runs(path) == Counter(range(TASKS))
        wait_until(gone(tc, name), "it is known that the client is gone")
        (told,) = [each for each in tc.history() if each.name == name]
        assert (told.waiting, told.running, told.done, told.failed) == (0, 0, TASKS, 0)
        assert tc.forget(name) == TASKS
        with pytest.raises(errors.ClientError, match=f"there are no tasks named '{name}'"):
            tc.resume(name)
        seconds.append(time.monotonic() - began)
    report(
        f"client kills, {'with' if (cluster.home / 'journal').exists() else 'without'} a journal", kills=KILLS,
        tasks=KILLS * TASKS, lost=0, repeated=0, cycle_median_s=statistics.median(seconds),
        cycle_most_s=max(seconds),
    )  # fmt: skip


def test_a_map_is_found_while_it_runs(cluster: Controller, tc: TaskClient, tmp_path: Path) -> None:
    path, gate = tmp_path / "ran", tmp_path / "gate"
    source = f"""
        def wait(i):
            while i >= 100 and not os.path.exists({str(gate)!r}):
                time.sleep(0.01)
            return note({str(path)!r}, i)

        results = tc.imap(wait, range(300), name="mapped")
        next(results)
    """
    kill(client(cluster, source))
    found = tc.resume("mapped")
    assert isinstance(found, MapResults)
    assert next(found) == 0
    gate.touch()
    assert list(found) == [i * i for i in range(1, 300)]
    assert runs(path) == Counter(range(300))
    again = tc.resume("mapped")
    assert isinstance(again, MapResults)
    assert again.collect() == [i * i for i in range(300)]
    tc.forget("mapped")


def test_tasks_without_a_name_go_on_unless_they_were_not_to(
    cluster: Controller, tc: TaskClient, tmp_path: Path
) -> None:
    path, gate = tmp_path / "ran", tmp_path / "gate"
    source = f"""
        def wait(i):
            while not os.path.exists({str(gate)!r}):
                time.sleep(0.01)
            return note({str(path)!r}, i)

        there = [tc.submit(wait, i) for i in range(4)]
        others = [tc.submit(wait, i, detach=False) for i in range(4, 40)]
        while tc.queue_status()["pending"] < 2:
            time.sleep(0.01)
    """
    before = {each.name for each in tc.history()}
    kill(client(cluster, source))
    wait_until(lambda: any(not e.is_there for e in tc.history() if e.name not in before), "it is gone")
    (left,) = [each for each in tc.history() if each.name not in before]
    assert left.name.startswith("unnamed-")
    gate.touch()
    found = tc.resume(left.name)
    assert isinstance(found, list)
    assert [future.result(60) for future in found] == [0, 1, 4, 9]
    ran = runs(path)
    assert [ran[i] for i in range(4)] == [1] * 4
    assert len(ran) < 20, "what engines have runs to its end, and nothing else"
    tc.forget(left.name)


def test_what_failed_and_what_is_large_is_found_too(cluster: Controller, tc: TaskClient) -> None:
    source = """
        def fails():
            raise ValueError("as it should")

        futures = [tc.submit(fails, name="odd"), tc.submit(bytes, 3_000_000, name="odd"), tc.submit(bytes, 100_000,
                   name="odd"), tc.submit(len, bytes(200_000), name="odd")]
        futures[1].result()
        futures[3].result()
    """
    kill(client(cluster, source))
    failed, large, medium, size = tc.resume("odd")
    with pytest.raises(ValueError, match="as it should"):
        failed.result(60)
    assert large.result(60) == bytes(3_000_000)
    assert medium.result(60) == bytes(100_000)
    assert size.result(60) == 200_000
    tc.forget("odd")


def test_named_tasks_outlive_an_orderly_end_and_others_do_not(
    cluster: Controller, tc: TaskClient, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"

    def wait(path: str) -> int:
        import os
        import time

        while not os.path.exists(path):
            time.sleep(0.01)
        return os.getpid()

    before = {each.name for each in tc.history()}
    with TaskClient(str(cluster.furl_file("tc"))) as other:
        named = [other.submit(wait, str(gate), name="named") for _ in range(3)]
        for _ in range(3):
            other.submit(wait, str(gate))
        wait_until(lambda: other.queue_status()["pending"] >= 2, "both engines have something to do")

        def unnamed() -> list[str]:
            return [e.name for e in tc.history() if e.name.startswith("unnamed-") and e.name not in before]

        wait_until(unnamed, "the tasks without a name are accepted")
        with pytest.raises(errors.ClientError, match="are tasks without a name of a client that is there"):
            tc.resume(unnamed()[0])
        with pytest.raises(errors.ClientError, match="there are tasks named 'named' already"):
            tc.submit(abs, 1, name="named").result(60)
        del named
    wait_until(gone(tc, "named"), "the other client is gone")
    assert [each.name for each in tc.history() if each.name not in before] == ["named"]
    found = tc.resume("named")
    assert isinstance(found, list)
    assert tc.resume("named") is found
    assert found[2].cancel()
    gate.touch()
    assert all(future.result(60) > 0 for future in found[:2])
    tc.forget("named")
