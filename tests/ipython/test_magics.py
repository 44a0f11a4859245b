from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from ipmpi.client.engines.views import EngineView
from ipmpi.client.session.results import PendingResult, ResultList
from ipmpi.errors import ClientError, CompositeError, PeerError
from ipmpi.ipython import ParallelMagics, unload_ipython_extension
from ipmpi.ipython.magics import NO_ACTIVE_CONTROLLER
from ipmpi.protocol.inquiries import RankStack, ReadStacks, StackFrame, decode_question, encode
from ipmpi.protocol.messages import AskAgents

if TYPE_CHECKING:
    from tests.client.conftest import FakeSession

Capsys = pytest.CaptureFixture[str]
Mec = Any
"""A MultiEngineClient."""


def executed(session: FakeSession) -> list[str]:
    return [submission.operation.source for submission in session.sent if submission.method == "execute"]


def targets(session: FakeSession) -> list[int] | None:
    wanted: list[int] | None = session.sent[-1].targets
    return wanted


# --- %px and %%px ------------------------------------------------------------------------------------------------


def test_px_runs_the_line_and_names_the_targets(
    shell: Any, mec: Mec, session: FakeSession, capsys: Capsys
) -> None:
    mec.targets = [0, 2]
    assert shell.run_line_magic("px", "a = 5") is None
    assert executed(session) == ["a = 5"]
    assert targets(session) == [0, 2]
    assert capsys.readouterr().out == "Parallel execution on engines: [0, 2]\n"


def test_px_costs_one_round_trip(shell: Any, mec: Mec, session: FakeSession) -> None:
    shell.run_cell("%%px -t 0:4:2\nprint(1); id")
    shell.run_cell("%px 5")
    assert len(session.sent) == 2
    assert session.requests == []


def test_px_shows_output_and_values_once(shell: Any, mec: Mec, capsys: Capsys) -> None:
    shell.run_cell("%px print('said'); 6 * 7")
    assert capsys.readouterr().out == "Parallel execution on engines: all\n[0-3] said\nOut[0-3]: 42\n"


def test_what_differs_is_shown_with_its_engines(shell: Any, mec: Mec, capsys: Capsys) -> None:
    shell.run_cell("%px id // 2")
    assert capsys.readouterr().out.endswith("engines: all\nOut[0-1]: 0\nOut[2-3]: 1\n")


@pytest.mark.parametrize("cell", ["%px 'hidden';", "%%px\n'hidden';\n", "%%px\n'hidden'; # said\n\n# so\n"])
def test_a_semicolon_at_the_end_hides_the_values(shell: Any, mec: Mec, capsys: Capsys, cell: str) -> None:
    assert shell.run_cell(cell, store_history=True).success
    assert capsys.readouterr().out == "Parallel execution on engines: all\n"
    assert [each["display"]["pprint"] for each in shell.user_ns["Out"][1]] == ["'hidden'"] * 4


@pytest.mark.parametrize("cell", ["%%px\n'a;'", "%%px\n'b' # ;", "%%px\n('c;',\n)"])
def test_other_semicolons_hide_nothing(shell: Any, mec: Mec, capsys: Capsys, cell: str) -> None:
    shell.run_cell(cell)
    assert "Out[0-3]: " in capsys.readouterr().out


def test_an_unfinished_line_with_a_semicolon_is_an_error_of_the_engines(shell: Any, mec: Mec) -> None:
    error = shell.run_cell("%px (1;").error_in_exec
    assert isinstance(error, CompositeError)


def test_the_result_list_is_in_the_history(shell: Any, mec: Mec) -> None:
    shell.run_cell("%px print(1)", store_history=True)
    assert isinstance(shell.user_ns["_"], ResultList)
    assert [each["stdout"] for each in shell.user_ns["_"]] == ["1\n"] * 4
    assert shell.user_ns["Out"][1] is shell.user_ns["_"]


def test_px_leaves_braces_and_dollars_to_the_engines(shell: Any, mec: Mec, session: FakeSession) -> None:
    shell.user_ns["x"] = "local"
    shell.run_cell("%px y = f'{id} $x'")
    assert executed(session) == ["y = f'{id} $x'"]


