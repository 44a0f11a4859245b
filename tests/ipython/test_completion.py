from __future__ import annotations

from typing import Any

import pytest
from IPython.core.completer import provisionalcompleter

from ipmpi.engine.session.namespace import Namespace
from ipmpi.ipython.completion import code_for_engines


@pytest.mark.parametrize(
    ("text", "autopx", "code"),
    [
        ("%px np.li", False, "np.li"),
        ("  %px np.li", False, "np.li"),
        ("%px", False, None),
        ("np.li", False, None),
        ("np.li", True, "np.li"),
        ("%time np.li", True, None),
        ("%%px -t 0\na = 1\nnp.li", False, "np.li"),
        ("%%px -t", False, None),
        ("%%time\nnp.li", False, None),
        ("a = 1\n%px np.li", False, "np.li"),
    ],
)
def test_which_code_is_for_engines(text: str, autopx: bool, code: str | None) -> None:
    assert code_for_engines(text, len(text), autopx) == code


def complete(shell: Any, text: str) -> list[str]:
    """What the text can become."""
    with provisionalcompleter():
        found = list(shell.Completer.completions(text, len(text)))
    return [text[: each.start] + each.text for each in found]


def engines(session: Any) -> list[Namespace]:
    return [each for each in session.engines.values() if each is not None]


def test_px_completes_names_of_engines(shell: Any, mec: Any, session: Any) -> None:
    mec.push({"viscosity": 1.0, "velocity": 2.0})
    shell.user_ns["vitamin"] = 1
    assert complete(shell, "%px vi") == ["%px viscosity"]
    assert complete(shell, "%px x = (ve") == ["%px x = (velocity"]
    assert "vitamin" in complete(shell, "vi")


def test_px_completes_attributes(shell: Any, mec: Any) -> None:
    mec.execute("import math")
    assert complete(shell, "%px math.cei") == ["%px math.ceil"]
    assert complete(shell, "%%px\nx = math.cei") == ["%%px\nx = math.ceil"]


def test_brackets_complete_names_of_engines(shell: Any, mec: Any) -> None:
    mec.push({"viscosity": 1.0})
    shell.user_ns["mec"] = mec
    assert complete(shell, "mec['vis") == ["mec['viscosity"]


def test_local_code_asks_no_engine(shell: Any, mec: Any, session: Any) -> None:
    complete(shell, "impo")
    assert session.sent == []


def test_completion_does_not_wait_for_a_busy_engine(shell: Any, mec: Any, session: Any) -> None:
    session.held = True
    assert mec.complete("vi") == []


def test_completion_of_a_session_that_is_over(mec: Any, session: Any) -> None:
    session.engines.clear()
    assert mec.complete("vi") == []
    assert mec._ipython_key_completions_() == []


def test_it_is_for_one_idle_engine(mec: Any, session: Any) -> None:
    mec[1:3].complete("vi")
    assert session.sent[-1].one_idle
    assert session.sent[-1].targets == [1, 2]


def test_a_name_is_described(mec: Any) -> None:
    mec.execute("def area(r: float) -> float:\n    'Of a circle.'\n    return 3.14 * r\nx = 5\nimport math")
    told = mec.describe("area")
    assert told.splitlines()[:2] == ["Signature: area(r: float) -> float", "Type:      function"]
    assert told.endswith("Docstring: Of a circle.")
    assert "Value:     5" in mec.describe("x")
    assert "ceiling" in mec.describe("math.ceil").lower()
    assert mec.describe("area", source=True).endswith("    return 3.14 * r\n")


def test_there_is_nothing_to_say_of_a_name_that_is_not_there(mec: Any, session: Any) -> None:
    assert mec.describe("nothing") is None
    assert mec.describe("x[") is None
    session.held = True
    assert mec.describe("math") is None


def test_a_description_is_asked_of_one_idle_engine(mec: Any, session: Any) -> None:
    mec[1:3].describe("x")
    assert session.sent[-1].one_idle
    assert session.sent[-1].targets == [1, 2]


def test_unloading_removes_it(shell: Any, mec: Any) -> None:
    mec.push({"viscosity": 1.0})
    shell.extension_manager.unload_extension("ipmpi")
    assert "%px viscosity" not in complete(shell, "%px vi")
