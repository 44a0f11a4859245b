"""Links that break at random moments, and a controller that dies: nothing is lost and nothing comes twice."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from ipmpi import furl, limits
from ipmpi.client import MultiEngineClient, TaskClient
from ipmpi.errors import CompositeError, ConnectionError
from ipmpi.furl import Furl
from tests.figures import report
from tests.ports import fixed_port
from tests.security.cluster import LOOPBACK, ROOT, Controller, controller, engines, wait_until
from tests.security.relay import Relay
from tests.security.wire import register

CUT_STEP = int(os.environ.get("IPMPI_LINK_CUT_STEP", "250"))
"""Bytes from one cut to the next; 1 is the long form."""

pytestmark = [pytest.mark.timeout(90 + 4_000 // CUT_STEP)]


def random_budget(seed: int, lowest: int, highest: int) -> Callable[[], tuple[int, bool]]:
    """Cut every connection after a random number of bytes, by RST or FIN."""
    source = random.Random(seed)
    return lambda: (source.randrange(lowest, highest), source.random() < 0.5)


def through(relay: Relay, running: Controller, role: str) -> Path:
    """A furl file that names the relay as the controller's address."""
    real = running.furl(role)
    path = running.home / f"relayed-{role}.furl"
    furl.save(path, Furl(real.fingerprint, (relay.address,), role, real.secret))
    return path


@contextmanager
def cut_cluster(
    home: Path, side: str, budget: Callable[[], tuple[int, bool]]
) -> Iterator[tuple[MultiEngineClient, Relay, Controller]]:
    """A controller, one engine and a client; the links of ``side`` ('mec' or 'engine') are cut."""
    with controller(home) as running, Relay(running.address(side), budget) as relay:
        path = {role: running.furl_file(role) for role in ("mec", "engine")}
        path[side] = through(relay, running, side)
        with engines(home, 1, ["--furl-file", str(path["engine"])]):
            running.wait_engines(1)
            with MultiEngineClient(str(path["mec"])) as mec:
                yield mec, relay, running


@pytest.mark.parametrize("side", ["mec", "engine"])
@pytest.mark.parametrize("seed", [1, 2])
def test_commands_arrive_once_and_in_order_over_links_that_break(tmp_path: Path, side: str, seed: int) -> None:
    with cut_cluster(tmp_path, side, random_budget(seed, 6_000, 30_000)) as (mec, relay, _):
        mec.execute("seen = []")
        pending = [mec.execute(f"seen.append({i}); print({i})", block=False) for i in range(300)]
        for i, result in enumerate(pending):
            assert result.get_result()[0]["stdout"] == f"{i}\n"
        assert mec.pull("seen") == [list(range(300))]
        assert relay.cuts >= 2