def test_px_cell_runs_the_lines_below(shell: Any, mec: Mec, session: FakeSession) -> None:
    shell.run_cell("%%px\na = 1\nb = 2\n")
    assert executed(session) == ["a = 1\nb = 2\n"]


def test_px_cell_refuses_code_on_its_own_line(shell: Any, mec: Mec, session: FakeSession) -> None:
    result = shell.run_cell("%%px a = 1\nb = 2\n")
    assert "code for the engines below" in str(result.error_in_exec)
    assert executed(session) == []


def test_px_raises_what_engines_raise(shell: Any, mec: Mec, capsys: Capsys) -> None:
    result = shell.run_cell("%px 1 / id")
    assert isinstance(result.error_in_exec, CompositeError)
    assert "ZeroDivisionError" in str(result.error_in_exec)


def test_an_error_of_ipmpi_itself_is_shown_in_one_line(shell: Any, mec: Mec, capsys: Capsys) -> None:
    shell.run_cell("%px -t 9 1")
    out = capsys.readouterr().out
    assert "InvalidEngineID: Engine with id 9 is not registered" in out
    assert "Traceback" not in out


# --- Options ---------------------------------------------------------------------------------


def test_targets_of_one_cell(shell: Any, mec: Mec, session: FakeSession, capsys: Capsys) -> None:
    shell.run_cell("%%px --targets 0:4:2\nid")
    assert targets(session) == [0, 2]
    assert mec.targets == "all"
    assert capsys.readouterr().out == "Parallel execution on engines: [0, 2]\nOut[0]: 0\nOut[2]: 2\n"


def test_options_before_the_code_of_a_line(shell: Any, mec: Mec, session: FakeSession, capsys: Capsys) -> None:
    shell.run_cell("%px -t 1 --no-verbose -5 + id")
    assert executed(session) == ["-5 + id"]
    assert capsys.readouterr().out == "Out[1]: -4\n"


def test_a_line_that_is_python_has_no_options(shell: Any, mec: Mec, session: FakeSession) -> None:
    shell.run_cell("%px -id")
    assert executed(session) == ["-id"]


@pytest.mark.parametrize("option", ["-a", "--noblock"])
def test_noblock_gives_a_pending_result(shell: Any, mec: Mec, option: str) -> None:
    result = shell.run_cell(f"%%px {option}\n1").result
    assert isinstance(result, PendingResult)
    assert [each["display"]["repr"] for each in result.r] == ["1"] * 4


@pytest.mark.parametrize("option", ["-b", "--block"])
def test_block_waits_in_spite_of_the_client(shell: Any, mec: Mec, option: str, capsys: Capsys) -> None:
    mec.block = False
    shell.run_cell(f"%%px {option}\n1")
    assert "Out[0-3]: 1" in capsys.readouterr().out


def test_a_client_that_does_not_wait_gives_a_pending_result(shell: Any, mec: Mec) -> None:
    mec.block = False
    assert isinstance(shell.run_line_magic("px", "1"), PendingResult)


@pytest.mark.parametrize("option", ["-o kept", "--out kept"])
def test_out_keeps_the_result(shell: Any, mec: Mec, option: str) -> None:
    shell.run_cell(f"%%px {option}\nid")
    assert [each["display"]["repr"] for each in shell.user_ns["kept"].r] == ["0", "1", "2", "3"]


def test_out_takes_a_name(shell: Any, mec: Mec, session: FakeSession) -> None:
    error = shell.run_cell("%%px -o 5\nid").error_in_exec
    assert "name of a variable" in str(error)
    assert executed(session) == []


def test_local_runs_the_cell_here_as_well(shell: Any, mec: Mec) -> None:
    shell.run_cell("%%px --local\nthere = 5\n")
    assert shell.user_ns["there"] == 5
    assert mec["there"] == [5] * 4


