"""``ipcluster relay``, and what is wrong with its input."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from ipmpi.protocol import sshmessages as m
from ipmpi.protocol.connection import Connection, MessageReceived
from ipmpi.protocol.greeting import GreetingReader
from ipmpi.protocol.permissions import LAPTOP_RECEIVES

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


ODD: list[m.Request] = [
    m.ReadFurl(1, "../x"),
    m.ReadFurl(2, "mec", "../../x"),
    m.RunCommand(3, ["\0"]),
    m.ConnectTo(4, "a\0b", 1),
    m.ConnectTo(5, "a..b", 1),
    m.ConnectTo(6, "x" * 200, 1),
]


def test_requests_that_cannot_be_served_are_refused_one_by_one(tmp_path: Path) -> None:
    environ = {**os.environ, "IPYTHONDIR": str(tmp_path)}
    with subprocess.Popen(RELAY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        laptop = Connection(LAPTOP_RECEIVES, resumable=False)
        for request in ODD:
            if isinstance(request, m.ConnectTo):
                laptop.send_streamed(request, m.ENDLESS)
            else:
                laptop.send(request)
        process.stdin.write(b"".join(bytes(piece) for piece in laptop.data_to_send()))
        process.stdin.flush()
        reader = GreetingReader()
        rest: bytes | None = None
        refused: dict[int, str] = {}
        while len(refused) < len(ODD):
            data = _some(process.stdout)
            rest = reader.receive(data) if rest is None else data
            for event in laptop.receive_data(rest or b""):
                assert isinstance(event, MessageReceived)
                message = event.message
                if isinstance(message, m.Ended):
                    assert message.code == 1
                    refused[message.channel] = message.text
                elif isinstance(message, m.ChannelReset):
                    refused[message.channel] = message.reason
        process.stdin.close()
        assert process.wait(20) == 0
    assert all(refused.values())


def _some(stream: IO[bytes]) -> bytes:
    data = os.read(stream.fileno(), 65536)
    assert data, "it has ended"
    return data
