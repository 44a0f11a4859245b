"""Executors, pools and joblib on real ranks."""

from __future__ import annotations

import concurrent.futures
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle
import pytest

from ipmpi.client.pools import Executor, register_joblib
from ipmpi.client.session.failures import EngineTraceback
from tests.client import executor_contract
from tests.client.executor_contract import ExecutorContract, reciprocal, square

if TYPE_CHECKING:
    from real_clusters import Cluster

    from ipmpi.client import TaskClient

pytestmark = [pytest.mark.slow, pytest.mark.mpi]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

# Engines cannot import these files.
cloudpickle.register_pickle_by_value(executor_contract)
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def tc(cluster: Cluster) -> TaskClient:
    return cluster.tc()


class TestContract(ExecutorContract):
    @pytest.fixture
    def workers(self) -> int:
        return 4

    @pytest.fixture
    def executor(self, tc: TaskClient, tmp_path: Path) -> Iterator[concurrent.futures.Executor]:
        executor = tc.executor()
        yield executor
        (tmp_path / "go").touch()  # a test that failed may have left calls
        executor.shutdown()


def on_ranks(comm: Any, value: int) -> tuple[int, int]:
    return comm.Get_size(), comm.allreduce(value)


def has_client() -> bool:
    return "ipmpi.client" in sys.modules


def note_and_sleep(path: str, seconds: float) -> None:
    with open(path, "a") as file:
        file.write("x")
    time.sleep(seconds)


def test_a_client_of_its_own_is_found_and_closed(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(cluster.home))
    with Executor(max_workers=4) as executor:
        assert list(executor.map(square, range(1000), chunksize=10)) == [x * x for x in range(1000)]


def test_calls_on_several_ranks(tc: TaskClient) -> None:
    with tc.executor() as executor:
        together = executor.options(ranks=3)
        futures = [together.submit(on_ranks, k) for k in range(5)]
        singles = executor.map(square, range(100))
        assert [f.result(timeout=60) for f in futures] == [(3, 3 * k) for k in range(5)]
        assert list(singles) == [x * x for x in range(100)]
        assert list(together.map(on_ranks, [1, 2])) == [(3, 3), (3, 6)]


def test_engines_do_not_import_the_client(tc: TaskClient) -> None:
    with tc.executor() as executor:
        assert not any(executor.map(lambda _: has_client(), range(100), chunksize=10))


def test_a_pool(tc: TaskClient) -> None:
    with tc.pool() as pool:
        assert pool.size == 4
        values: list[int] = []
        assert pool.map(square, range(1000)) == [x * x for x in range(1000)]
        assert sorted(pool.imap_unordered(square, iter(range(100)))) == [x * x for x in range(100)]
        pool.apply_async(square, (5,), callback=values.append)
        with pytest.raises(ZeroDivisionError):
            pool.map(reciprocal, [1, 0])
        pool.close()
        pool.join()
        assert values == [25]


def test_the_end_of_a_pool_stops_what_runs(tc: TaskClient, tmp_path: Path) -> None:
    noted = tmp_path / "noted"
    before = time.monotonic()
    with tc.pool() as pool:
        one = pool.apply_async(note_and_sleep, (str(noted), 60.0))
        many = pool.map_async(lambda path: note_and_sleep(path, 60.0), [str(noted)] * 10)
        while not noted.exists() or noted.stat().st_size < 4:
            time.sleep(0.005)
            assert time.monotonic() - before < 30
    pool.join()
    for result in (one, many):
        with pytest.raises(concurrent.futures.CancelledError):
            result.get(timeout=30)
    assert time.monotonic() - before < 30
    assert noted.stat().st_size == 4
    assert tc.map(square, range(10)) == [x * x for x in range(10)]


# Only this environment is sure to have joblib on the engines' side.
@pytest.mark.parametrize("flavour", ["openmpi"], indirect=True)
def test_joblib(tc: TaskClient, need: Callable[[str, object], None]) -> None:
    need("no joblib", importlib.util.find_spec("joblib"))
    import joblib

    register_joblib(tc)
    with joblib.parallel_backend("ipmpi"):
        assert joblib.Parallel()(joblib.delayed(pow)(x, 2) for x in range(2000)) == [x * x for x in range(2000)]
        pids = set(joblib.Parallel(batch_size=1)(joblib.delayed(pause_and_tell)(0.01) for _ in range(40)))
        with pytest.raises(ZeroDivisionError) as info:
            joblib.Parallel()(joblib.delayed(reciprocal)(x) for x in [1, 0])
    assert len(pids) == 4
    assert os.getpid() not in pids
    assert isinstance(info.value.__cause__, EngineTraceback)


def pause_and_tell(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


@pytest.mark.parametrize("name", ["executor_pi", "executor_primes", "executor_julia", "executor_run_workers"])
def test_the_examples(cluster: Cluster, name: str) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py")],
        env=cluster.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "  passed: " in done.stdout
