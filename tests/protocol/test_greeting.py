"""The first line of the far end of an ssh session, and what a login prints before it."""

from __future__ import annotations

import pytest

from ipmpi import limits
from ipmpi.errors import RemoteProtocolError, VersionError
from ipmpi.protocol.greeting import VERSION, GreetingReader, greeting


def test_what_a_login_prints_is_skipped() -> None:
    reader = GreetingReader()
    data = b"Welcome!\nYou have mail." + greeting("ipmpi 1.0") + b"\x00frames"
    rest = None
    for at in range(len(data)):
        rest = reader.receive(data[at : at + 1])
        if rest is not None:
            assert data[at + 1 :] == b"\x00frames"
            break
    assert rest == b""
    assert GreetingReader().receive(data) == b"\x00frames"


@pytest.mark.parametrize(("version", "which"), [(VERSION + 1, "upgrade this one"), (1, "upgrade the one there")])
def test_another_version_says_which_to_upgrade(version: int, which: str) -> None:
    with pytest.raises(VersionError, match=f"its ipmpi 9.9 speaks version {version} .*{which}"):
        GreetingReader().receive(b"\nipmpi-relay %d ipmpi 9.9\n" % version)


def test_a_login_that_prints_without_end_is_given_up() -> None:
    reader = GreetingReader()
    assert reader.receive(b"n" * (limits.SSH_BANNER - 1)) is None
    with pytest.raises(RemoteProtocolError, match="prints more than"):
        reader.receive(b"ews")
