"""IPython in a terminal, with real ranks: what is typed, and what is on the screen then."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("IPython")

if TYPE_CHECKING:
    from real_clusters import Cluster, Flavour
    from terminal import Terminal

pytestmark = [pytest.mark.slow, pytest.mark.mpi]


@pytest.fixture(scope="module")
def cluster(
    flavour_named: Callable[[str], Flavour], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """Four ranks."""
    from real_clusters import Cluster

    shared = Cluster(tmp_path_factory.mktemp("prompt"), flavour_named("openmpi"))
    try:
        shared.start(4)
        yield shared
    finally:
        shared.stop()


@pytest.fixture(scope="module")
def prompt(cluster: Cluster, need: Callable[[str, object], None]) -> Iterator[Terminal]:
    """A prompt whose client is active."""
    from terminal import Terminal, tmux_is_here

    need("no tmux; apt-get install tmux", tmux_is_here())
    with Terminal(cluster.home, cluster.environ) as terminal:
        terminal.run("%load_ext ipmpi")
        terminal.run(
            f"from ipmpi import client; mec = client.MultiEngineClient({cluster.files['multiengine_furl_file']!r})"
        )
        terminal.run("mec.progress_after = 0.5; mec.activate()")
        terminal.run("%px import os, signal, sys, time")
        yield terminal


@pytest.fixture(autouse=True)
def clean_prompt(prompt: Terminal) -> None:
    """What one test has left does not disturb the next."""
    prompt.clear()


def body(shown: str) -> list[str]:
    """The lines after the one that names the engines."""
    lines = [line.rstrip() for line in shown.splitlines()]
    return [line for line in lines[lines.index("Parallel execution on engines: all") + 1 :] if line]


def test_equal_lines_are_one_line_and_values_follow(prompt: Terminal) -> None:
    code = "mpi.COMM_WORLD.Barrier(); print('the same'); 6 * 7"
    assert body(prompt.run(f"%px {code}")) == ["[0-3] the same", "Out[0-3]: 42"]


def test_what_differs_is_shown_with_its_ranks(prompt: Terminal) -> None:
    assert body(prompt.run("%px id // 3")) == ["Out[0-2]: 0", "Out[3]: 1"]


def test_numeric_folding_is_one_line(prompt: Terminal) -> None:
    lines = body(prompt.run("%%px --fold numeric --no-stream\nprint('residual =', id / 10)"))
    assert len(lines) == 1
    assert lines[0].startswith("[0-3] residual = 0.0 .. 0.3")


def test_options_of_a_cell(prompt: Terminal) -> None:
    shown = prompt.run("%%px -t 1:4:2 --no-verbose -o kept\nid * 2")
    assert "Out[1]: 2" in shown
    assert "Out[3]: 6" in shown
    assert "engines" not in shown
    assert "[1, 3]" in prompt.run("[each['id'] for each in kept.r]")


def test_a_shell_command_runs_on_ranks(prompt: Terminal) -> None:
    assert body(prompt.run("%px --no-stream !echo from the shell")) == ["[0-3] from the shell"]


def test_a_question_is_answered_by_ranks(prompt: Terminal) -> None:
    lines = body(prompt.run("%px --no-stream len?"))
    assert lines[0] == "[0-3] Signature: len(obj, /)"
    assert lines[1].strip() == "Docstring: Return the number of items in a container."


def test_noblock_and_pxresult(prompt: Terminal) -> None:
    assert "<PendingResult of execute: not done yet>" in prompt.run("%%px -a\ntime.sleep(1); print('later')")
    assert "[0-3] later" in prompt.run("%pxresult")


def test_autopx(prompt: Terminal) -> None:
    assert "Auto Parallel Enabled" in prompt.run("%autopx")
    try:
        assert "Out[0-3]: 7" in prompt.run("3 + 4")
    finally:
        assert "Auto Parallel Disabled" in prompt.run("%autopx")


def test_without_a_client_it_is_said_what_to_type(prompt: Terminal) -> None:
    prompt.run(
        "active, magics = mec, get_ipython().magics_manager.registry['ParallelMagics']; magics.active = None"
    )
    try:
        shown = prompt.run("%px 1")
        assert "UsageError: Error:  No Controller is activated" in shown
        assert re.search(r"Type: \w+\.activate\(\)", shown)
    finally:
        prompt.run("active.activate()")


def test_completion_asks_a_rank(prompt: Terminal) -> None:
    prompt.run("%px viscosity_of_water = 1")
    prompt.write("%px y = visc")
    prompt.keys("Tab")
    prompt.wait_for(r"%px y = viscosity_of_water")
    prompt.clear()
    prompt.write("mec['visc")
    prompt.keys("Tab")
    prompt.wait_for(r"mec\['viscosity_of_water")


def test_completion_does_not_hang_while_ranks_are_busy(prompt: Terminal) -> None:
    prompt.run("%%px -a --no-verbose\ntime.sleep(30)")
    try:
        prompt.write("%px visc")
        prompt.keys("Tab")
        began = time.monotonic()
        prompt.write("x")
        prompt.wait_for(r"%px viscx")
        assert time.monotonic() - began < 5
    finally:
        prompt.clear()
        prompt.run("mec.interrupt()")


def test_the_status_line_names_the_ranks_that_are_waited_for(prompt: Terminal) -> None:
    prompt.enter("%px time.sleep(4 if id in (1, 3) else 0)")
    prompt.wait_for(r"^2/4 done · \[1, 3\] running [1-4] s")
    shown = prompt.wait_for(r"In \[\d+\]: $")
    assert "running" not in shown.split("%px time.sleep")[-1]


def test_ctrl_c_interrupts_the_ranks_of_this_command_only(prompt: Terminal, cluster: Cluster) -> None:
    other = cluster.mec().execute("import time; time.sleep(3); x = 'undisturbed'", targets=3, block=False)
    prompt.enter("%px -t 0:3 time.sleep(60)")
    prompt.wait_for(r"Parallel execution on engines: \[0, 1, 2\]")
    time.sleep(0.5)  # it is to be running, of which there is no sign on the screen
    prompt.keys("C-c")
    shown = prompt.wait_for(r"In \[\d+\]: $").split("%px -t 0:3")[-1]
    assert "interrupting [0-2]. Ctrl-C again leaves the command running" in shown
    assert "KeyboardInterrupt" in shown
    other.get_result(timeout=30)
    assert "Out[3]: 'undisturbed'" in prompt.run("%px -t 3 x")


def test_a_rank_that_does_not_react_is_named_and_a_second_ctrl_c_detaches(
    prompt: Terminal, cluster: Cluster
) -> None:
    stop = cluster.home / "stop"
    prompt.run(f"%px stop = {str(stop)!r}")
    prompt.run("%px deaf = KeyboardInterrupt if id == 2 else ZeroDivisionError")
    body = "    try: time.sleep(0.05)\n    except deaf: pass"
    prompt.enter(f"%%px\nwhile not os.path.exists(stop):\n{body}\nprint('went on')")
    try:
        prompt.wait_for(r"running \d s")
        prompt.keys("C-c")
        shown = prompt.wait_for(r"did not react")
        assert "engine 2 did not react" in shown
        assert "[2] is in Python" in " ".join(shown.split())
        assert "mec.restart()" in shown
        prompt.keys("C-c")
        shown = prompt.wait_for(r"In \[\d+\]: $")
        assert re.search(r"KeyboardInterrupt: the wait has ended; .* goes on on \[2\]\. %pxresult waits", shown)
    finally:
        stop.touch()
    shown = prompt.run("%pxresult").split("%pxresult")[-1]
    assert "KeyboardInterrupt" in shown
    assert "[0-1, 3]" in shown


def test_ctrl_c_in_a_plain_call(prompt: Terminal) -> None:
    prompt.enter("mec.execute('time.sleep(60)')")
    prompt.wait_for(r"0/4 done · \[0-3\] running \d s")
    prompt.keys("C-c")
    shown = prompt.wait_for(r"In \[\d+\]: $").split("mec.execute(")[-1]
    assert re.search(r"^KeyboardInterrupt: \[0-3\] KeyboardInterrupt", shown, re.MULTILINE)
    assert "Traceback" not in shown


def test_in_detach_mode_a_plain_call_goes_on(prompt: Terminal) -> None:
    prompt.run("mec.on_interrupt = 'detach'")
    try:
        prompt.enter("mec.execute('time.sleep(3); print(\"came\")')")
        prompt.wait_for(r"0/4 done · \[0-3\] running \d s")
        prompt.keys("C-c")
        shown = prompt.wait_for(r"In \[\d+\]: $")
        assert "mec.detached.r waits for its result again" in " ".join(shown.split())
        assert "came" in prompt.run("mec.detached.r")
    finally:
        prompt.run("mec.on_interrupt = 'ranks'")


def test_output_comes_while_the_command_runs(prompt: Terminal) -> None:
    prompt.enter("%px print('early', flush=True); time.sleep(3); print('late')")
    shown = prompt.wait_for(r"\[[0-3]\S*\] early")
    assert "] late" not in shown.split("%px print(")[-1]
    prompt.wait_for(r"\[[0-3]\S*\] late$")


def test_ranks_that_fail_alike_take_at_most_15_lines(prompt: Terminal) -> None:
    prompt.run("%%px\ndef half(x):\n    return 1 / (x - x)")
    shown = prompt.run("%px half(id)")
    assert len(shown.split("engines: all")[-1].strip().splitlines()) <= 15
    assert "ZeroDivisionError" in shown
    assert "ipmpi/" not in shown
    assert "half" in prompt.run("%pxtb 0")


def test_ctrl_c_of_a_stopped_rank_does_not_block_the_prompt(prompt: Terminal, cluster: Cluster) -> None:
    pid = cluster.pids(cluster.mec())[1]
    os.kill(pid, signal.SIGSTOP)
    try:
        prompt.enter("%px 1")
        prompt.wait_for(r"running \d s")
        prompt.keys("C-c")
        prompt.wait_for(r"engine 1 did not react")
        prompt.keys("C-c")
        prompt.wait_for(r"goes on on \[1\]")
    finally:
        os.kill(pid, signal.SIGCONT)
    prompt.run("%pxresult")