def test_fold_numeric_puts_numbers_together(shell: Any, mec: Mec, capsys: Capsys) -> None:
    shell.run_cell("%%px --fold numeric\nprint('residual', id)")
    lines = capsys.readouterr().out.splitlines()[1:]
    assert len(lines) == 1
    assert lines[0].startswith("[0-3] residual 0 .. 3")


def test_fold_off_shows_each_engine(shell: Any, mec: Mec, capsys: Capsys) -> None:
    shell.run_cell("%%px --fold off\nprint('same')")
    assert capsys.readouterr().out.splitlines()[1:] == [f"[{engine}] same" for engine in range(4)]


@pytest.mark.parametrize(
    ("option", "shown"),
    [
        ("--group-outputs engine", ["[0]", "Out[0]:", "[1]", "Out[1]:"]),
        ("-e", ["[0]", "Out[0]:", "[1]", "Out[1]:"]),
        ("--group-outputs type", ["[0]", "[1]", "Out[0]:", "Out[1]:"]),
        ("--group-outputs order", ["[0]", "[1]", "Out[0]:", "Out[1]:"]),
        ("-r", ["[0]", "[1]", "Out[0]:", "Out[1]:"]),
    ],
)
def test_output_that_is_not_streamed_is_grouped(
    shell: Any, mec: Mec, option: str, shown: list[str], capsys: Capsys
) -> None:
    shell.run_cell(f"%%px -t 0,1 --no-stream {option}\nprint(id)\nid")
    assert [line.split(" ")[0] for line in capsys.readouterr().out.splitlines()[1:]] == shown


def test_verbose_is_the_default_and_can_be_switched_off(shell: Any, mec: Mec, capsys: Capsys) -> None:
    shell.run_cell("%%px --no-verbose\na = 1")
    assert capsys.readouterr().out == ""
    shell.run_cell("%pxconfig --no-verbose")
    shell.run_cell("%px a = 1")
    assert capsys.readouterr().out == ""
    shell.run_cell("%%px -v\na = 1")
    shell.run_cell("%%px --verbose\na = 1")
    assert capsys.readouterr().out == "Parallel execution on engines: all\n" * 2


def test_many_targets_are_named_as_ranges(shell: Any, mec: Mec, capsys: Capsys) -> None:
    shell.run_cell("%px -t 0-15 1")
    assert capsys.readouterr().out.startswith("Parallel execution on engines: [0-15]\n")


def test_pxconfig_sets_defaults(shell: Any, mec: Mec, capsys: Capsys) -> None:
    shell.run_cell("%pxconfig -t 0:2 --noblock --fold off --progress-after 0 --signal-on-interrupt 0")
    assert mec.targets == [0, 1]
    assert mec.block is False
    shell.run_cell("%pxconfig")
    shown = capsys.readouterr().out
    for words in ("targets: [0, 1]", "block: False", "fold: off", "progress-after: 0.0", "Ctrl-C: detach"):
        assert words in " ".join(shown.split())
    shell.run_cell("%pxconfig -t all --block")
    shell.run_cell("%px print(1)")
    assert capsys.readouterr().out.splitlines()[1:] == [f"[{engine}] 1" for engine in range(4)]


# --- What came of it ---------------------------------------------------------------------------------


def test_pxresult_shows_what_came(shell: Any, mec: Mec, capsys: Capsys) -> None:
    shell.run_cell("%%px -a\nprint('late')\nid")
    capsys.readouterr()
    shell.run_cell("%pxresult")
    out = capsys.readouterr().out
    assert out == "[0-3] late\nOut[0]: 0\nOut[1]: 1\nOut[2]: 2\nOut[3]: 3\n"
    shell.run_cell("%pxresult -o again")
    assert shell.user_ns["again"].r[3]["id"] == 3


def test_pxresult_without_a_result_says_what_it_shows(shell: Any, mec: Mec) -> None:
    assert "there was none yet" in str(shell.run_cell("%pxresult").error_in_exec)


def test_result_asks_for_a_number_or_the_last(shell: Any, mec: Mec) -> None:
    mec.execute("print(1)")
    mec.execute("print(2)")
    assert [each["stdout"] for each in shell.run_line_magic("result", "1")] == ["1\n"] * 4
    assert [each["stdout"] for each in shell.run_line_magic("result", "")] == ["2\n"] * 4


