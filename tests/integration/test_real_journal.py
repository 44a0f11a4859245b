"""A controller with a journal is killed with -9 while it has tasks, and started again.

The long form: ``IPMPI_KILLS=200 IPMPI_KILL_TASKS=10000 pytest tests/integration/test_real_journal.py``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipmpi import errors
from ipmpi.client import MultiEngineClient, TaskClient
from tests.figures import report
from tests.ports import fixed_port
from tests.security.cluster import LOOPBACK, Controller, engines, wait_until

pytestmark = [pytest.mark.timeout(60 + 20 * int(os.environ.get("IPMPI_KILLS", "3")))]

KILLS = int(os.environ.get("IPMPI_KILLS", "3"))
TASKS = int(os.environ.get("IPMPI_KILL_TASKS", "600"))


class Killed:
    """A controller that can be killed and started again on the same furls."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.journal = home / "journal"
        self._options = [
            *LOOPBACK, "--client-port", str(fixed_port()), "--engine-port", str(fixed_port()),
            "--journal", str(self.journal),
        ]  # fmt: skip
        self.now = Controller(home, self._options)

    def kill(self) -> float:
        """Kill it, start it again; return how many seconds it took until it listened."""
        self.now.stop(signal.SIGKILL)
        began = time.monotonic()
        self.now = Controller(self.home, self._options)
        return time.monotonic() - began


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killed]:
    home = tmp_path_factory.mktemp("journal")
    killed = Killed(home)
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: killed.now.stop())
        # Two sets, of which each has one engine.
        stack.enter_context(engines(home, 2))
        killed.now.wait_engines(2)
        yield killed


def note(path: str, number: int, seconds: float = 0.0) -> int:
    """A task that leaves a line each time it runs."""
    import os
    import time

    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, b"%d\n" % number)
    os.close(descriptor)
    time.sleep(seconds)
    return number * number


def runs(path: Path) -> Counter[int]:
    return Counter(map(int, path.read_text().split()))


