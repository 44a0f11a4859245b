"""S24, S25: secrets are in furl files and nowhere else: no argument, environment variable, log or answer."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ipmpi.client import MultiEngineClient
from ipmpi.furl import FILES, Furl
from tests.security.cluster import controller, engines
from tests.security.wire import Stranger

pytestmark = [pytest.mark.timeout(60)]


def forms(furl: Furl) -> list[bytes]:
    """Ways in which a secret might be written."""
    text = str(furl).rpartition("/")[2]
    secret = furl.secret
    return [text.encode(), text.upper().encode(), secret, secret.hex().encode(), base64.b64encode(secret)[:40],
            base64.urlsafe_b64encode(secret)[:40], repr(secret).encode()]  # fmt: skip


def process_texts(pids: list[int]) -> Iterator[bytes]:
    """Arguments and environments."""
    for pid in pids:
        for name in ("cmdline", "environ"):
            with suppress(OSError):
                yield Path(f"/proc/{pid}/{name}").read_bytes()


def holds_secret(texts: Iterator[bytes], wanted: list[bytes]) -> bool:
    return any(form in text for text in texts for form in wanted)


class Sampler:
    """Looks at processes again and again while something else happens."""

    def __init__(self, wanted: list[bytes]) -> None:
        self.found = False
        self.samples = 0
        self._wanted = wanted
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
            self.found = self.found or holds_secret(process_texts(pids), self._wanted)
            self.samples += 1

    def stop(self) -> bool:
        self._stop.set()
        self._thread.join()
        return self.found


def test_secrets_are_in_furl_files_only(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with controller(home, cwd=tmp_path) as running:
        wanted = [form for role in FILES for form in forms(running.furl(role))]
        sampler = Sampler(wanted)
        try:
            with engines(home, 1):
                running.wait_engines(1)
                with MultiEngineClient(str(running.furl_file("mec"))) as mec:
                    mec.execute("import os; print(dict(os.environ)); import sys; print(sys.argv)")
                    shown = repr(mec.get_result()) + repr(mec.cluster_info()) + repr(mec)
                with Stranger(running.furl("mec"), secret=bytes(32)) as stranger:
                    assert stranger.rest() == b""
                files = [path for path in tmp_path.rglob("*") if path.is_file()]
                holding = {path.name for path in files if holds_secret(iter([path.read_bytes()]), wanted)}
        finally:
            assert not sampler.stop()
        assert sampler.samples > 3
    assert not any(form in shown.encode() for form in wanted)
    assert holding == set(FILES.values())


@pytest.mark.parametrize("where", ["argument", "environment"])
def test_the_sampler_finds_a_secret_that_is_shown(where: str) -> None:
    furl = Furl.create(bytes(32), (("127.0.0.1", 1),), "mec")
    arguments = [str(furl)] if where == "argument" else []
    extra = {"FURL": str(furl)} if where == "environment" else {}
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()", *arguments],
        stdin=subprocess.PIPE,
        env={**os.environ, **extra},
    )
    try:
        sampler = Sampler(forms(furl))
        while not sampler.found and sampler.samples < 100:
            pass
        assert sampler.stop()
    finally:
        process.communicate()
