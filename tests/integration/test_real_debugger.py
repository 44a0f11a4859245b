"""Debuggers on real ranks, two nodes of two: from IPython, a notebook's kernel and a plain program."""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ipmpi import errors
from ipmpi.client import MultiEngineClient
from tests.in_process import wait_until

pytest.importorskip("IPython")

if TYPE_CHECKING:
    from real_clusters import Cluster, Flavour
    from terminal import Terminal

pytestmark = [pytest.mark.slow, pytest.mark.mpi]

WITHIN = 60
PROMPT = r"^\[{}\] ipdb> \Z"
STEP = """
def step(x):
    twice = 2 * x
    if x in stops:
        breakpoint()
    mpi.COMM_WORLD.Barrier()
    return twice
"""


@pytest.fixture(scope="module")
def cluster(
    flavour_named: Callable[[str], Flavour], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    from real_clusters import Cluster
    from test_real_nodes import on_nodes

    shared = Cluster(tmp_path_factory.mktemp("debugger"), flavour_named("openmpi"))
    try:
        on_nodes(shared, [0, 0, 2, 2])
        shared.mec().execute(STEP)
        yield shared
    finally:
        shared.stop()


@pytest.fixture(scope="module")
def prompt(cluster: Cluster, need: Callable[[str, object], None]) -> Iterator[Terminal]:
    from terminal import Terminal, tmux_is_here

    need("no tmux; apt-get install tmux", tmux_is_here())
    with Terminal(cluster.home, cluster.environ) as terminal:
        terminal.run("%load_ext ipmpi")
        furl = cluster.files["multiengine_furl_file"]
        terminal.run(f"from ipmpi import client; mec = client.MultiEngineClient({furl!r}); mec.activate()")
        yield terminal


@pytest.fixture
def usable(cluster: Cluster) -> Iterator[None]:
    """Whatever a test does, all ranks run the next command together."""
    yield
    mec = cluster.mec()
    assert mec.execute("stops = (); print(step(id))", block=False).get_result(timeout=WITHIN)


def debug(prompt: Terminal, engine: int, line: str) -> None:
    """Type a line at the prompt of an engine's debugger."""
    typed = f"ipdb> {line}"
    before = prompt.wait_for(PROMPT.format(engine), WITHIN).count(typed)
    prompt.write(line)
    # Until it is shown, a prompt at the end of the screen could be taken for the next one.
    wait_until(lambda: prompt.screen().count(typed) > before, f"{typed} on the screen", WITHIN)
    prompt.keys("Enter")


@pytest.mark.usefixtures("usable")
def test_two_ranks_at_a_breakpoint_in_ipython(prompt: Terminal) -> None:
    prompt.clear()
    before = prompt.number()
    prompt.enter("%px stops = (1, 3); print('before'); r = step(id); print('after')")
    first = int(
        re.findall(r"^\[([13])\] ipdb> \Z", prompt.wait_for(PROMPT.format("[13]"), WITHIN), re.MULTILINE)[0]
    )
    for _ in range(WITHIN):  # until both are there
        debug(prompt, first, "@")
        if "[1, 3] <ipmpi" in prompt.wait_for(PROMPT.format(first), WITHIN):
            break
        debug(prompt, first, "import time; time.sleep(0.5)")
    debug(prompt, first, "@1")
    debug(prompt, 1, "p twice")
    shown = prompt.wait_for(r"^2\n\[1\] ipdb> $", WITHIN)
    assert f"engine {4 - first} also waits in the debugger" in shown
    assert re.search(r"^\[.*\] before\n(.*\n)*> <ipmpi \d+>\(6\)step\(\)$", shown, re.MULTILINE), shown
    debug(prompt, 1, "@3")
    debug(prompt, 3, "twice = 100")
    debug(prompt, 3, "@all c")
    shown = prompt.wait_for(rf"In \[{before + 1}\]: $", WITHIN)
    assert "] after" in shown
    assert "100" in prompt.run("mec.pull('r')")


@pytest.mark.usefixtures("usable")
def test_post_mortem_in_ipython(prompt: Terminal) -> None:
    prompt.clear()
    prompt.run("%%px --no-verbose -t 2\ndef divide(n):\n    part = n + 40\n    return part / n\ndivide(0)")
    before = prompt.number()
    prompt.enter("%pxdebug")
    debug(prompt, 2, "p part, id")
    shown = prompt.wait_for(r"\(40, 2\)", WITHIN)
    assert "return part / n" in shown
    debug(prompt, 2, "u")
    debug(prompt, 2, "q")
    prompt.wait_for(rf"In \[{before + 1}\]: $", WITHIN)
    assert "%pxdebug takes the id of one engine" in prompt.run("%pxdebug 1:3")
    assert "no command has raised in user code on this engine" in prompt.run("%pxdebug 1")


@pytest.mark.usefixtures("usable")
def test_ctrl_c_in_the_debugger(prompt: Terminal) -> None:
    prompt.clear()
    before = prompt.number()
    prompt.enter("%px -t 3 import time; breakpoint(); x = 1")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # a short name: the line has to fit
        began = Path(folder, "b")
        debug(prompt, 3, f"open({str(began)!r}, 'w').close(); time.sleep(100)")
        wait_until(began.exists, "the statement runs", WITHIN)
        prompt.keys("C-c")
    shown = prompt.wait_for(r"KeyboardInterrupt.*\n(.*\n)*\[3\] ipdb> $", WITHIN)
    assert "interrupting engine 3" in shown
    prompt.keys("C-c")
    prompt.wait_for(r"c lets the engine go on", WITHIN)
    prompt.wait_for(PROMPT.format(3), WITHIN)
    prompt.keys("C-c")
    shown = prompt.wait_for(rf"In \[{before + 1}\]: $", WITHIN)
    assert "[3] KeyboardInterrupt" in shown
    assert "ignored module" not in shown


@pytest.mark.usefixtures("usable")
def test_a_command_that_nobody_waits_for_is_announced_and_opened_later(prompt: Terminal) -> None:
    prompt.clear()
    prompt.run("%px stops = (2,)")
    prompt.run("pending = mec.execute('r = step(id)', block=False)")
    prompt.wait_for(r"engine 2 stopped in the debugger \(<ipmpi \d+>:\d in step\): mec\.debug\(\)", WITHIN)
    before = prompt.number()
    prompt.enter("%pxdebug 2")
    debug(prompt, 2, "c")
    prompt.wait_for(rf"In \[{before + 1}\]: $", WITHIN)
    assert "step" in prompt.run("pending.r")


@pytest.mark.usefixtures("usable")
def test_a_rank_goes_on_when_its_client_is_gone(cluster: Cluster) -> None:
    client = MultiEngineClient(cluster.files["multiengine_furl_file"])
    client.execute("stops = (0, 3)")
    pending = client.execute("gone = step(id)", block=False)
    (talk,) = pending._partial.talks
    wait_until(lambda: sorted(talk.waiting()) == [0, 3], "both wait", WITHIN)
    other = cluster.mec()
    assert not other.debuggers_wait()
    with pytest.raises(errors.ClientError, match="no debugger of a command of this client waits"):
        other.debug()
    client.close()
    waits = other.pull("gone", block=False)
    assert waits.get_result(timeout=WITHIN) == [0, 2, 4, 6]


@pytest.mark.usefixtures("usable")
def test_a_plain_program_reads_lines_from_its_standard_input(cluster: Cluster) -> None:
    program = (
        f"from ipmpi import client; mec = client.MultiEngineClient({cluster.files['multiengine_furl_file']!r})\n"
        "mec.execute('stops = (1,)'); print(mec.execute('r = step(id); print(r)', targets='all')[1]['stdout'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input="p twice\ntwice = 9\nc\n", env=cluster.environ, capture_output=True,
        text=True, timeout=WITHIN, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "[1] ipdb> 2\n" in done.stdout
    assert done.stdout.endswith("9\n\n")


@pytest.mark.usefixtures("usable")
def test_without_more_input_the_debugger_is_quit(cluster: Cluster) -> None:
    program = (
        f"from ipmpi import client; mec = client.MultiEngineClient({cluster.files['multiengine_furl_file']!r})\n"
        "mec.execute('breakpoint(); x = 1', targets=1)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], stdin=subprocess.DEVNULL, env=cluster.environ, capture_output=True,
        text=True, timeout=WITHIN, check=False,
    )  # fmt: skip
    assert "BdbQuit" in done.stderr


@pytest.mark.usefixtures("usable")
def test_in_a_notebook_the_kernel_asks_for_lines(cluster: Cluster, need: Callable[[str, object], None]) -> None:
    need("no ipykernel; 'make test' installs it", importlib.util.find_spec("ipykernel"))
    manager = importlib.import_module("jupyter_client.manager").KernelManager()
    manager.start_kernel(env=cluster.environ)
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=WITHIN)
        lines = iter(["p twice", "c"])
        prompts: list[str] = []
        texts: list[str] = []

        def asked(message: dict[str, Any]) -> None:
            prompts.append(message["content"]["prompt"])
            client.input(next(lines))

        def came(message: dict[str, Any]) -> None:
            texts.append(message["content"].get("text", ""))

        furl = cluster.files["multiengine_furl_file"]
        code = (
            f"from ipmpi import client; mec = client.MultiEngineClient({furl!r}); mec.activate()\n"
            "get_ipython().run_line_magic('px', 'stops = (2,)')\n"
            "get_ipython().run_line_magic('px', 'r = step(id)')"
        )
        reply = client.execute_interactive(
            code, stdin_hook=asked, output_hook=came, allow_stdin=True, timeout=WITHIN
        )
        assert reply["content"]["status"] == "ok", reply
        assert prompts == ["[2] ipdb> ", "[2] ipdb> "]
        assert "\n4\n" in "".join(texts)
        # A program that runs a notebook answers no questions: user code goes on.
        reply = client.execute_interactive(code, output_hook=came, allow_stdin=False, timeout=WITHIN)
        assert reply["content"]["status"] == "ok", reply
        assert "nobody can be asked here" in "".join(texts)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


@pytest.mark.usefixtures("usable")
def test_in_a_task_a_breakpoint_is_passed_over(cluster: Cluster) -> None:
    def task() -> int:
        breakpoint()
        return 5

    assert cluster.tc().submit(task).result(timeout=WITHIN) == 5
    assert any("breakpoint() in" in text and "is passed over" in text for text in cluster.mec().log().values())
