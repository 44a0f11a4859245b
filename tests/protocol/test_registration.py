"""Sets of engines of any size register."""

from __future__ import annotations

import pytest

from ipmpi import limits
from ipmpi.errors import RemoteProtocolError
from ipmpi.protocol import messages as m
from ipmpi.protocol.connection import Connection, MessageReceived
from ipmpi.protocol.registration import Registration, parts

HOST = "a-node-with-quite-a-long-name-as-clusters-have-them.batch.cluster.example.org"


def sent(message: m.Register) -> list[m.Register]:
    """The messages that arrive at the other end."""
    ours, theirs = Connection(frozenset()), Connection(frozenset({m.Register}))
    for part in parts(message):
        ours.send(part)
    data = b"".join(bytes(piece) for piece in ours.data_to_send(1 << 30))
    heard = [event for event in theirs.receive_data(data) if isinstance(event, MessageReceived)]
    return [event.message for event in heard if isinstance(event.message, m.Register)]


@pytest.mark.parametrize("count", [1, limits.REGISTER_PART, limits.REGISTER_PART + 1, limits.MAX_ENGINES])
def test_a_set_arrives_whole(count: int) -> None:
    engines = [m.EngineInfo(rank, 2**32 + rank, HOST, 2**22 - rank) for rank in range(count)]
    message = m.Register(engines, "MPI", "3", list(range(count)))
    arriving = Registration()
    *first, last = [arriving.add(part) for part in sent(message)]
    assert first == [None] * len(first)
    assert last == message
    assert arriving.add(message) == message, "it can register again"


def test_a_set_is_not_larger_than_may_be() -> None:
    engines = [m.EngineInfo(rank, rank, "n", 1) for rank in range(limits.MAX_ENGINES)]
    arriving = Registration()
    assert arriving.add(m.Register(engines, "MPI", "3", [], True)) is None
    with pytest.raises(RemoteProtocolError, match="more than 65,536 engines: start several sets"):
        arriving.add(m.Register(engines[:1], "MPI", "3"))
