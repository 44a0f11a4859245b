"""What user code displays, and the formats of last values: on a rank's namespace, without IPython."""

from __future__ import annotations

import base64
import contextlib
import io
import subprocess
import sys
from typing import Any

import pytest

from ipmpi import limits, serialize
from ipmpi.engine.session import formats
from ipmpi.engine.session.formats import formats_of
from ipmpi.engine.session.namespace import Namespace
from ipmpi.protocol.messages import METADATA
from ipmpi.protocol.operations import (
    Apply,
    Display,
    Execute,
    Executed,
    Failed,
    Keys,
    decode_outcome,
    encode,
)

PLAIN, HTML, PNG = "text/plain", "text/html", "image/png"


class Engine:
    """A namespace, and what it has published, beside what was printed before."""

    def __init__(self) -> None:
        self.published: list[Display] = []
        self.namespace = Namespace(3)
        self.namespace.displays.connect(self.published.append)

    def outcome(self, source: str) -> Executed | Failed:
        self.published.clear()
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            outcome = decode_outcome(self.namespace.run("execute", encode(Execute(source)), []).outcome)
        self.stdout, self.stderr = out.getvalue(), err.getvalue()
        assert isinstance(outcome, Executed | Failed)
        return outcome

    def execute(self, source: str) -> Executed:
        outcome = self.outcome(source)
        assert isinstance(outcome, Executed), outcome
        return outcome

    def shown(self, source: str) -> dict[str, Any]:
        """The formats of the one thing that was displayed."""
        self.execute(source)
        (display,) = self.published
        return display.formats


@pytest.fixture
def engine() -> Engine:
    return Engine()


class Table:
    def _repr_html_(self) -> str:
        return "<table>é</table>"

    def _repr_png_(self) -> bytes:
        return b"\x89PNG..."

    def _repr_latex_(self) -> None:
        return None

    def __repr__(self) -> str:
        return "a table"


# --- Formats ---------------------------------------------------------------------------------------------------


def test_methods_give_the_formats() -> None:
    assert formats_of(Table()) == Display({HTML: "<table>é</table>"}, {PNG: b"\x89PNG..."})


@pytest.mark.parametrize(
    "value", [5, "a", None, [1], {"a": 1}, Table, object(), sys], ids=lambda value: type(value).__name__
)
def test_most_values_are_just_text(value: object) -> None:
    assert formats_of(value) is None


def test_who_has_any_method_that_is_asked_for_has_none() -> None:
    class Proxy:
        def __getattr__(self, name: str) -> Any:
            return lambda **_: f"<{name}>"

    class Broken:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

    assert formats_of(Proxy()) is None
    assert formats_of(Broken()) is None


def test_a_bundle_comes_before_single_formats() -> None:
    class Chart(Table):
        def _repr_mimebundle_(self, **_options: object) -> Any:
            spec: Any = {"application/vnd.vega.v5+json": {"a": [1]}, HTML: "own", "image/gif": b"GIF", "text/x": 5}
            return spec, {"image/gif": {"width": 30}}

    found = formats_of(Chart())
    assert found == Display(
        {"application/vnd.vega.v5+json": '{"a": [1]}', HTML: "own", METADATA: '{"image/gif": {"width": 30}}'},
        {"image/gif": b"GIF", PNG: b"\x89PNG..."},
    )
    assert formats_of(Chart(), include=[PNG]) == Display(
        {METADATA: '{"image/gif": {"width": 30}}'}, {PNG: b"\x89PNG..."}
    )
    assert formats_of(Chart(), exclude=[HTML, METADATA, "image/gif", "application/vnd.vega.v5+json"]) == Display(
        {METADATA: '{"image/gif": {"width": 30}}'}, {PNG: b"\x89PNG..."}
    )


def test_metadata_and_base64_come_as_ipython_takes_them() -> None:
    class Picture:
        def _repr_jpeg_(self) -> tuple[str, dict[str, int]]:
            return base64.b64encode(b"JPEG").decode(), {"width": 3}

        def _repr_json_(self) -> object:
            return {"a": 1}

        def _repr_svg_(self) -> bytes:
            return b"<svg/>"

    assert formats_of(Picture()) == Display(
        {"application/json": '{"a": 1}', "image/svg+xml": "<svg/>", METADATA: '{"image/jpeg": {"width": 3}}'},
        {"image/jpeg": b"JPEG"},
    )


