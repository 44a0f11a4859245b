"""Clients that are killed while their commands run: another process finds results, output and figures."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ipmpi import errors
from ipmpi.client import MultiEngineClient, PastCommand, ResultList
from tests.integration.vanishing import client_process, kill, with_two_sets
from tests.ipython_here import ipython
from tests.security.cluster import LOOPBACK, Controller, wait_until

pytestmark = [pytest.mark.timeout(180)]

FIGURE = """
from matplotlib import pyplot
pyplot.plot([1, 2])
pyplot.show()
"""


@pytest.fixture(scope="module", params=["journal", "memory"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    """A controller with and without a journal, and two sets of one engine each."""
    with with_two_sets(tmp_path_factory.mktemp(request.param), request.param == "journal") as controller:
        yield controller


def client(controller: Controller, source: str) -> subprocess.Popen[str]:
    """A process with a MultiEngineClient ``mec`` that runs the source, says 'ready', and waits."""
    return client_process(controller, "mec", "MultiEngineClient", source)


@pytest.fixture
def mec(cluster: Controller) -> Iterator[MultiEngineClient]:
    with MultiEngineClient(str(cluster.furl_file("mec"))) as found:
        yield found


def latest(mec: MultiEngineClient, count: int) -> list[PastCommand]:
    return mec.history()[-count:]


def gone(mec: MultiEngineClient) -> Callable[[], bool]:
    """Whether the client that has given the last command is known to be gone."""
    return lambda: mec.history()[-1].client == "gone"


def waits(gate: Path) -> str:
    """Code that waits until the file is there."""
    return f"import os, time\nwhile not os.path.exists({str(gate)!r}):\n    time.sleep(0.01)\n"


def test_a_new_client_finds_what_a_killed_one_has_given(
    cluster: Controller, mec: MultiEngineClient, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    code = f"print('begun', flush=True)\n{waits(gate)}print('done')\nid * 2"
    source = f"""
        mec.push({{"a": 5}})
        pending = mec.execute({code!r}, block=False)
        behind = mec.pull("a", block=False)
        for block in pending.output_stream():
            break
    """
    kill(client(cluster, source))
    wait_until(gone(mec), "it is known that the client is gone")
    push, run, pull = latest(mec, 3)
    assert (push.method, push.state, run.state, pull.state) == ("push", "done", "running", "waiting")
    assert (run.source, list(run.engines), list(run.running)) == (code, [0, 1], [0, 1])
    pending = mec.get_result(run, block=False)
    assert not pending.done()
    gate.touch()
    results = pending.result(60)
    assert isinstance(results, ResultList)
    assert results.stdout == ["begun\ndone\n"] * 2
    assert results.values == ["0", "2"]
    assert [each["input"]["raw"] for each in results] == [code] * 2
    assert mec.get_result(pull.name) == [5, 5]
    assert mec.get_result(push) == [None, None]
    assert [each.state for each in latest(mec, 3)] == ["done"] * 3


def test_errors_and_large_answers(cluster: Controller, mec: MultiEngineClient) -> None:
    source = """
        import contextlib
        with contextlib.suppress(Exception):
            mec.execute("print('before'); 1 / 0", targets=1)
        mec.apply(bytes, 3_000_000)
    """
    kill(client(cluster, source))
    failed, large = latest(mec, 2)
    assert (failed.state, list(failed.failed)) == ("failed", [1])
    with pytest.raises(errors.CompositeError) as caught:
        mec.get_result(failed)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert caught.value.results.stdout == ["before\n"]
    with pytest.raises(errors.CompositeError) as caught:
        mec.get_result(large)
    assert "has run there, but its answer was too large to be kept here" in str(caught.value.__cause__)


def test_a_command_that_was_left_can_be_interrupted(
    cluster: Controller, mec: MultiEngineClient, tmp_path: Path
) -> None:
    source = f"""
        pending = mec.execute({f"print('begun', flush=True){chr(10)}{waits(tmp_path / 'never')}"!r}, block=False)
        for block in pending.output_stream():
            break
    """
    kill(client(cluster, source))
    (left,) = latest(mec, 1)
    pending = mec.get_result(left, block=False)
    assert pending.cancel()
    with pytest.raises(errors.CompositeError) as caught:
        pending.result(60)
    assert isinstance(caught.value.__cause__, KeyboardInterrupt)
    wait_until(lambda: mec.history()[-1].state == "failed", "it has ended")


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """IPython in this process."""
    with ipython(tmp_path, monkeypatch) as found:
        yield found


def test_output_and_figures_that_were_missed_are_shown_again(
    cluster: Controller, mec: MultiEngineClient, shell: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    need: Callable[[str, object], None],
) -> None:  # fmt: skip
    need("no matplotlib; 'make test' installs it", importlib.util.find_spec("matplotlib"))
    gate = tmp_path / "gate"
    code = f"print('seen', flush=True)\n{waits(gate)}print('missed')\n{FIGURE}"
    source = f"""
        pending = mec.execute({code!r}, block=False)
        while "".join(pending.stdout).count("seen") < 2:
            time.sleep(0.01)
        mec.get_ids()  # it is heard of after that
    """
    kill(client(cluster, source))
    wait_until(gone(mec), "it is known that the client is gone")
    gate.touch()
    (left,) = latest(mec, 1)
    mec.get_result(left)
    mec.execute("print('own')")
    mec.activate()
    capsys.readouterr()
    shell.run_cell("%pxlog --since last")
    shown = capsys.readouterr().out
    assert re.match(r"--- \d\d:\d\d:\d\d execute\(.*\n", shown)
    assert re.search(r"^\[0.*\] missed$", shown, re.MULTILINE)
    assert len(re.findall(r"figure: .*\.png \(\d+x\d+\)", shown)) == 1, "equal ones once"
    assert "] seen" not in shown
    assert "own" not in shown
    shell.run_cell("%pxlog --since=10m")
    shown = capsys.readouterr().out
    assert "] seen\n" in shown
    assert "] missed\n" in shown
    assert shown.endswith("execute(\"print('own')\")\n[0-1] own\n")
    assert not shell.run_cell(f"%result {left.name}").error_in_exec
    assert "seen" in capsys.readouterr().out


def test_who_holds_another_furl_sees_nothing(cluster: Controller, mec: MultiEngineClient, tmp_path: Path) -> None:
    mec.execute("a = 'secret'")
    (secret,) = latest(mec, 1)
    with contextlib.ExitStack() as stack:
        home = tmp_path / "other"
        home.mkdir()
        other = Controller(home, LOOPBACK)
        stack.callback(other.stop)
        with MultiEngineClient(str(other.furl_file("mec"))) as stranger:
            assert stranger.history() == []
            with pytest.raises(errors.ClientError, match=f"there is no command {secret.name}"):
                stranger.get_result(secret)
    for role in ("tc", "monitor"):
        with pytest.raises(errors.KernelError):
            MultiEngineClient(str(cluster.furl_file(role)))
