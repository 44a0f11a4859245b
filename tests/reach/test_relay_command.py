"""``ipcluster relay``, and what is wrong with its input."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from ipmpi.protocol import mux

RELAY = [sys.executable, "-m", "ipmpi.cli.relay"]


@pytest.mark.parametrize("data", [b"", b"hello\n" * 10_000, bytes(100_000)])
def test_rubbish_ends_it_without_a_traceback(data: bytes) -> None:
    done = subprocess.run(RELAY, input=data, capture_output=True, timeout=20, check=False)
    assert done.stdout.startswith(b"\nipmpi-relay ")
    assert (done.returncode, done.stderr) == (0, b"")


def test_what_is_no_pipe_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("hello")
    with open(tmp_path / "file") as file:
        done = subprocess.run(RELAY, stdin=file, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("ipcluster relay cannot serve its standard input and output: ")


ODD: list[mux.Request] = [
    mux.ReadFurl("../x"),
    mux.ReadFurl("mec", "../../x"),
    mux.RunCommand(["\0"]),
    mux.ConnectTo("a\0b", 1),
    mux.ConnectTo("a..b", 1),
    mux.ConnectTo("x" * 200, 1),
]


def test_requests_that_cannot_be_served_are_refused_one_by_one(tmp_path: Path) -> None:
    environ = {**os.environ, "IPYTHONDIR": str(tmp_path)}
    with subprocess.Popen(RELAY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        near = mux.Mux(near=True)
        channels = {near.open(request) for request in ODD}
        process.stdin.write(b"".join(bytes(piece) for piece in near.data_to_send()))
        process.stdin.flush()
        reader = mux.GreetingReader()
        rest: bytes | None = None
        refused: dict[int, str] = {}
        while refused.keys() != channels:
            data = _some(process.stdout)
            rest = reader.receive(data) if rest is None else data
            for event in near.receive_data(rest or b""):
                if isinstance(event, mux.Ended):
                    assert event.code == 1
                    refused[event.channel] = event.text
                elif isinstance(event, mux.StreamReset):
                    refused[event.channel] = event.reason
        process.stdin.close()
        assert process.wait(20) == 0
    assert all(refused.values())


def _some(stream: IO[bytes]) -> bytes:
    data = os.read(stream.fileno(), 65536)
    assert data, "it has ended"
    return data