def test_a_method_that_raises_is_left_out_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    class Faulty(Table):
        def _repr_html_(self) -> str:
            raise ValueError("no <b>")

        def _repr_markdown_(self) -> str:
            raise NotImplementedError

        def _repr_json_(self) -> object:
            return {1: object()}

    assert formats_of(Faulty()) == Display({}, {PNG: b"\x89PNG..."})
    told = "Faulty is shown without what its _repr_html_() gives, which raised ValueError: no <b>\n"
    assert capsys.readouterr().err == told


def test_an_interrupt_is_not_the_methods_error() -> None:
    class Slow:
        def _repr_html_(self) -> str:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        formats_of(Slow())


def test_what_is_too_large_is_left_out_and_told() -> None:
    class Large(Table):
        def _repr_png_(self) -> bytes:
            return bytes(limits.DISPLAY)

        def _repr_markdown_(self) -> str:
            return "é" * (limits.DISPLAY // 3)

    found = formats_of(Large())
    assert found is not None
    assert found.images == {}
    assert set(found.text) == {HTML, "text/markdown", PLAIN}
    assert found.text[PLAIN].startswith("[ipmpi: image/png has 1,048,576 bytes, too much to be shown ")
    assert formats.shown(Large(), found).text[PLAIN] == f"a table\n{found.text[PLAIN]}"
    assert formats.size(formats.shown(Large(), found)) < limits.DISPLAY


# --- Last values ---------------------------------------------------------------------------------------------


TABLE = (
    "class T:\n    def _repr_html_(self): return '<b>' + str(id) + '</b>'\n    def __repr__(self): return 'T'\n"
)


def test_the_last_value_comes_in_its_formats(engine: Engine) -> None:
    result = engine.execute(TABLE + "T()")
    assert (result.display_repr, result.display_rich) == ("T", Display({HTML: "<b>3</b>"}))
    assert engine.published == []
    assert engine.execute("3").display_rich is None
    assert engine.execute("T(); None").display_rich == Display({HTML: "<b>3</b>"})


def test_a_last_value_that_is_too_large_keeps_its_text(engine: Engine) -> None:
    source = (
        f"class T:\n    def _repr_html_(self): return 'x' * {limits.DISPLAY}\n    def __repr__(self): return 'T'\n"
    )
    rich = engine.execute(source + "T()").display_rich
    assert rich is not None
    assert set(rich.text) == {PLAIN}
    assert rich.text[PLAIN].startswith("T\n[ipmpi: text/html has 1,048,576 bytes")


def test_only_the_last_value_of_a_loop_is_asked(engine: Engine) -> None:
    engine.execute("asked = []\nclass T:\n    def _repr_html_(self): asked.append(1)\n")
    engine.execute("for i in range(10):\n    T()\n")
    assert engine.execute("len(asked)").display_repr == "1"


def test_what_raises_there_does_not_break_the_command(engine: Engine) -> None:
    result = engine.execute("class T:\n    def _repr_html_(self): 1/0\n    def __repr__(self): return 'T'\nT()")
    assert (result.display_repr, result.display_rich) == ("T", None)
    assert "T is shown without what its _repr_html_() gives, which raised ZeroDivisionError" in engine.stderr


def test_an_answer_with_the_largest_display_fits_in_a_message(engine: Engine) -> None:
    source = f"n = {limits.DISPLAY - 200_000}\nclass T:\n    def _repr_png_(self): return bytes(n)\n"
    source += "    def __repr__(self): return 'r' * n\nT()"
    answer = engine.namespace.run("execute", encode(Execute(source)), [])
    outcome = decode_outcome(answer.outcome)
    assert isinstance(outcome, Executed)
    assert outcome.display_rich is not None
    assert len(answer.outcome) < limits.MESSAGE - limits.INLINE_BODY


# --- display() -----------------------------------------------------------------------------------------------


def test_display_shows_values_with_their_text(engine: Engine) -> None:
    assert engine.shown(TABLE + "display(T())") == {HTML: "<b>3</b>", PLAIN: "T"}
    engine.execute("display(1, 'a'); display()")
    assert [display.formats for display in engine.published] == [{PLAIN: "1"}, {PLAIN: "'a'"}]


def test_equal_pictures_do_not_differ_by_an_address(engine: Engine) -> None:
    engine.execute("class P:\n    def _repr_png_(self): return b'PNG'\n")
    assert engine.shown("display(P())") == {PNG: b"PNG", PLAIN: "<__main__.P object>"}
    assert " at 0x" in engine.shown("display(object())")[PLAIN]


def test_options_are_those_of_ipython(engine: Engine) -> None:
    engine.execute(TABLE)
    assert engine.shown("display({'text/html': 'x'}, raw=True)") == {HTML: "x"}
    assert engine.shown("display(T(), exclude=['text/html'], clear=True)") == {PLAIN: "T"}
    assert engine.shown("handle = display(1, display_id=True)") == {PLAIN: "1"}
    assert engine.shown("handle.update(2)") == {PLAIN: "2"}
    engine.execute("class W:\n    def _ipython_display_(self): print('by itself')")
    engine.execute("display(W())")
    assert engine.stdout == "by itself\n"
    assert engine.published == []


def test_it_comes_in_order_with_what_is_printed(engine: Engine) -> None:
    seen: list[str] = []
    engine.namespace.displays.connect(lambda display: seen.append(display.text[PLAIN]))
    engine.namespace.names["seen"] = seen
    engine.execute("class Out:\n    def write(self, t): self.t = t\n    def flush(self): seen.append(self.t)\n")
    engine.execute("import sys; sys.stdout = Out(); sys.stdout.write('printed'); display('shown')")
    assert seen == ["printed", "'shown'"]


def test_functions_that_are_called_can_display(engine: Engine) -> None:
    engine.execute("def f(): display('x')")
    source: Any = engine.namespace.names["f"]
    body = serialize.dumps((source, (), {}))
    engine.namespace.run("apply", encode(Apply()), [bytearray(part) for part in body])
    assert [display.formats for display in engine.published] == [{PLAIN: "'x'"}]


def test_the_name_is_hidden_until_the_user_has_one(engine: Engine) -> None:
    def keys() -> list[str]:
        found: list[str] = serialize.loads(engine.namespace.run("keys", encode(Keys()), []).body)
        return found

    assert keys() == ["id", "mpi"]
    engine.execute("display = 5")
    assert keys() == ["id", "mpi", "display"]
    engine.namespace.clear_names()
    assert engine.shown("display(1)") == {PLAIN: "1"}


def test_outside_of_commands_it_prints(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    engine.namespace.displays("later")
    assert capsys.readouterr().out == "'later'\n"
    assert engine.published == []


def test_a_forked_child_prints(engine: Engine) -> None:
    source = "import os, sys\nr, w = os.pipe()\nif not os.fork():\n    os.dup2(w, 1); display('child')\n"
    source += "    sys.stdout.flush(); os._exit(0)\nos.close(w); os.wait(); said = os.read(r, 99)"
    script = "import sys\nfrom ipmpi.engine.session.namespace import Namespace\n"
    script += "from ipmpi.protocol.operations import Execute, encode\npublished = []\n"
    script += "namespace = Namespace(0)\nnamespace.displays.connect(published.append)\n"
    script += (
        "namespace.run('execute', encode(Execute(sys.argv[1])), [])\nprint(namespace.names['said'], published)"
    )
    done = subprocess.run([sys.executable, "-c", script, source], capture_output=True, text=True, check=True)
    assert done.stdout == "b\"'child'\\n\" []\n"


def test_a_command_cannot_show_without_end(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DISPLAYS", 3 * limits.MIB)
    engine.execute(f"half = {{'image/png': bytes({limits.MIB // 2})}}")
    engine.execute("for _ in range(10): display(half, raw=True)")
    assert len(engine.published) == 6
    assert engine.stderr == "ipmpi: this command has displayed 3 MiB; it can show no more\n"
    engine.execute("display(half, raw=True)")
    assert len(engine.published) == 1


def test_names_of_libraries_are_not_loaded() -> None:
    script = "import sys\nfrom ipmpi.engine.session import importhooks\n"
    script += "from ipmpi.engine.session.namespace import Namespace\n"
    script += "from ipmpi.protocol.operations import Execute, encode\nimporthooks.install()\n"
    script += "Namespace(0).run('execute', encode(Execute('display([1]); display(display); object()')), [])\n"
    script += "print({'matplotlib', 'IPython', 'numpy', 'pprint', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_it_needs_no_streams(engine: Engine) -> None:
    engine.execute("import sys; sys.stdout = sys.stderr = None; display(1)")
    assert len(engine.published) == 1