def test_result_explains_what_it_takes(shell: Any, mec: Mec) -> None:
    result = shell.run_cell("%result one")
    assert "as in %result 3" in str(result.error_in_exec)


def test_pxtb_shows_whole_tracebacks_once(shell: Any, mec: Mec, capsys: Capsys) -> None:
    shell.run_cell("%px 1 / (id // 2)")
    capsys.readouterr()
    shell.run_cell("%pxtb")
    out = capsys.readouterr().out
    assert "[0-1] Traceback (most recent call last):" in out
    assert out.count("ZeroDivisionError") == 1
    shell.run_cell("%pxtb 1")
    assert "[1] Traceback" in capsys.readouterr().out
    assert "[3] did not fail in this call" in str(shell.run_cell("%pxtb 3").error_in_exec)


def test_pxtb_is_for_plain_calls_too(shell: Any, mec: Mec, capsys: Capsys) -> None:
    shell.user_ns["mec"] = mec
    shell.run_cell("mec.execute('1 / 0')")
    capsys.readouterr()
    shell.run_cell("%pxtb")
    assert "[0-3] Traceback" in capsys.readouterr().out


def test_pxlog_takes_a_number(shell: Any, mec: Mec, capsys: Capsys) -> None:
    assert "as in %pxlog 3" in str(shell.run_cell("%pxlog all").error_in_exec)
    shell.run_cell("%pxlog")
    assert capsys.readouterr().out.endswith("nothing was printed for this client lately\n")


def test_where_shows_equal_places_once(shell: Any, mec: Mec, session: FakeSession, capsys: Capsys) -> None:
    stack = RankStack("running", 0, -1, "execute", 3, [StackFrame("step", "/x/heat.py", 41, "wait()")])
    session.answers[AskAgents] = [[[[0, 2], encode(stack)]], [3]]
    shell.run_cell("%where")
    shown = "[0, 2]  heat.py:41 in step: wait()  (execute, 3 s)\n"
    silent = "[3]  their node agents have not answered within 5 s\n"
    assert capsys.readouterr().out == shown + silent
    shell.run_cell("%where 0:3 --native --all")
    assert capsys.readouterr().out == f"{shown}      heat.py:41 in step\n{silent}"
    asked = session.requests[-1]
    assert (asked.targets, decode_question(asked.question)) == ([0, 1, 2], ReadStacks(native=True))


def test_a_profile_follows_the_output_and_is_kept(
    shell: Any, mec: Mec, session: FakeSession, capsys: Capsys, tmp_path: Path
) -> None:
    stack = RankStack("running", 0, -1, "execute", 3, [StackFrame("step", "/x/heat.py", 41, "wait()")])
    session.answers[AskAgents] = [[[[0, 2], encode(stack)]], []]
    shell.run_cell("%%px --profile -t 0,2\nprint('computed')")
    out = capsys.readouterr().out
    assert out.index("computed") < out.index("[0, 2]  ") < out.index("heat.py:41 in step: wait()")
    (asked,) = {tuple(each.targets) for each in session.requests if isinstance(each, AskAgents)}
    assert asked == (0, 2)
    shell.user_ns["_profile"].save(tmp_path / "heat.json")
    assert len(json.loads((tmp_path / "heat.json").read_text())["profiles"]) == 2
    # Also after an error, and not if nobody waits.
    shell.user_ns.pop("_profile")
    assert shell.run_cell("%%px --profile\n1 / 0").error_in_exec
    assert shell.user_ns["_profile"].rounds
    error = shell.run_cell("%%px --profile --noblock\nx = 1").error_in_exec
    assert "--profile looks at engines while it waits for them: add --block" in str(error)


def test_where_names_an_option_that_it_does_not_have(shell: Any, mec: Mec) -> None:
    del mec
    assert "--all and --native, and takes engines (0:4), not --c" in str(
        shell.run_cell("%where --c").error_in_exec
    )