@pytest.mark.parametrize("side", ["mec", "engine"])
@pytest.mark.parametrize("seed", [1, 2])
def test_arrays_arrive_whole_over_links_that_break(tmp_path: Path, side: str, seed: int) -> None:
    array = np.random.default_rng(seed).random(20_000_000 // 8)
    with cut_cluster(tmp_path, side, random_budget(seed, 3_000_000, 9_000_000)) as (mec, relay, _):
        mec.push({"x": array, "n": 0})
        for _ in range(2):
            mec.execute("n += 1")
            assert np.array_equal(mec.pull("x")[0], array)
        assert mec.pull("n") == [2]
        assert relay.cuts >= 4


def test_cut_at_any_moment_of_the_handshake_of_a_resumption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the first link, connections die in every phase: TCP, TLS, Hello, Welcome, first frames."""
    # Cut sixteen times in a row, the dialler would wait longer and longer, past its lease.
    monkeypatch.setattr(limits, "RECONNECT_FIRST", 0.01)
    monkeypatch.setattr(limits, "RECONNECT_FACTOR", 1.0)
    # Of thousands, each second one lasts for a while: else the session would end after 120 s without a link.
    lasting = [] if CUT_STEP >= 250 else [9_000]
    cuts = [20_000, *(size for cut in range(0, 4_000, CUT_STEP) for size in (cut, *lasting))]
    budgets = iter(cuts)
    with cut_cluster(tmp_path, "mec", lambda: (next(budgets, -1), True)) as (mec, relay, _):
        mec.execute("seen = []")
        count = 0
        while count < 200 or relay.connections < len(cuts):
            mec.execute(f"seen.append({count}); s = '{'x' * 100}'")
            count += 1
        assert mec.pull("seen") == [list(range(count))]
        assert relay.cuts >= len(cuts) // 2
        report("links cut at each byte", cuts=relay.cuts, commands=count, lost=0, repeated=0)


def test_each_connection_comes_twice(tmp_path: Path) -> None:
    """Somebody on the way makes each connection a second time, with the same bytes: that one gets nowhere."""
    with (
        controller(tmp_path) as running,
        Relay(running.address("mec"), twins=True) as relay,
        engines(tmp_path, 1),
        MultiEngineClient(str(through(relay, running, "mec"))) as mec,
    ):
        running.wait_engines(1)
        mec.execute("seen = []")
        for number in range(50):
            mec.execute(f"seen.append({number})")
        assert mec.pull("seen") == [list(range(50))]
        assert relay.connections == 1


def test_a_slow_network_loses_nothing(tmp_path: Path) -> None:
    """Each piece of data takes 50 ms; commands do not wait for each other."""
    with (
        controller(tmp_path) as running,
        Relay(running.address("mec"), delay=0.05) as relay,
        engines(tmp_path, 1),
        MultiEngineClient(str(through(relay, running, "mec"))) as mec,
    ):
        running.wait_engines(1)
        mec.execute("seen = []")
        pending = [mec.execute(f"seen.append({number})", block=False) for number in range(200)]
        for result in pending:
            result.get_result(timeout=60)
        assert mec.pull("seen") == [list(range(200))]


def test_engine_that_is_cut_in_its_handshake_dials_again(tmp_path: Path) -> None:
    budgets = iter([20_000, 0, 700, 1_500, 2_200, 3_000])
    with cut_cluster(tmp_path, "engine", lambda: (next(budgets, -1), False)) as (mec, relay, _):
        for i in range(100):
            mec.execute(f"i = {i}; s = '{'x' * 100}'")
        assert mec.pull("i") == [99]
        assert relay.cuts >= 3


QUICK = """
from ipmpi import limits
limits.LEASE_AFTER_CLOSE, limits.SILENCE, limits.PING_INTERVAL = 0.3, 4.0, 3.0
"""


@pytest.mark.parametrize("side", ["mec", "engine"])
def test_nothing_is_lost_when_only_the_controller_sees_the_end_of_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    """As with ssh -L and address translation: who dialled hears nothing, and finds out after ``SILENCE``."""
    (tmp_path / "sitecustomize.py").write_text(QUICK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for name, value in (("SILENCE", 4.0), ("PING_INTERVAL", 3.0)):
        monkeypatch.setattr(limits, name, value)
    with cut_cluster(tmp_path, side, lambda: (-1, False)) as (mec, relay, running):
        mec.execute("import time; done = []")
        pending = [mec.execute(f"time.sleep(0.2); done.append({n})", block=False) for n in range(10)]
        with TaskClient(str(running.furl_file("tc"))) as tc:
            tasks = [tc.submit(pow, 2, n) for n in range(20)]
            pending[1].get_result()
            relay.cut_far_ends()
            for result in pending:
                result.get_result()
            assert [task.result() for task in tasks] == [2**n for n in range(20)]
        assert mec.pull("done") == [list(range(10))]
        assert relay.connections >= 2  # a busy machine may be silent for longer than this test's SILENCE
        assert "it may come back within 90 s" in running.log()
        assert "unregistered" not in running.log()


RENEWED = """
from ipmpi import limits
limits.TLS_RECORDS, limits.PING_INTERVAL = 300, 3.0
limits.LANE_BODY = 1 << 40  # what goes by a lane wears no link out
"""


@pytest.mark.parametrize("side", ["mec", "engine"])
def test_links_are_replaced_before_their_keys_are_worn_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], side: str
) -> None:
    """With work under way, of which nothing is lost or done twice, and nobody is told that anything broke."""
    (tmp_path / "sitecustomize.py").write_text(RENEWED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(limits, "TLS_RECORDS", 300)
    monkeypatch.setattr(limits, "PING_INTERVAL", 0.3)
    array = np.random.default_rng(5).random(2_000_000)
    with cut_cluster(tmp_path, side, lambda: (-1, False)) as (mec, relay, running):
        mec.execute("n = 0")
        rounds = 0
        while relay.connections < 4:
            rounds += 1
            mec.push({"x": array})
            mec.execute("n += 1")
            assert np.array_equal(mec.pull("x")[0], array)
        assert mec.pull("n") == [rounds]
        assert "broke" not in capsys.readouterr().err
        assert "unregistered" not in running.log()
        assert running.log().count("is back from") >= 3


def test_an_engine_set_with_nothing_to_do_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(QUICK)
    with controller(tmp_path, extra={"PYTHONPATH": f"{tmp_path}:{ROOT}"}) as running:
        engine, _ = register(running.furl("engine"))
        running.wait_engines(1)
        engine.close()
        running.wait_engines(0)


@pytest.mark.parametrize("role", ["mec", "engine"])
def test_a_process_on_this_machine_that_is_killed_is_not_waited_for(tmp_path: Path, role: str) -> None:
    """Though it has work, and might come back where that could not be seen."""
    with controller(tmp_path) as running, engines(tmp_path, 1) as (engine,):
        running.wait_engines(1)
        if role == "engine":
            with MultiEngineClient(str(running.furl_file("mec"))) as mec:
                mec.execute("import time")
                pending = mec.execute("time.sleep(60)", block=False)
                wait_until(lambda: mec.queue_status()[0][1]["pending"], "the command to begin")
                engine.kill()
                begin = time.monotonic()
                with pytest.raises(CompositeError) as caught:
                    pending.get_result()
                assert "it was killed by SIGKILL" in str(caught.value.elist[0][1])
        else:
            code = (
                "from ipmpi.client import MultiEngineClient; import time;"
                f"mec = MultiEngineClient({str(running.furl_file('mec'))!r}); print(flush=True);"
                "mec.execute('import time; time.sleep(60)')"
            )
            with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) as client:
                assert client.stdout is not None
                client.stdout.readline()
                client.kill()
            begin = time.monotonic()
            wait_until(lambda: "its process has ended" in running.log(), "the end of a session")
        assert time.monotonic() - begin < 2


def test_calls_end_at_once_when_the_controller_on_this_machine_is_killed(tmp_path: Path) -> None:
    with controller(tmp_path) as running, engines(tmp_path, 1):
        running.wait_engines(1)
        mec = MultiEngineClient(str(running.furl_file("mec")))
        pending = mec.execute("import time; time.sleep(60)", block=False)
        running.stop(signal.SIGKILL)
        begin = time.monotonic()
        ended = rf"the controller \(process {running.pid} on this machine\) has ended"
        with pytest.raises(ConnectionError, match=ended):
            pending.get_result()
        assert time.monotonic() - begin < 3
        with pytest.raises(ConnectionError, match=r"ipcluster -n 4"):
            mec.get_ids()


def test_cutting_is_noticed_where_nothing_resumes(tmp_path: Path) -> None:
    """The relay does cut: a plain connection through it ends."""
    with controller(tmp_path) as running, Relay(running.address("mec"), lambda: (10, False)) as relay:
        with socket.create_connection(relay.address, 5) as sock:
            sock.sendall(bytes(100))
            assert sock.recv(100) == b""
        wait_until(lambda: relay.cuts == 1, "the cut")


def test_engine_survives_a_controller_that_is_killed(tmp_path: Path) -> None:
    ports = ["--client-port", str(fixed_port()), "--engine-port", str(fixed_port())]
    first = Controller(tmp_path, [*LOOPBACK, *ports])
    try:
        with engines(tmp_path, 2):
            first.wait_engines(2)
            client = MultiEngineClient(str(first.furl_file("mec")))
            before = pids(client)
            client.execute("kept = id * 10")
            busy = threading.Thread(target=lambda: swallow(client), daemon=True)
            busy.start()
            first.stop(signal.SIGKILL)
            second = Controller(tmp_path, [*LOOPBACK, *ports])
            try:
                second.wait_engines(2)
                with MultiEngineClient(str(second.furl_file("mec"))) as mec:
                    assert pids(mec) == before
                    assert mec.pull("kept") == [0, 10]
                busy.join(20)
                assert not busy.is_alive()
                client.close()
            finally:
                second.stop()
    finally:
        first.stop()


def swallow(mec: MultiEngineClient) -> None:
    """A command that is under way when the controller dies ends in an error, and does not wait for ever."""
    with pytest.raises(ConnectionError, match="Make a new client"):
        mec.execute("import time; time.sleep(0.5)")


def pids(mec: MultiEngineClient) -> dict[int, int]:
    """Process of every engine."""
    mec.execute("import os; pid = os.getpid()")
    return dict(zip(mec.get_ids(), mec.pull("pid"), strict=True))
