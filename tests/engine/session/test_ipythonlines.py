"""Magics and shell commands on an engine. A process has one shell of IPython, so these run in processes."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import Any

import pytest

from ipmpi.engine.session.descriptions import described
from ipmpi.engine.session.ipythonlines import IPythonLines
from ipmpi.engine.session.namespace import Namespace
from ipmpi.protocol.operations import Execute

HEAD = """\
import sys
from ipmpi.engine.session.namespace import Namespace
from ipmpi.protocol import operations as o
from ipmpi import serialize
space = Namespace(0)
space.install_as_main()
def run(source):
    executed, error = space.console.execute(o.Execute(source))
    if error is not None:
        raise error
    return executed
def keys():
    return serialize.loads(space.run("keys", o.encode(o.Keys()), []).body)
"""


def in_a_process(code: str) -> str:
    pytest.importorskip("IPython")
    done = subprocess.run(
        [sys.executable, "-c", HEAD + code], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_ipython_is_loaded_by_the_first_command_that_needs_it() -> None:
    in_a_process(
        "run('a = 1')\n"
        "try: run('a = = 1')\n"
        "except SyntaxError: pass\n"
        "assert 'IPython' not in sys.modules\n"
        "run('%time b = a')\n"
        "assert 'IPython' in sys.modules\n"
    )


def test_magics_and_shell_commands_see_the_names_of_the_engine() -> None:
    out = in_a_process(
        "run('a = 5')\n"
        "print(run('!echo value {a}').display_repr)\n"
        "run('x = !echo one; echo two')\n"
        "run('%time y = a + 1')\n"
        "run('def f():\\n    return a\\nz = %timeit -o -q -n1 -r1 f()')\n"
        "run('%cd /')\n"
        "print(space.names['x'], space.names['y'], keys())\n"
    )
    assert out.endswith("['one', 'two'] 6 ['id', 'mpi', 'a', 'x', 'y', 'f', 'z']\n")


def test_a_cell_magic_takes_the_whole_command() -> None:
    in_a_process("run('%%capture said\\nprint(1)')\nassert space.names['said'].stdout == '1\\n'\n")


def test_an_exit_code_is_kept_and_a_question_is_answered() -> None:
    in_a_process("run('!exit 3')\nassert space.names['_exit_code'] == 3\nrun('import os\\nos.path?')\n")


def test_names_are_still_ours_after_a_reset() -> None:
    out = in_a_process(
        "run('!true')\n"
        "space.run('reset', o.encode(o.Reset()), [])\n"
        "print(keys())\n"
        "run('!true')\n"
        "run('%cd /')\n"
        "assert run('1 + 1').display_repr == '2'\n"
        "assert space.names['_'] == 2\n"
    )
    assert "['id', 'mpi']" in out


def test_what_is_no_code_of_ipython_either_is_the_errors_of_python() -> None:
    error = SyntaxError("as Python says")
    with pytest.raises(SyntaxError, match="as Python says"):
        IPythonLines({}, lambda names: None).as_python("a = = 1", error)


@pytest.fixture
def no_ipython(monkeypatch: pytest.MonkeyPatch) -> Namespace:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "IPython" else find(name))
    return Namespace(0)


def executed(space: Namespace, source: str) -> tuple[Any, BaseException | None]:
    return space.console.execute(Execute(source))


@pytest.mark.parametrize("source", ["!ls", "a = 1\n%time a", "x = !ls", "%%bash\nls"])
def test_without_ipython_it_is_said_what_to_install(no_ipython: Namespace, source: str) -> None:
    _, error = executed(no_ipython, source)
    assert isinstance(error, SyntaxError)
    assert "need IPython, which is not installed" in str(error)
    assert f"({sys.executable}): pip install ipython" in str(error)


@pytest.mark.parametrize("source", ["len?", "len??", "%pinfo len"])
def test_a_question_needs_no_ipython(no_ipython: Namespace, source: str) -> None:
    _, error = executed(no_ipython, source)
    assert error is None


def test_the_answer_to_a_question() -> None:
    def area(radius: float) -> float:
        """Of a circle."""
        return 3 * radius

    assert (
        described(area)
        == "Signature: area(radius: 'float') -> 'float'\nType:      function\nDocstring: Of a circle."
    )
    assert "Value:     5" in described(5)


def test_figures_need_no_magic() -> None:
    in_a_process(
        "run('%matplotlib inline\\na = 5')\n"
        "run('if a:\\n    %matplotlib widget\\n    b = a + 1')\n"
        "assert space.names['b'] == 6\n"
        "assert 'IPython' not in sys.modules\n"
        "run('%matplotlib inline\\n%time c = b')\n"
        "assert space.names['c'] == 6\n"
        "try: run('%matplotlib inline\\na = = 1')\n"
        "except SyntaxError: pass\n"
        "else: assert False\n"
    )