# --- Without a client ---------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["px a=1", "result", "autopx", "pxconfig -t 0", "pxlog", "where", "pxtb 3"])
def test_without_an_active_client_the_magics_say_what_to_type(command: str, shell: Any) -> None:
    if command.startswith("pxtb"):
        sys.last_value = CompositeError("failed", [(ValueError, ValueError(), None)])
    error = shell.run_cell(f"%{command}").error_in_exec
    assert isinstance(error, UsageError)
    assert str(error).startswith(NO_ACTIVE_CONTROLLER)
    assert "client.MultiEngineClient(); mec.activate()" in str(error)


def test_a_client_that_is_there_is_named(shell: Any) -> None:
    shell.user_ns["cluster"] = EngineView(calls=None, ids=[1, 2])  # type: ignore[arg-type]
    assert str(shell.run_cell("%px 1").error_in_exec).endswith("Type: cluster.activate()")


def test_activate_makes_a_client_the_target_of_the_magics(magics: ParallelMagics) -> None:
    view = EngineView(calls=None, ids=[1, 2])  # type: ignore[arg-type]
    view.activate()
    assert magics.active is view


def test_activate_outside_ipython_says_so(capsys: Capsys) -> None:
    InteractiveShell.clear_instance()
    EngineView(calls=None).activate()  # type: ignore[arg-type]
    assert capsys.readouterr().out == "The IPython Controller magics only work within IPython.\n"


def test_importing_ipmpi_does_not_import_ipython() -> None:
    code = "import sys, ipmpi, ipmpi.client; sys.exit('IPython' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_extension_can_be_unloaded(shell: Any, mec: Mec, magics: ParallelMagics) -> None:
    shell.extension_manager.unload_extension("ipmpi")
    assert magics.active is None


def test_values_that_are_pictures_become_one_file(shell: Any, mec: Mec, capsys: Capsys) -> None:
    shell.run_cell_magic("px", "", "class P:\n    def _repr_png_(self): return b'PNG'\nP()")
    found = re.search(r"Out\[0-3\]: figure: (\S+\.png)\n$", capsys.readouterr().out)
    assert found
    assert Path(found[1]).read_bytes() == b"PNG"


def test_values_that_are_tables_are_text_in_a_terminal(shell: Any, mec: Mec, capsys: Capsys) -> None:
    source = "class T:\n    def _repr_html_(self): return '<b>'\n    def __repr__(self): return 'T'\nT()"
    shell.run_cell_magic("px", "", source)
    assert capsys.readouterr().out.endswith("Out[0-3]: T\n")


# --- %autopx ---------------------------------------------------------------------------------


def test_autopx_sends_cells_until_it_is_switched_off(
    shell: Any, mec: Mec, session: FakeSession, capsys: Capsys
) -> None:
    shell.run_cell("%autopx")
    assert capsys.readouterr().out == "Auto Parallel Enabled\nType %autopx to disable\n"
    shell.run_cell("# a comment\nhere = 1\nfor i in range(2):\n    print(i)")
    assert executed(session) == ["# a comment\nhere = 1\nfor i in range(2):\n    print(i)\n"]
    assert "here" not in shell.user_ns
    assert capsys.readouterr().out == "[0-3] 0\n      1\n"
    shell.run_cell("%autopx")
    assert capsys.readouterr().out == "Auto Parallel Disabled\n"
    shell.run_cell("here = 1")
    assert shell.user_ns["here"] == 1
    assert len(executed(session)) == 1


def test_autopx_shows_a_syntax_error_here(shell: Any, mec: Mec, session: FakeSession) -> None:
    shell.run_cell("%autopx")
    result = shell.run_cell("a = = 1")
    assert isinstance(result.error_before_exec, SyntaxError)
    assert executed(session) == []
    shell.run_cell("a = 1")
    assert executed(session) == ["a = 1\n"]


def test_autopx_shows_failures_and_goes_on(shell: Any, mec: Mec, session: FakeSession) -> None:
    shell.run_cell("%autopx")
    assert isinstance(shell.run_cell("fail()").error_in_exec, CompositeError)
    shell.run_cell("a = 1")
    assert executed(session)[-1] == "a = 1\n"


