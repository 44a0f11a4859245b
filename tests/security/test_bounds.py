"""What one peer can make the controller keep, whatever it may say."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from ipmpi import limits
from ipmpi.client.session.connecting import connect
from ipmpi.errors import ConnectionError
from ipmpi.protocol import messages as m
from ipmpi.tls import TlsError
from tests.security.cluster import Controller, controller as start_controller, memory_kib, wait_until
from tests.security.test_strangers import let_in
from tests.security.wire import Member, register

MAY_GROW_KIB = 60 * 1024


def ask_for_ever(member: Member, reads: bool, most: int = 500_000) -> None:
    """Ask for the list of engines, without ever acknowledging an answer, until the controller has had enough."""
    member.sock.settimeout(2)
    question = m.ClusterInfo(1)
    with suppress(OSError, TlsError, TimeoutError):
        for _ in range(0, most, 1000):
            for _ in range(1000):
                member.connection.send(question)
            member.send(b"".join(bytes(part) for part in member.connection.data_to_send(1 << 30)))
            if reads:
                member.sock.setblocking(False)
                with suppress(BlockingIOError):
                    while member.sock.recv(1 << 20):
                        pass
                member.sock.settimeout(2)


@pytest.mark.parametrize("reads", [True, False], ids=["reads-and-never-acknowledges", "never-reads"])
def test_a_monitor_that_only_asks_does_not_fill_the_memory(controller: Controller, reads: bool) -> None:
    let_in(controller)
    engine, _ = register(controller.furl("engine"), host="h" * 1000)
    before = memory_kib(controller.pid)
    with engine, Member(controller.furl("monitor")) as member:
        member.ping()
        ask_for_ever(member, reads)
        assert memory_kib(controller.pid) < before + MAY_GROW_KIB
        assert let_in(controller, engines=1) < 2, "others are served meanwhile"
        engine.say(m.Goodbye("the test is over"))


def test_there_may_be_so_many_sessions_of_a_role(tmp_path: Path) -> None:
    """And no more; the other roles have places of their own, and there is room again when somebody leaves."""
    with ExitStack() as stack:
        controller = stack.enter_context(start_controller(tmp_path))
        furl_file = str(controller.furl_file("monitor"))
        monitors = (Member(controller.furl("monitor")) for _ in range(limits.OBSERVER_SESSIONS))
        members = [stack.enter_context(member) for member in monitors]
        refused = r"^the controller at \S+ refuses: it has 64 sessions of the role 'monitor', as many .*Close"
        with pytest.raises(ConnectionError, match=refused):
            connect(furl_file, "monitor")
        let_in(controller)
        for member in members:
            member.say(m.Goodbye("the test is over"))
            member.close()

        def is_let_in() -> bool:
            try:
                connect(furl_file, "monitor").close()
            except ConnectionError:
                return False
            return True

        wait_until(is_let_in, "room for a monitor")


@pytest.mark.parametrize("seconds", [0.0, -1.0, 30 * 86_400.0, 1e300, float("inf"), float("-inf"), float("nan")])
def test_a_job_may_end_at_any_time(controller: Controller, seconds: float) -> None:
    engine, _ = register(controller.furl("engine"))
    with engine:
        engine.say(m.JobEnds(seconds, "4711"))
        engine.is_ended()
        engine.say(m.Goodbye("the test is over"))
    let_in(controller)
