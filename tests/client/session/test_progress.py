from __future__ import annotations

import io
import sys
import types
from pathlib import Path

import pytest
from fake_farm import FakeFarm

from ipmpi.client import TaskClient
from ipmpi.client.session import progress
from ipmpi.client.session.progress import Progress
from ipmpi.errors import ClientError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    pytest.importorskip("tqdm")
    terminal = Terminal()
    # pytest sets sys.stderr anew for each phase of a test.
    monkeypatch.setattr(progress, "sys", types.SimpleNamespace(stderr=terminal, modules={}))
    return terminal


def test_short_waits_show_nothing(terminal: Terminal) -> None:
    with Progress(10) as bar:
        assert bar.interval is not None
        bar.update(5)
    assert terminal.getvalue() == ""


def test_long_waits_in_a_terminal_show_a_bar(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SILENT", 0.0)
    with Progress(10) as bar:
        bar.update(5)
        assert "0/10" in terminal.getvalue()
    assert "10/10" in terminal.getvalue()


def test_nobody_looks_or_nobody_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SILENT", 0.0)
    assert Progress(10, False).interval is None
    assert Progress(0, True).interval is None
    progress.sys.stderr = io.StringIO()
    assert Progress(10).interval is None
    assert Progress(10, True).interval is not None


def test_tqdm_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_has_tqdm", lambda: False)
    assert Progress(10).interval is None
    with pytest.raises(ClientError, match="pip install tqdm"):
        Progress(10, True)


def test_a_notebook_without_ipywidgets_gets_the_bar_of_text_and_no_warning(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import tqdm

    # What tqdm does where ipywidgets is missing; the tests' environment may have it.
    (tmp_path / "auto.py").write_text(
        "import warnings\nwarnings.warn('IProgress not found')\nfrom tqdm import tqdm\n"
    )
    monkeypatch.setattr(tqdm, "__path__", [str(tmp_path), *tqdm.__path__])
    monkeypatch.setitem(sys.modules, "tqdm.auto", types.ModuleType("put back at the end"))
    monkeypatch.delitem(sys.modules, "tqdm.auto")
    monkeypatch.setattr(progress, "SILENT", 0.0)
    monkeypatch.setattr(progress, "_in_notebook", lambda: True)
    with Progress(10) as bar:
        bar.update(5)
    assert "10/10" in terminal.getvalue()


@pytest.mark.parametrize("kind", ["map", "gather", "barrier"])
def test_waits_of_the_client_show_it(
    tc: TaskClient, farm: FakeFarm, terminal: Terminal, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(progress, "SILENT", 0.0)
    monkeypatch.setattr(progress, "INTERVAL", 0.005)
    shown = progress._new_bar

    def new_bar(total: int) -> object:
        # Only now do the tasks end: the wait has shown something by then.
        try:
            return shown(total)
        finally:
            farm.work()

    monkeypatch.setattr(progress, "_new_bar", new_bar)
    farm.held = True
    if kind == "map":
        assert tc.map(abs, [-1, -2]) == [1, 2]
    elif kind == "gather":
        assert tc.gather([tc.submit(abs, -1), tc.submit(abs, -2)]) == [1, 2]
    else:
        tc.barrier([tc.submit(abs, -1), tc.submit(abs, -2)])
    assert "2/2" in terminal.getvalue()
