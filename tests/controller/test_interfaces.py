"""A role, a furl, and what may be said with it."""

from __future__ import annotations

from typing import get_args

import pytest

from ipmpi.controller.interfaces import CLIENT_INTERFACES, CLIENT_RECEIVES, Interface
from ipmpi.errors import ControllerStartError
from ipmpi.protocol import messages as m
from ipmpi.protocol.permissions import CONTROLLER_RECEIVES, LANE_ENDS, RECEIVES

# Who decides about furls decides who comes in: that is left to mec.
ABOUT_FURLS = {m.GiveFurl, m.ListFurls, m.EndFurls, m.ReplaceSecrets, m.AdmitSets}
CLIENT_TYPES = (
    CONTROLLER_RECEIVES["mec"] | CONTROLLER_RECEIVES["tc"] | CONTROLLER_RECEIVES["monitor"]
) - ABOUT_FURLS


_BESIDES = {
    m.SubmitTasks: (m.TasksFetched, m.TasksOpen, m.TaskOrigin, *LANE_ENDS),
    m.Command: (m.CommandAgain, m.CommandsTold, m.CommandOrigin, *LANE_ENDS),
}


def test_the_built_in_ones_are_the_tables() -> None:
    assert {i.role: i.receives for i in CLIENT_INTERFACES} == {
        role: CONTROLLER_RECEIVES[role] for role in ("mec", "tc", "monitor")
    }
    assert all(interface.permits(m.GetIds(1)) for interface in CLIENT_INTERFACES)


def test_clients_of_any_interface_hear_all_answers() -> None:
    assert RECEIVES["mec"] | RECEIVES["tc"] | RECEIVES["monitor"] == CLIENT_RECEIVES


@pytest.mark.parametrize("kind", get_args(m.AnyMessage), ids=lambda kind: kind.__name__)
def test_a_site_can_open_client_messages_only(kind: type[m.Message]) -> None:
    if kind in CLIENT_TYPES:
        # Every client can leave properly, and say which results it has, and which it lacks.
        besides = {m.Goodbye, *_BESIDES.get(kind, ())}
        assert Interface("site", frozenset({kind})).receives == {kind, *besides}
    else:
        with pytest.raises(ControllerStartError, match=f"'site' may not receive {kind.__name__}"):
            Interface("site", frozenset({kind, m.GetIds}))


def test_permits_narrows_further() -> None:
    reader = Interface(
        "reader", frozenset({m.Command}), permits=lambda message: getattr(message, "method", "") == "pull"
    )
    assert reader.permits(m.Command(1, None, "pull", "a", b""))
    assert not reader.permits(m.Command(1, None, "execute", "a", b""))
