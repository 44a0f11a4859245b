"""Interrupts of code that has changed the handlers of signals, or left them changed."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from pathlib import Path

import pytest
from rank_process import run

from ipmpi.engine.rank.controlblock import DEBUGGER, DEBUGGER_HEARD, ControlBlock
from ipmpi.engine.rank.interrupts import Interrupts

IN_C = (
    "import ctypes; libc = ctypes.PyDLL(None); libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p); "
    "libc.signal.restype = ctypes.c_void_p; libc.signal({{number:d}}, {})"
)
CHANGES = {
    "default": "signal.signal({number}, signal.SIG_DFL)",
    "ignored": "signal.signal({number}, signal.SIG_IGN)",
    "Python's own": "signal.signal({number}, signal.default_int_handler)",
    "another function": "signal.signal({number}, lambda *_: None)",
    "blocked": "signal.pthread_sigmask(signal.SIG_BLOCK, {{{number}}})",
    "default, set by C code": IN_C.format(0),
    "ignored, set by C code": IN_C.format(1),
}
ASLEEP = "import time; started(1); time.sleep(50)"
WORK = """
change = {change!r}
def work():
    import builtins
    started = SimpleQueue()
    builtins.started = started.put
    if {number} != signal.SIGURG:
        submit("while it runs", "import signal; " + change + ASLEEP)
        started.get()
        interrupt_until("while it runs")
    submit("changes", "import signal; " + change)
    assert answers.get() == ("changes", True, "")
    submit("later", ASLEEP)
    started.get()
    interrupt_until("later")
    give("import signal; " + change)
    assert answers.get() == (1, 0, 0)
    give(ASLEEP, group=2)
    started.get()
    cancel(2, {{0}})
    assert answers.get() == (2, 0, 2)
    submit("last", "1")
    assert answers.get() == ("last", True, "")

def interrupt_until(name):
    interrupt()
    assert answers.get() == (name, False, "KeyboardInterrupt")
ASLEEP = {asleep!r}
agent(work)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGURG], ids=["SIGINT", "SIGURG"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_interrupts_arrive_whatever_code_does_with_a_signal(root: Path, change: str, number: int) -> None:
    source = change.format(number=int(number)) + "; "
    out = run(WORK.format(change=source, asleep=ASLEEP, number=int(number)), root)
    assert out == "main thread ended by itself []\n"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1"])
def test_signals_from_outside_are_heard_after_code_that_ignored_them(root: Path, name: str) -> None:
    out = run(
        f"""
def work():
    submit("ignores", "import signal; signal.signal(signal.{name}, signal.SIG_IGN)")
    submit("next", "1")
    assert answers.get() == ("ignores", True, "") and answers.get() == ("next", True, "")
    os.kill(os.getpid(), signal.{name})
    submit("last", "1")
    answers.get()
agent(work)
""",
        root,
    )
    assert out == f"main thread ended by itself ['{name}']\n"


MODULE = """
import builtins, time
builtins.started(1)
{rest}
whole = True
"""


def imports_and_is_interrupted(root: Path, folder: Path, rest: str, then: str = "", after: str = "") -> str:
    """A command imports a module that ends with ``rest``, and is interrupted meanwhile.

    Args:
        then: what the command does when it has the module.
        after: what the agent does when the interrupt has become the command's answer.
    """
    (folder / "imported.py").write_text(MODULE.format(rest=rest))
    return run(
        f"""
def work():
    import builtins
    started = SimpleQueue()
    builtins.started = started.put
    submit("imports", "import sys; sys.path.insert(0, {str(folder)!r}); import imported{then}")
    started.get()
    interrupt()
    assert answers.get() == ("imports", False, "KeyboardInterrupt")
{after}
agent(work)
""",
        root,
    )


def test_an_import_comes_to_its_end_before_it_is_interrupted(root: Path, tmp_path: Path) -> None:
    """One that was broken off cannot be had again: modules in C are loaded once."""
    after = """
    submit("has it", "assert sys.modules['imported'].whole")
    assert answers.get() == ("has it", True, "")
"""
    out = imports_and_is_interrupted(root, tmp_path, "time.sleep(0.3)", r"\nwhile True: pass", after)
    assert out == "main thread ended by itself []\n"


def test_an_import_that_does_not_end_is_interrupted(root: Path, tmp_path: Path) -> None:
    out = imports_and_is_interrupted(root, tmp_path, "while True: pass")
    assert out == "main thread ended by itself []\n"


def test_debuggers_are_attached_by_the_same_signal_but_not_within_an_import_or_a_packet(tmp_path: Path) -> None:
    block, descriptor = ControlBlock.create()
    os.close(descriptor)
    words = block.words
    wanted: list[tuple[int, int, bool]] = []
    interrupts = Interrupts(block)

    def attach(number: int) -> None:
        wanted.append((number, words[DEBUGGER_HEARD], interrupts.shielded))

    interrupts.on_debugger = attach
    words[DEBUGGER] = 1
    interrupts.shielded = True
    interrupts.arrived(sys._getframe())
    interrupts.shielded = False
    (tmp_path / "imported_for_debuggers.py").write_text("import sys\nhook(sys._getframe())\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        patch.setattr("builtins.hook", interrupts.arrived, raising=False)
        importlib.import_module("imported_for_debuggers")
    assert (wanted, words[DEBUGGER_HEARD]) == ([], 0)
    interrupts.arrived(sys._getframe())
    interrupts.arrived(sys._getframe())
    assert wanted == [(1, 1, True)]
    words[DEBUGGER] = 0
    interrupts.arrived(sys._getframe())
    assert (wanted[1:], interrupts.shielded) == ([(0, 0, True)], False)


@pytest.mark.parametrize("module", ["pydevd", "_pydevd_bundle.pydevd_comm", "debugpy.server.api"])
def test_debuggers_are_not_detached_while_the_interrupted_code_is_theirs(module: str) -> None:
    """It may have taken a lock, which to detach takes, too: the rank would wait for itself for ever."""
    block, descriptor = ControlBlock.create()
    os.close(descriptor)
    interrupts = Interrupts(block)
    wanted: list[int] = []
    interrupts.on_debugger = wanted.append
    block.words[DEBUGGER] = 1
    theirs = {"__name__": module, "arrived": interrupts.arrived, "sys": sys}
    exec("def holds_a_lock():\n    (lambda: arrived(sys._getframe()))()", theirs)
    theirs["holds_a_lock"]()  # type: ignore[operator]
    assert (wanted, block.words[DEBUGGER_HEARD]) == ([], 0)
    interrupts.arrived(sys._getframe())
    assert wanted == [1]
