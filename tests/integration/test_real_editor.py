"""``ipcluster debug``: editors, which speak the Debug Adapter Protocol, at ranks on two nodes of two."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from ipmpi import limits
from ipmpi.client import MultiEngineClient
from ipmpi.client.session.connecting import connect
from ipmpi.client.session.debugrelay import DebugRelay, Happened
from ipmpi.errors import CompositeError
from ipmpi.launch.cluster import records
from ipmpi.launch.cluster.records import ClusterRecord

pytest.importorskip("debugpy")

if TYPE_CHECKING:
    from real_clusters import Cluster, Flavour

pytestmark = [pytest.mark.slow, pytest.mark.mpi]

WITHIN = 30
HEAT = """\
import time
go_on = True
def run(comm, rank):
    steps = 0
    while comm.allreduce(go_on, op=MIN):
        steps = step(rank, steps)
    return steps
def step(rank, steps):
    twice = 2 * rank
    time.sleep(0.01)
    return steps + 1
from mpi4py.MPI import MIN
"""
STEP = HEAT.splitlines().index("    time.sleep(0.01)") + 1


@pytest.fixture(scope="module")
def cluster(
    flavour_named: Callable[[str], Flavour], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    from real_clusters import Cluster
    from test_real_nodes import on_nodes

    folder = tmp_path_factory.mktemp("editor")
    (folder / "heat.py").write_text(HEAT)
    shared = Cluster(folder, flavour_named("openmpi"))
    try:
        on_nodes(shared, [0, 0, 2, 2])
        shared.mec().execute(f"import sys; sys.path.insert(0, {str(folder)!r}); import heat")
        shared.mec().execute("import os; threads = len(os.listdir('/proc/self/task'))")
        yield shared
    finally:
        shared.stop()


@pytest.fixture
def heat(cluster: Cluster) -> Path:
    return cluster.home / "heat.py"


@pytest.fixture
def mec(cluster: Cluster) -> Iterator[MultiEngineClient]:
    """Whatever a test does, all ranks run the next command together."""
    client = cluster.mec()
    yield client
    client.interrupt()  # after a failure
    client.execute("heat.go_on = True")
    assert client.execute("n = mpi.COMM_WORLD.allreduce(1)", block=False).get_result(timeout=WITHIN)


@pytest.fixture
def relay(cluster: Cluster) -> Iterator[Callable[[int], tuple[DebugRelay, int]]]:
    """Make relays to engines."""
    session = connect(cluster.files["multiengine_furl_file"])
    made = []

    def make(engine: int) -> tuple[DebugRelay, int]:
        made.append(DebugRelay(session, engine))
        return made[-1], made[-1].listen(0)

    yield make
    for each in made:
        each.close()
    session.close()


def wait_for_news(relay: DebugRelay, what: Happened) -> str:
    while (news := relay.news.get(timeout=WITHIN)).what is not what:
        assert news.what in (Happened.WANTED, Happened.ATTACHED, Happened.DETACHED), news
    return news.words


Relays = Callable[[int], tuple[DebugRelay, int]]


def is_traced(mec: MultiEngineClient, engine: int) -> bool:
    """Whether code runs slowly there, or threads of the debugger are left, which it hides from Python."""
    code = "traced = 'pydevd' in str(sys.gettrace()) or len(os.listdir('/proc/self/task')) != threads"
    mec.execute(code, targets=engine)
    return bool(mec.pull("traced", targets=engine)[0])


def test_a_rank_that_computes_with_others_is_stopped_and_goes_on(
    mec: MultiEngineClient, relay: Relays, heat: Path
) -> None:
    from dap_client import DapClient
    from real_clusters import wait_for

    running = mec.execute("steps = heat.run(mpi.COMM_WORLD, mpi.COMM_WORLD.Get_rank())", block=False)
    link, port = relay(3)
    with DapClient(port) as editor:
        assert [each["verified"] for each in editor.attach(heat, [STEP])] == [True]
        thread, frames = editor.stopped()
        assert [(frame["name"], frame["line"]) for frame in frames[:2]] == [("step", STEP), ("run", 6)]
        assert not [frame for frame in frames if "/ipmpi/" in frame["source"]["path"]]
        found = editor.variables(frames[0])
        assert (found["rank"], found["twice"]) == ("3", "6")
        editor.ask("continue", threadId=thread)
        thread, frames = editor.stopped()
        assert int(editor.variables(frames[0])["steps"]) == int(found["steps"]) + 1
        editor.ask("setBreakpoints", source={"path": str(heat)}, breakpoints=[])
        editor.ask("next", threadId=thread)
        thread, frames = editor.stopped()
        assert frames[0]["line"] == STEP + 1
        editor.ask("evaluate", expression="globals().update(go_on=False)", frameId=frames[0]["id"], context="repl")
        editor.ask("continue", threadId=thread)
        editor.ask("disconnect")
    assert wait_for_news(link, Happened.DETACHED) == ""
    assert running.get_result(timeout=WITHIN)
    assert len(set(mec.pull("steps"))) == 1
    assert wait_for(lambda: not is_traced(mec, 3), WITHIN)


def test_when_the_editor_is_gone_a_rank_that_had_stopped_goes_on_and_stops_no_more(
    mec: MultiEngineClient, relay: Relays, heat: Path
) -> None:
    from dap_client import DapClient
    from real_clusters import wait_for

    running = mec.execute("steps = heat.run(mpi.COMM_WORLD, mpi.COMM_WORLD.Get_rank())", block=False)
    link, port = relay(2)
    for _ in range(2):
        editor = DapClient(port)
        editor.attach(heat, [STEP])
        editor.stopped()
        editor.drop()
        wait_for_news(link, Happened.DETACHED)
    link, port = relay(0)
    with DapClient(port) as editor:
        editor.attach(heat, [STEP])
        _, frames = editor.stopped()
        editor.ask("evaluate", expression="globals().update(go_on=False)", frameId=frames[0]["id"], context="repl")
        # "Stop" in an editor wants to end the process. The command is to go on instead.
        editor.ask("disconnect", terminateDebuggee=True)
    wait_for_news(link, Happened.DETACHED)
    assert running.get_result(timeout=WITHIN)
    assert wait_for(lambda: not is_traced(mec, 2), WITHIN)
    assert wait_for(lambda: not is_traced(mec, 0), WITHIN)


def test_an_engine_with_nothing_to_do_stops_in_the_next_command_which_can_be_interrupted(
    mec: MultiEngineClient, cluster: Cluster, relay: Relays, heat: Path
) -> None:
    from dap_client import DapClient
    from real_clusters import wait_for

    link, port = relay(1)
    session = connect(cluster.files["multiengine_furl_file"])
    other = DebugRelay(session, 1)
    with DapClient(port) as editor:
        editor.attach(heat, [STEP])
        # One editor at a time, at this port and at the engine.
        with DapClient(port) as second:
            assert second.is_over()
        assert "one editor at a time" in wait_for_news(link, Happened.REFUSED)
        other.try_out()
        assert "engine 1 already has a debugger attached" in wait_for_news(other, Happened.FAILED)
        running = mec.execute("r = heat.step(id, 0)", targets=1, block=False)
        _, frames = editor.stopped()
        assert editor.variables(frames[0])["twice"] == "2"
        mec.interrupt(1)
        with pytest.raises(CompositeError) as raised:
            running.get_result(timeout=WITHIN)
        assert "[1:execute]: KeyboardInterrupt" in str(raised.value)
    wait_for_news(link, Happened.DETACHED)
    other.try_out()
    while (news := other.news.get(timeout=WITHIN)).what is not Happened.DETACHED:
        if news.what is Happened.FAILED:  # the controller has not heard yet, over the other connection
            assert "already has a debugger attached" in news.words
            other.try_out()
    session.close()
    assert wait_for(lambda: not is_traced(mec, 1), WITHIN)


def test_nothing_listens_while_an_editor_is_connected(
    mec: MultiEngineClient, cluster: Cluster, relay: Relays, heat: Path
) -> None:
    from dap_client import DapClient
    from test_real_listeners import listening

    _, port = relay(3)
    ranks = [psutil.Process(pid) for pid in (*cluster.rank_processes(), *cluster.agents())]
    before = [listening(each) for each in ranks]
    with DapClient(port) as editor:
        editor.attach(heat, [STEP])
        assert [listening(each) for each in ranks] == before
    assert mec.get_ids() == [0, 1, 2, 3]


def debug_environ(cluster: Cluster, tmp_path: Path) -> dict[str, str]:
    """The environment in which ``ipcluster debug`` finds this cluster."""
    (tmp_path / "security").mkdir()
    record = ClusterRecord(
        name="default", kind="local", n=4, log_dir="", furl_files={"mec": cluster.files["multiengine_furl_file"]}
    )
    environ = {**cluster.environ, "IPYTHONDIR": str(tmp_path)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(tmp_path))
        records.save(record)
    return environ


def ready(process: subprocess.Popen[str]) -> str:
    """What ``ipcluster debug`` prints until an editor can connect."""
    assert process.stdout is not None
    text = ""
    while "Ctrl-C here" not in text:
        line = process.stdout.readline()
        assert line, text
        text += line
    return text


def configuration(text: str) -> dict[str, Any]:
    """The one in the launch.json that it prints."""
    found: dict[str, Any] = json.loads(text[text.index("{") : text.rindex("}") + 1])["configurations"][0]
    return found


def test_when_ipcluster_debug_is_killed_a_rank_that_had_stopped_goes_on_at_once(
    mec: MultiEngineClient, cluster: Cluster, heat: Path, tmp_path: Path
) -> None:
    """On the controller's machine, which sees that the process has ended: no lease is waited for."""
    from dap_client import DapClient
    from real_clusters import wait_for

    command = [sys.executable, "-m", "ipmpi.cli.ipcluster", "debug", "--rank", "1"]
    with subprocess.Popen(
        command, env=debug_environ(cluster, tmp_path), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            with DapClient(configuration(ready(process))["connect"]["port"]) as editor:
                editor.attach(heat, [STEP])
                running = mec.execute("r = heat.step(id, 0)", targets=1, block=False)
                editor.stopped()
                process.kill()
                assert running.get_result(timeout=limits.LEASE_AFTER_CLOSE)
        finally:
            process.kill()
    assert wait_for(lambda: not is_traced(mec, 1), WITHIN)


def test_ipcluster_debug(mec: MultiEngineClient, cluster: Cluster, heat: Path, tmp_path: Path) -> None:
    """It says what to install if debugpy is missing, and where a rank is that is in C; then an editor comes."""
    from dap_client import DapClient

    environ = debug_environ(cluster, tmp_path)
    command = [sys.executable, "-m", "ipmpi.cli.ipcluster", "debug", "--rank", "2"]
    mec.execute("had = sys.modules.get('debugpy'); sys.modules['debugpy'] = None", targets=2)
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=WITHIN, check=False)
    assert done.returncode == 1
    assert re.search(r"debugpy is missing .* -m pip install 'ipmpi\[debug\]'", done.stderr), done
    mec.execute("del sys.modules['debugpy']", targets=2)
    in_c = mec.execute("mpi.COMM_WORLD.Recv(bytearray(1), 3)", targets=2, block=False)
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline().startswith("Engine 2 is in code that is not Python's")
            assert re.match(r"\[2\] .*Recv", process.stdout.readline())
            mec.execute("mpi.COMM_WORLD.Send(bytearray(1), 2)", targets=3)
            text = ready(process)
            assert in_c.get_result(timeout=WITHIN)
            launch = configuration(text)
            mec.execute("here = os.getcwd()", targets=2)
            assert [launch["pathMappings"][0]["remoteRoot"]] == mec.pull("here", targets=2)
            with DapClient(launch["connect"]["port"]) as editor:
                editor.attach(heat, [STEP])
                running = mec.execute("r = heat.step(id, 0)", targets=2, block=False)
                editor.stopped()
                assert process.stdout.readline() == "Engine 2 is attached.\n"
                process.send_signal(signal.SIGINT)
                assert editor.is_over()
            assert running.get_result(timeout=WITHIN)
            assert process.wait(WITHIN) == 0
        finally:
            process.kill()
