"""Output that comes while a command runs, and Ctrl-C, with engines that answer when a test wants."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

from ipmpi.errors import CompositeError, WaitInterrupted
from ipmpi.protocol import messages as m, operations

if TYPE_CHECKING:
    from tests.ipython.conftest import LiveSession

Capsys = pytest.CaptureFixture[str]
TABLE = {"text/plain": "a table", "text/html": "<table/>"}


def printed(*engines: int, text: str = "said\n", kind: int = m.STDOUT) -> m.OutputBlock:
    return m.OutputBlock(kind, True, list(engines), text.encode())


def display(*engines: int) -> m.OutputBlock:
    return m.OutputBlock(m.DISPLAY, True, list(engines), operations.encode(operations.Display(TABLE)))


def test_output_is_shown_once_and_before_the_values(
    shell: Any, live_mec: Any, live: LiveSession, capsys: Capsys
) -> None:
    def engines() -> None:
        live.output.add([printed(0, 1), printed(2, 3)])
        live.finish()

    live.began = engines  # type: ignore[method-assign]
    shell.run_cell("%px id // 4")
    assert capsys.readouterr().out == "Parallel execution on engines: all\n[0-3] said\nOut[0-3]: 0\n"


def test_output_is_shown_while_the_command_runs(
    shell: Any, live_mec: Any, live: LiveSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    seen = threading.Event()

    def write(text: str) -> None:
        shown.append(text)
        if "early" in text:
            seen.set()

    monkeypatch.setattr("ipmpi.ipython.pxscreen.write", write)

    def engines() -> None:
        live.output.add([printed(0, 1, 2, 3, text="early\n")])
        assert seen.wait(20), "it was not shown before the command ended"
        live.finish()

    live.began = lambda: threading.Thread(target=engines).start()  # type: ignore[method-assign]
    shell.run_cell("%px 1")
    assert "[0-3] early\n" in "".join(shown)


def test_no_stream_shows_it_at_the_end(shell: Any, live_mec: Any, live: LiveSession, capsys: Capsys) -> None:
    def engines() -> None:
        live.output.add([printed(0), printed(1), printed(0, 1, text="failing\n", kind=m.STDERR)])
        live.finish()

    live.began = engines  # type: ignore[method-assign]
    shell.run_cell("%%px --no-stream -t 0,1\n1")
    assert capsys.readouterr().out.splitlines()[1:] == ["[0-1] said", "[0-1 stderr] failing", "Out[0-1]: 1"]


def test_displays_of_chosen_ranks_only(shell: Any, live_mec: Any, live: LiveSession, capsys: Capsys) -> None:
    def engines() -> None:
        live.output.add([display(0, 1), display(2)])
        live.finish()

    live.began = engines  # type: ignore[method-assign]
    for stream in ("--stream", "--no-stream"):
        shell.run_cell(f"%%px --ranks 0 {stream}\nx = 1")
        lines = capsys.readouterr().out.splitlines()
        assert sum("a table" in line for line in lines) == 1
        assert not any("[2]" in line for line in lines)


def test_what_was_printed_is_in_the_log(shell: Any, live_mec: Any, live: LiveSession, capsys: Capsys) -> None:
    def engines() -> None:
        live.output.add([printed(1, text="for the log\n")])
        live.finish()

    live.began = engines  # type: ignore[method-assign]
    live_mec.execute("a = 1")
    capsys.readouterr()
    shell.run_cell("%pxlog")
    out = capsys.readouterr().out
    assert "execute('a = 1')" in out
    assert out.endswith("[1] for the log\n")
    shell.run_cell("%pxlog 0")
    assert "nothing was printed" in capsys.readouterr().out


def interrupt_when_sent(live: LiveSession, then: Any) -> None:
    """Press Ctrl-C once the command is on its way; ``then`` happens when engines are interrupted."""

    def request(make: Any) -> Any:
        message = make(1)
        live.requests.append(message)
        then()

    live.request = request  # type: ignore[method-assign, assignment]
    live.began = lambda: threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()  # type: ignore[method-assign]


def test_ctrl_c_interrupts_the_engines_of_the_cell(
    shell: Any, live_mec: Any, live: LiveSession, capsys: Capsys
) -> None:
    def hit() -> None:
        assert live.submission is not None
        operation = operations.Execute("raise KeyboardInterrupt")
        live.submission = live.submission._replace(operation=operation)
        live.finish()

    interrupt_when_sent(live, hit)
    error = shell.run_cell("%px loop()").error_in_exec
    assert live.requests == [m.Interrupt(1, None, [1])]
    assert isinstance(error, CompositeError)
    assert [kind for kind, _, _ in error.elist] == [KeyboardInterrupt] * 4
    assert "interrupting [0-3]. Ctrl-C again leaves the command running" in capsys.readouterr().err


def test_ctrl_c_ends_the_cell_even_if_engines_finish(
    shell: Any, live_mec: Any, live: LiveSession, capsys: Capsys
) -> None:
    interrupt_when_sent(live, lambda: live.finish())
    error = shell.run_cell("%px 5").error_in_exec
    assert isinstance(error, WaitInterrupted)
    out = capsys.readouterr().out
    assert "Out[0-3]: 5" in out
    assert "KeyboardInterrupt: [0-3] had finished" in out
    assert "Traceback" not in out


def test_signal_0_leaves_the_engines_alone(shell: Any, live_mec: Any, live: LiveSession, capsys: Capsys) -> None:
    interrupt_when_sent(live, lambda: None)
    error = shell.run_cell("%%px --signal-on-interrupt 0\n5").error_in_exec
    assert isinstance(error, WaitInterrupted)
    assert error.detached
    assert live.requests == []
    assert "goes on on [0-3]. %pxresult waits for it and shows it" in capsys.readouterr().out
    live.finish()
    shell.run_cell("%pxresult")
    assert capsys.readouterr().out == "Out[0-3]: 5\n"


def test_signal_kill_ends_the_engines(shell: Any, live_mec: Any, live: LiveSession) -> None:
    def kill(**options: Any) -> None:
        live.requests.append(options)
        live.engines = dict.fromkeys(live.engines)
        live.finish()

    live_mec.kill = kill
    interrupt_when_sent(live, lambda: None)
    error = shell.run_cell("%%px --signal-on-interrupt SIGKILL\nloop()").error_in_exec
    assert live.requests == [{"targets": [0, 1, 2, 3], "block": False}]
    assert "EngineLost" in str(error)


def test_progress_after_0_shows_at_once_for_whom_it_waits(
    shell: Any, live_mec: Any, live: LiveSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str | None] = []
    both = threading.Event()

    def status(_: Any, text: str | None) -> None:
        shown.append(text)
        both.set()

    monkeypatch.setattr("ipmpi.ipython.pxscreen.PxScreen.status", status)

    def engines() -> None:
        assert both.wait(20)
        live.finish()

    live.began = lambda: threading.Thread(target=engines).start()  # type: ignore[method-assign]
    shell.run_cell("%%px --progress-after 0\n1")
    assert shown[0] == "0/4 done · [0-3] running 0 s"


def test_progress_after_minus_1_never_shows_it(
    shell: Any, live_mec: Any, live: LiveSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str | None] = []
    monkeypatch.setattr("ipmpi.ipython.pxscreen.PxScreen.status", lambda _, text: shown.append(text))
    live_mec.progress_after = 0
    live.began = lambda: threading.Timer(0.1, live.finish).start()  # type: ignore[method-assign]
    shell.run_cell("%%px --progress-after -1\n1")
    assert set(shown) == {None}
