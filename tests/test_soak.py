"""``make soak``: every long form names tests that exist and settings that they read, and is documented."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests import soak

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("name", soak.FORMS)
def test_a_form_is_what_it_says(name: str) -> None:
    form = soak.FORMS[name]
    text = ""
    for each in form.tests:
        path, _, test = each.partition("::")
        text += (ROOT / path).read_text("utf-8")
        assert f"def {test}" in text
    assert not [setting for setting in form.settings if f'"{setting}"' not in text]
    assert f"``{name}``" in (ROOT / "docs" / "reliability.rst").read_text("utf-8")


TESTS = """
from tests.figures import report

def test_good():
    report("what was measured", tasks=3, seconds=0.12345)

def test_bad():
    assert False
"""


def test_figures_are_shown_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    path = str(tmp_path / "test_it.py")
    forms = {"good": soak.Form("one", [f"{path}::test_good"], {}), "bad": soak.Form("two", [path], {})}
    monkeypatch.setattr(soak, "FORMS", forms)
    assert soak.main(["good", "--json", str(tmp_path / "found")]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"good +passed .*one\n +what was measured: tasks 3, seconds 0\.123", shown)
    assert json.loads((tmp_path / "found").read_text())[0]["figures"][0]["tasks"] == 3
    assert soak.main(["--json", str(tmp_path / "found")]) == 1
    assert re.search(r"bad +FAILED", capsys.readouterr().out)


def test_a_wrong_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        soak.main(["nothing"])
    assert "there is no nothing; there are controller-kills, " in capsys.readouterr().err
