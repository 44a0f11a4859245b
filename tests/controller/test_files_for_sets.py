"""Large bodies between a client that comes by TLS and an engine set on the machine of a real controller."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ipmpi.client import MultiEngineClient
from ipmpi.protocol import messages as m
from ipmpi.protocol.connection import DataReceived
from ipmpi.transport.memoryfile import MemoryFile
from tests.security.cluster import controller
from tests.security.localwire import LocalMember

ARRAY = np.random.default_rng(3).integers(0, 255, 20_000_000, np.uint8)


def test_both_ways_they_are_files_to_the_engine_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ipmpi.transport.dial.dial.is_possible", lambda: False)
    with controller(tmp_path) as running:
        engine = LocalMember(running.furl("engine"))
        engine.connection.send(m.Register([m.EngineInfo(0, 0, "testhost", 1)], "no MPI", "3"))
        engine.hear(m.Registered)
        with MultiEngineClient(str(running.furl_file("mec"))) as mec:
            mec.push({"x": ARRAY}, block=False)
            come = engine.hear(m.Dispatch)
            engine.connection.allow_files(come.stream)
            engine.connection.grant(come.stream, 1)
            engine.until(lambda: any(isinstance(event, DataReceived) for event in engine.events))
            (event,) = [event for event in engine.events if isinstance(event, DataReceived)]
            assert isinstance(event.data, MemoryFile)
            assert event.last
            assert bytes(event.data.part(event.data.size - 9, 9)) == ARRAY[-9:].tobytes()

            dispatch = come.message
            assert isinstance(dispatch, m.Dispatch)
            answer = m.Result(dispatch.id, [0], True, b"", [ARRAY.nbytes])
            out = engine.connection.send_streamed(answer, ARRAY.nbytes)
            engine.until(lambda: out.credit)
            assert out.files
        engine.close()