def test_a_kernel_sends_magics_too_but_those_of_ipmpi(
    shell: Any, mec: Mec, magics: ParallelMagics, session: FakeSession
) -> None:
    assert not magics.goes_to_engines("a")
    magics.run_all_on_engines()
    cells = ["%time a = 1", "!echo", "a?", "%pxconfig --fold off", "%%px\na = 2", "%autopx"]
    assert [magics.goes_to_engines(cell) for cell in cells] == [True, True, True, False, False, False]
    shell.run_cell("%matplotlib inline\na = 1")
    assert executed(session) == ["%matplotlib inline\na = 1"]
    shell.run_cell(">>> a = 2")
    assert executed(session)[1:] == ["a = 2\n"]


def test_autopx_leaves_magics_here(shell: Any, mec: Mec, session: FakeSession) -> None:
    mec.execute("print(1)")
    shell.run_cell("%autopx")
    shell.run_cell("%time 1 + 1")
    shell.run_cell("%result 1")
    assert executed(session) == ["print(1)"]
    assert session.sent[-1].method == "get_result"


def test_autopx_of_a_client_that_does_not_wait_loses_nothing(
    shell: Any, mec: Mec, session: FakeSession, capsys: Capsys
) -> None:
    mec.block = False
    shell.run_cell("%autopx")
    session.held = True
    first = shell.run_cell("print('first')").result
    assert isinstance(first, PendingResult)
    assert first in shell.user_ns["Out"].values()
    assert "<PendingResult of execute: not done yet>" in capsys.readouterr().out
    shell.run_cell("fail()")
    assert "[0-3] first" not in capsys.readouterr().out
    session.release()
    session.held = True
    shell.run_cell("print('third')")
    out = capsys.readouterr().out
    assert "[0-3] first" in out
    assert "CompositeError" in out
    third = list(shell.user_ns["Out"].values())[-1]
    session.release()
    assert [each["stdout"] for each in third.r] == ["third\n"] * 4
    shell.run_cell("%autopx")
    assert "third" not in capsys.readouterr().out  # it was seen


def test_unloading_brings_cells_back(shell: Any, mec: Mec, magics: ParallelMagics) -> None:
    shell.run_cell("%autopx")
    unload_ipython_extension(shell)
    shell.run_cell("here = 1")
    assert shell.user_ns["here"] == 1
    assert magics.active is None


def test_pxdebug_takes_one_engine_or_the_first_that_has_raised_by_itself(
    shell: Any, mec: Mec, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int | None] = []
    monkeypatch.setattr(type(mec), "debug", lambda self, engine=None: opened.append(engine))
    monkeypatch.setattr(sys, "last_value", None, raising=False)
    with pytest.raises(UsageError, match="%pxdebug takes the id of an engine, as in %pxdebug 3"):
        shell.run_line_magic("pxdebug", "")
    with pytest.raises(UsageError, match="not '0:2'"):
        shell.run_line_magic("pxdebug", "0:2")
    shell.run_line_magic("pxdebug", " 2 ")
    peer = PeerError("rank 3 has failed")
    peer._ipython_engine_info = {"engineid": 0, "method": "execute"}  # type: ignore[attr-defined]
    own = ZeroDivisionError("division by zero")
    own._ipython_engine_info = {"engineid": 3, "method": "execute"}  # type: ignore[attr-defined]
    failed = CompositeError("both", [(type(each), each, None) for each in (peer, own)])
    monkeypatch.setattr(sys, "last_value", failed)
    shell.run_line_magic("pxdebug", "")
    assert opened == [2, 3]


def test_debug_without_an_engine_says_what_to_type(mec: Mec) -> None:
    assert not mec.debuggers_wait()
    with pytest.raises(ClientError, match=r"name it: mec\.debug\(3\)"):
        mec.debug()
    with pytest.raises(TypeError, match="the engine to debug must be an int"):
        mec.debug("all")
