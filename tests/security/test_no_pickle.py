"""S21, S22: whatever passes through it, the controller loads no pickle. An audit hook in its process looks."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ipmpi.client import MultiEngineClient, TaskClient
from ipmpi.errors import CompositeError, KernelError
from ipmpi.protocol import messages as m
from ipmpi.protocol.packed import pack
from tests.security.cluster import LOOPBACK, Controller, engines, environment
from tests.security.wire import Member

pytestmark = [pytest.mark.timeout(60)]

# Loaded by Python before anything else: writes a line for every class a pickle names, and every import of what
# could load one. Python's own start-up and -m are included.
WATCH = """
import os, sys
_fd = os.open(os.environ["IPMPI_TEST_WATCH"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
_names = {"pickle", "_pickle", "cloudpickle", "numpy", "shelve", "dill", "ipmpi.serialize"}
def _hook(event, arguments):
    if event == "pickle.find_class" or event == "import" and arguments[0] in _names:
        os.write(_fd, f"{event} {arguments[0]} {arguments[1]}\\n".encode())
sys.addaudithook(_hook)
os.write(_fd, b"watching\\n")
"""


def watched(folder: Path) -> dict[str, str]:
    """Environment in which a Python process watches itself."""
    (folder / "sitecustomize.py").write_text(WATCH)
    path = environment(folder)["PYTHONPATH"]
    return {"PYTHONPATH": f"{folder}{os.pathsep}{path}", "IPMPI_TEST_WATCH": str(folder / "seen")}


class Cluster:
    """A watched controller with two engines."""

    def __init__(self, folder: Path) -> None:
        self.seen = folder / "seen"
        self.controller = Controller(folder / "home", LOOPBACK, extra=watched(folder))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("watched"))
    try:
        with engines(made.controller.home, 2):
            made.controller.wait_engines(2)
            yield made
    finally:
        made.controller.stop()


@pytest.fixture(autouse=True)
def nothing_was_loaded(cluster: Cluster) -> Iterator[None]:
    yield
    assert cluster.controller.is_alive()
    assert cluster.seen.read_text().splitlines() == ["watching"]


@pytest.fixture
def mec(cluster: Cluster) -> Iterator[MultiEngineClient]:
    with MultiEngineClient(str(cluster.controller.furl_file("mec"))) as opened:
        yield opened


@pytest.fixture
def tc(cluster: Cluster) -> Iterator[TaskClient]:
    with TaskClient(str(cluster.controller.furl_file("tc"))) as opened:
        yield opened


class Bomb:
    """Makes a folder wherever it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.makedirs, (str(self.folder / "exploded-in-"), 0o700, True)


def test_the_watch_sees_a_pickle(tmp_path: Path) -> None:
    program = "import pickle, sys; pickle.loads(pickle.dumps(sys.exit))"
    subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **watched(tmp_path)}, check=True, timeout=20
    )
    seen = (tmp_path / "seen").read_text()
    assert "pickle.find_class sys exit" in seen
    assert "import pickle" in seen


