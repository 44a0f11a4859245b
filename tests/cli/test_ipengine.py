"""``ipengine`` as a process that waits for its controller."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ipmpi import furl
from ipmpi.client import MultiEngineClient
from ipmpi.furl import Furl
from tests.security.cluster import Controller, controller

ENGINE = [sys.executable, "-m", "ipmpi.cli.ipengine", "--mpi", "none"]


def ipengine(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "IPYTHONDIR": str(home)}
    return subprocess.run([*ENGINE, *words], env=environ, capture_output=True, text=True, timeout=60, check=False)


def furl_of(running: Controller) -> Furl:
    return furl.load(running.furl_file("engine"), "engine")


def test_it_says_at_once_and_once_why_it_cannot_connect(tmp_path: Path) -> None:
    with controller(tmp_path) as running:
        address = furl_of(running)
    ended = tmp_path / "engine.furl"
    furl.save(ended, address)
    done = ipengine(tmp_path, "--furl-file", str(ended), "--wait", "3")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    reasons = [number for number, line in enumerate(lines) if "Connection refused" in line]
    assert "waits for the controller, up to 3 s: no controller answers" in lines[reasons[0]]
    assert reasons[0] < 4
    assert len(lines) < 10
    assert len(set(line.partition(" ipengine: ")[2] for line in lines)) == len(lines)


def test_it_says_that_there_is_no_furl_file(tmp_path: Path) -> None:
    done = ipengine(tmp_path, "--wait", "1")
    assert done.returncode == 1
    (waits,) = [line for line in done.stdout.splitlines() if "waits for the controller" in line]
    assert "ipcontroller-engine.furl" in waits


@pytest.mark.parametrize("told", [True, False], ids=["told to end", "killed"])
def test_its_ids_stay_only_if_nobody_has_told_it_to_end(tmp_path: Path, told: bool) -> None:
    """A job script starts engines again if they are there, and these ask for the same."""
    before, ids = tmp_path / "ids.before", tmp_path / "ids"
    before.mkdir()
    (before / "0").write_text('{"0": 5}')
    with controller(tmp_path) as running:
        words = [*ENGINE, "--furl-file", str(running.furl_file("engine")), "--ids-dir", str(ids)]
        engine = subprocess.Popen(
            words, env={**os.environ, "IPYTHONDIR": str(tmp_path)}, stdout=subprocess.DEVNULL
        )
        running.wait_engines(1)
        with MultiEngineClient(str(running.furl_file("mec"))) as mec:
            assert mec.get_ids() == [5]
            mec.execute("pass")
            assert (ids / "0").read_text() == '{"0": 5}'
            if told:
                mec.kill()
            else:
                engine.send_signal(signal.SIGKILL)
        engine.wait(20)
        running.wait_engines(0)
        assert (ids / "0").exists() is not told