def test_what_was_accepted_ends_once_and_runs_once(controller: Killed, tmp_path: Path) -> None:
    path = tmp_path / "ran"
    started = []
    with TaskClient(str(controller.now.furl_file("tc"))) as tc:
        for cycle in range(KILLS):
            numbers = range(cycle * TASKS, (cycle + 1) * TASKS)
            futures = [tc.submit(note, str(path), number) for number in numbers]
            several = tc.imap(abs, range(-TASKS, 0), timeout=120)
            futures[TASKS // 2].result(60)  # so that some have ended, and some have not
            started.append(controller.kill())
            assert list(several) == list(range(TASKS, 0, -1))
            assert [future.result(60) for future in futures] == [number**2 for number in numbers]
            assert not cycle % 10 or max(runs(path).values()) == 1
        assert tc.queue_status()["scheduled"] == 0
    assert runs(path) == Counter(range(KILLS * TASKS)), "some ran twice, or never"
    report(
        "controller kills", kills=KILLS, tasks=2 * TASKS * KILLS, lost=0, repeated=0,
        accepting_median_s=statistics.median(started), accepting_most_s=max(started),
    )  # fmt: skip


def test_running_work_is_adopted(controller: Killed, tmp_path: Path) -> None:
    path = tmp_path / "ran"
    with TaskClient(str(controller.now.furl_file("tc"))) as tc:
        running = [tc.submit(note, str(path), number, 1.5) for number in range(2)]
        wait_until(lambda: path.exists() and len(runs(path)) == 2, "both run")
        waiting = tc.submit(note, str(path), 2)
        dependent = tc.submit(note, str(path), 3, after=[running[0]])
        cancelled = tc.submit(note, str(path), 4)
        assert cancelled.cancel()
        controller.kill()
        assert [future.result(30) for future in (*running, waiting, dependent)] == [0, 1, 4, 9]
    assert runs(path) == Counter(range(4))


def test_clients_go_on_and_so_do_commands_under_way(controller: Killed) -> None:
    with MultiEngineClient(str(controller.now.furl_file("mec"))) as mec:
        mec.execute("kept = id + 10")
        ids = mec.get_ids()
        pending = mec.execute("import time; time.sleep(2); kept += 1", block=False)
        controller.kill()
        assert mec.get_ids() == ids, "they are told when the engines are back"
        pending.get_result(60)
        assert mec.pull("kept") == [number + 11 for number in ids]


def test_reservations_go_on(controller: Killed) -> None:
    with (
        MultiEngineClient(str(controller.now.furl_file("mec"))) as mec,
        TaskClient(str(controller.now.furl_file("tc"))) as tc,
    ):
        first, second = ids = mec.get_ids()
        pids = mec.execute("import os; pid = os.getpid()") and mec.pull("pid")
        with mec.reserve([first]):
            controller.kill()
            assert mec.get_ids() == ids, "they are told when the engines are back"
            assert set(tc.map(pid_after, [0.02] * 20)) == {pids[ids.index(second)]}
            controller.kill()
        assert set(tc.map(pid_after, [0.5] * 4)) == set(pids)


def pid_after(seconds: float) -> int:
    import os
    import time

    time.sleep(seconds)
    return os.getpid()


def fail_slowly(path: str) -> None:
    """Fail at once the first time, and then after a while."""
    import os
    import time

    had = os.path.getsize(path) if os.path.exists(path) else 0
    with open(path, "a") as file:
        file.write("1\n")
    time.sleep(2.0 if had else 0.0)
    raise ValueError(f"run {had // 2 + 1}")


def test_used_retries_count(controller: Killed, tmp_path: Path) -> None:
    path = tmp_path / "ran"
    with TaskClient(str(controller.now.furl_file("tc"))) as tc:
        future = tc.submit(fail_slowly, str(path), retries=2)
        wait_until(lambda: path.exists() and runs(path)[1] == 2, "it runs for the second time")
        controller.kill()
        with pytest.raises(ValueError, match="run 3"):
            future.result(60)
    assert runs(path) == {1: 3}


def test_failures_and_large_results_and_arguments(controller: Killed, tmp_path: Path) -> None:
    with TaskClient(str(controller.now.furl_file("tc"))) as tc:
        path = tmp_path / "gate"

        def large(data: bytes, path: str) -> bytes:
            import os
            import time

            while not os.path.exists(path):
                time.sleep(0.01)
            return data + data

        def fails() -> None:
            raise ValueError("as it should")

        tasks = [tc.submit(large, bytes(300_000), str(path)) for _ in range(3)]
        failing = tc.submit(fails)
        controller.kill()
        path.touch()
        assert [len(task.result(60)) for task in tasks] == [600_000] * 3
        with pytest.raises(ValueError, match="as it should"):
            failing.result(60)


def test_a_task_with_a_large_argument_goes_on_without_its_client(controller: Killed, tmp_path: Path) -> None:
    """It runs, so it has its argument: that neither its client nor its controller is there does not matter."""
    path, gate = tmp_path / "ran", tmp_path / "gate"

    def waits(data: bytes, path: str, gate: str) -> int:
        import os
        import time

        with open(path, "a") as file:
            file.write(f"{len(data)}\n")
        while not os.path.exists(gate):
            time.sleep(0.01)
        return len(data)

    furl = str(controller.now.furl_file("tc"))
    with TaskClient(furl) as tc:
        running = tc.submit(waits, bytes(300_000), str(path), str(gate), name="left")
        tc.submit(str, "afterwards", after=[running], name="left")
        wait_until(lambda: path.exists() and runs(path)[300_000] == 1, "it runs")
    with TaskClient(furl) as tc:
        wait_until(lambda: not any(each.is_there for each in tc.history()), "its client is gone")
        controller.kill()
        found = tc.resume("left")
        assert isinstance(found, list)
        gate.touch()
        assert [future.result(60) for future in found] == [300_000, "afterwards"]
        tc.forget("left")
    assert runs(path) == {300_000: 1}


def test_the_journal_is_private_and_empty_after_an_orderly_end(tmp_path: Path) -> None:
    killed = Killed(tmp_path)
    try:
        names = [each for each in tmp_path.iterdir() if each.name.startswith("journal")]
        assert {stat.S_IMODE(each.stat().st_mode) for each in names} == {0o600}
        with TaskClient(str(killed.now.furl_file("tc"))) as tc:
            waiting = tc.submit(abs, 1)
            wait_until(lambda: tc.queue_status()["scheduled"] == 1, "it is accepted")
            killed.now.stop()
            with pytest.raises(errors.ConnectionError, match="the controller was stopped"):
                waiting.result(20)
        killed.kill()
        assert "restored from the journal" not in killed.now.log()
    finally:
        killed.now.stop()