def test_execute_push_and_pull(mec: MultiEngineClient) -> None:
    mec.execute("a = 6 * 7; print(a)")
    for size in (10, 5_000_000 // 8):
        array = np.arange(size, dtype=float)
        mec.push({"x": array, "y": {"deep": [1, (2, 3)]}})
        for pulled in mec.pull("x"):
            assert np.array_equal(pulled, array)
    assert mec.pull("y", targets=0) == [{"deep": [1, (2, 3)]}]


def test_scatter_and_gather(mec: MultiEngineClient) -> None:
    mec.scatter("part", np.arange(600_000))
    assert np.array_equal(mec.gather("part"), np.arange(600_000))


def test_functions_and_instances(mec: MultiEngineClient) -> None:
    class Local:
        def __init__(self, value: int) -> None:
            self.value = value

    assert [r.value for r in mec.apply(lambda thing: Local(thing.value + 1), Local(1))] == [2, 2]


def test_errors_and_results_that_cannot_be_pickled(mec: MultiEngineClient) -> None:
    with pytest.raises(CompositeError):
        mec.execute("class Own(Exception):\n    def __reduce__(self): return 5\nraise Own('no')")
    with pytest.raises((CompositeError, KernelError)):
        mec.apply(lambda: (i for i in range(3)))
    mec.execute("import threading; lock = threading.Lock()")
    with pytest.raises((CompositeError, KernelError)):
        mec.pull("lock")


def test_tasks(tc: TaskClient, mec: MultiEngineClient) -> None:
    assert list(tc.map(lambda x: x * x, range(20))) == [x * x for x in range(20)]
    mec.set_properties({"red": True}, targets=[0])
    on_red = tc.submit(pow, 2, 5, depend=lambda properties: properties.get("red"), priority=2, timeout=20)
    assert tc.submit(pow, on_red, 2).result(20) == 1024
    assert on_red.engine == 0
    assert sum(array.sum() for array in tc.map(lambda n: np.ones(n), [10, 300_000])) == 300_010
    with pytest.raises(Exception, match=r"division|ZeroDivision"):
        list(tc.map(lambda x: 1 / x, [0]))


def test_bombs_go_off_where_they_are_meant_to_and_nowhere_else(
    mec: MultiEngineClient, tc: TaskClient, tmp_path: Path
) -> None:
    mec.push({"bomb": Bomb(tmp_path)}, targets=0)
    assert (tmp_path / "exploded-in-").is_dir(), "the engine unpickled it, so it is a bomb"
    list(tc.map(lambda thing: None, [Bomb(tmp_path)]))


def test_bombs_in_every_field_of_a_message(cluster: Cluster, tmp_path: Path) -> None:
    bomb = pickle.dumps(Bomb(tmp_path))
    text = bomb.decode("latin-1")
    furl = cluster.controller.furl
    with Member(furl("engine")) as engine, Member(furl("mec")) as mec, Member(furl("tc")) as tc:
        engine.say(m.Register([m.EngineInfo(0, 77, text, 1)], text, text))
        assert engine.hear(m.Registered).ids == [77]
        mec.say(m.Command(1, [77], text, text, bomb, [len(bomb)] * 2), body=[bomb, bomb])
        number = engine.hear(m.Dispatch).id
        mec.say(m.QueueStatus(2, None))
        mec.hear(m.Reply)
        engine.say(m.Result(number, [0], False, bomb, [len(bomb)]), body=[bomb])
        assert mec.hear(m.Result).outcome == bomb
        mec.say(m.Reserve(4, [0, 1]))
        mec.hear(m.Reply)
        key = blake2b(bomb, digest_size=16).digest()
        options = m.TaskOptions(bomb, text, [key], timeout=9.0, conditional=True)
        tc.say(m.DefineFunction(key, 0, len(bomb), [len(bomb)]), body=[bomb])
        tc.say(m.SubmitTasks(1, options, pack([len(bomb)]), [len(bomb)]), body=[bomb])
        engine.say(m.WantTasks(10))
        given = engine.hear(m.GiveTasks)
        assert given.options.operation == bomb
        engine.say(m.TasksReturned(given.group, pack([0]), 0, "running", text))
        engine.say(
            m.TaskResults(given.group, 0, pack([0]), pack([0]), pack([len(bomb)]), 0.0, [len(bomb)]), body=[bomb]
        )
        done = tc.hear(m.TasksDone)
        assert (done.group, done.engine, done.failed) == (1, 77, pack([0]))
        tc.say(m.AbortTasks(2, 1, bomb[:40], text), m.TaskStatus(3))
        tc.hear(m.Reply)
        engine.say(m.RanksLost([0], text), m.Goodbye(text))
        mec.say(m.Goodbye(text))
        tc.say(m.Goodbye(text))
        mec.ping()
    assert not (tmp_path / "exploded-in-").exists()
