"""Furls that were given out, against a real controller: what they open, for how long, and for whom no longer."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ipmpi import furl
from ipmpi.client import Monitor, MultiEngineClient, TaskClient
from ipmpi.errors import ClientError, FurlEnded
from ipmpi.furl import Furl
from ipmpi.protocol import messages as m
from ipmpi.protocol.handshake import DiallerHandshake
from tests.ports import fixed_port
from tests.security.cluster import LOOPBACK, Controller, controller, engines, launch, wait_until
from tests.security.relay import Relay
from tests.security.wire import Member, Stranger, TlsPeer, register

pytestmark = [pytest.mark.timeout(120)]
WAIT = 60.0


def mec_of(running: Controller) -> MultiEngineClient:
    return MultiEngineClient(str(running.furl_file("mec")))


def is_refused(address: Furl, session: bytes = b"") -> str:
    """The sentence with which the controller refuses a furl; "" if it does not, "nothing" if it says nothing."""
    with TlsPeer(address.hints[0]) as peer:
        handshake = DiallerHandshake(
            address.role, address.secret, peer.tls.exporter(), "a test", session=session
        )  # fmt: skip
        peer.send(handshake.hello())
        data = peer.receive()
        if not data:
            return "nothing"
        try:
            answer = handshake.receive(data)
        except FurlEnded as error:
            return str(error)
        assert answer is not None
        return ""


def fails(client: Any, call: str) -> FurlEnded:
    """What a client gets once its furl has ended."""

    def error() -> FurlEnded | None:
        try:
            getattr(client, call)()
        except FurlEnded as ended:
            return ended
        return None

    found: FurlEnded = wait_until(error, "the end of a furl", WAIT)
    return found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    home = tmp_path_factory.mktemp("cluster")
    with controller(home) as running, engines(home, 2):
        with mec_of(running) as mec:
            mec.wait_for_engines(2, WAIT)
        yield running
        assert "Traceback" not in running.log(), running.log()[-3000:]


@pytest.fixture
def mec(cluster: Controller) -> Iterator[MultiEngineClient]:
    with mec_of(cluster) as made:
        yield made


# --- for a colleague -----------------------------------------------------------------------------------------


def test_a_colleague_watches_and_changes_nothing(mec: MultiEngineClient) -> None:
    made = mec.share("monitor", note="Ada")
    assert made.furl not in repr(made)
    assert [(each["role"], each["note"]) for each in mec.shared()] == [("monitor", "Ada")]
    with Monitor(made.furl) as watched:
        assert watched.get_ids() == [0, 1]
        assert [number for number, _ in watched.queue_status()] == [0, 1]
        assert watched.cluster_info()["clients"].count("monitor") == 1
        assert watched.task_status()["pending"] == 0
    with Member(Furl.parse(made.furl)) as member:
        member.say(m.Kill(1, None))
        assert member.is_ended()
    assert mec.get_ids() == [0, 1]
    mec.revoke()


def test_it_ends_by_itself_and_says_so_at_the_client(mec: MultiEngineClient) -> None:
    made = mec.share("monitor", 1.5)
    with Monitor(made.furl) as watched:
        error = fails(watched, "get_ids")
    assert f"the furl {made.id} has ended: its time is over" in str(error)
    with pytest.raises(FurlEnded, match=r"has ended: its time is over.*ipcluster share"):
        Monitor(made.furl)
    assert mec.shared() == []


def test_it_is_revoked_with_the_sessions_of_its_holders(mec: MultiEngineClient) -> None:
    made, other = mec.share("tasks"), mec.share("tasks")
    with TaskClient(made.furl) as theirs, TaskClient(other.furl) as others:
        assert theirs.submit(abs, -1).result() == 1
        waiting = theirs.submit(__import__("time").sleep, 60)
        assert mec.revoke(made.id) == [made.id]
        with pytest.raises(FurlEnded, match="it was revoked"):
            waiting.result(WAIT)
        assert "it was revoked" in is_refused(Furl.parse(made.furl))
        assert others.submit(abs, -2).result() == 2
    assert mec.revoke() == [other.id]
    with pytest.raises(ClientError, match="has ended already: it was revoked"):
        mec.revoke([made.id])


def test_tasks_and_bytes_are_bounded_over_all_its_sessions(mec: MultiEngineClient) -> None:
    made = mec.share("tasks", tasks=3, size=50_000)
    with TaskClient(made.furl) as theirs:
        assert theirs.map(abs, [-1, -2]) == [1, 2]
    with TaskClient(made.furl) as theirs:
        with pytest.raises(FurlEnded, match="allows 3 tasks in all: 2 were used, and these are 2"):
            theirs.map(abs, [-1, -2])
        with pytest.raises(FurlEnded, match="allows 50,000 bytes in all"):
            theirs.submit(len, bytes(60_000)).result(WAIT)
        assert theirs.submit(abs, -3).result(WAIT) == 3
    used = next(each for each in mec.shared() if each["id"] == made.id)
    assert used["tasks"] == [3, 3]
    mec.revoke(made.id)


def test_its_holder_sees_some_engines_and_its_tasks_run_there(mec: MultiEngineClient) -> None:
    mec.execute("import os; pid = os.getpid()")
    pids = mec.pull("pid")
    made, look = mec.share("tasks", engines=[1]), mec.share("monitor", engines=1)
    with TaskClient(made.furl) as theirs, Monitor(look.furl) as watched:
        assert set(theirs.map(os_pid, range(20))) == {pids[1]}
        assert watched.get_ids() == [1]
        assert [number for number, _ in watched.queue_status()] == [1]
        assert [engine["id"] for engine in watched.cluster_info()["engines"]] == [1]
    mec.revoke()


def os_pid(_number: int) -> int:

    return os.getpid()


def test_a_task_for_more_engines_than_it_may_use_waits_and_others_run(mec: MultiEngineClient) -> None:
    made = mec.share("tasks", engines=[7])  # there is none with this id
    with TaskClient(made.furl) as theirs, TaskClient(mec.share("tasks").furl) as others:
        waiting = theirs.submit(abs, -1)
        assert others.submit(abs, -2).result(WAIT) == 2
        assert not waiting.done()
        waiting.cancel()
    mec.revoke()


@pytest.mark.parametrize("role", ["mec", "nosuch", "engine"])
def test_no_furl_is_given_out_for_all_that_a_client_can_do(cluster: Controller, role: str) -> None:
    with Member(cluster.furl("mec")) as member:
        member.say(m.GiveFurl(1, role, seconds=60.0))
        refused = member.hear(m.Refused)
        assert refused.error == "ClientError"


@pytest.mark.parametrize(
    "bad",
    [m.GiveFurl(1, "tc", seconds=-1.0), m.GiveFurl(1, "tc", seconds=float("nan")), m.GiveFurl(1, "tc", tasks=-1)],
    ids=["the past", "no number", "less than nothing"],
)
def test_impossible_terms_are_refused(cluster: Controller, bad: m.GiveFurl) -> None:
    with Member(cluster.furl("mec")) as member:
        member.say(bad)
        assert member.hear(m.Refused).error == "ClientError"


def test_the_key_of_another_furl_opens_nothing(cluster: Controller, mec: MultiEngineClient) -> None:
    """Hello names a secret; what counts is the proof."""
    made = mec.share("monitor")
    for role, secret in (("mec", Furl.parse(made.furl).secret), ("monitor", b"x" * 32)):
        with Stranger(Furl.parse(made.furl), role=role, secret=secret) as stranger:
            assert stranger.rest() == b""
    mec.revoke()


def test_a_session_goes_on_with_its_own_furl_only(cluster: Controller, mec: MultiEngineClient) -> None:
    made = mec.share("monitor")
    bounded = Furl.parse(made.furl)
    with Member(cluster.furl("monitor")) as theirs, Member(bounded) as own:
        for furl_then, session in ((bounded, theirs.session), (cluster.furl("monitor"), own.session)):
            assert "begun with another furl" in is_refused(furl_then, session)
    mec.revoke()


# --- new secrets ---------------------------------------------------------------------------------------------


def test_new_secrets_leave_who_is_connected_and_let_nobody_in_with_the_old_ones(tmp_path: Path) -> None:
    with controller(tmp_path) as running, Relay(running.address("mec")) as relay:
        old = {role: running.furl(role) for role in ("mec", "tc", "engine")}
        relayed = tmp_path / "relayed.furl"
        furl.save(relayed, Furl(old["mec"].fingerprint, (relay.address,), "mec", old["mec"].secret))
        with engines(tmp_path, 1), MultiEngineClient(str(relayed)) as mec:
            mec.wait_for_engines(1, WAIT)
            mec.execute("a = 5")
            assert sorted(mec.rotate()) == ["engine", "mec", "monitor", "tc"]
            relay.cut_all()
            assert mec.pull("a") == [5]  # over a new link, with the old secret
            for role, address in old.items():
                assert running.furl(role).secret != address.secret
                assert "replaced by a new one" in is_refused(address)
            with mec_of(running) as new:
                assert new.pull("a") == [5]
        with pytest.raises(
            FurlEnded, match="it was replaced by a new one"
        ):  # when its last session has ended, too
            MultiEngineClient(str(old["mec"]))


def test_secrets_are_replaced_while_clients_compute(tmp_path: Path) -> None:
    """Under load: tasks run and arrays travel over links that are cut, and nothing is lost or done twice."""
    with controller(tmp_path) as running, Relay(running.address("tc")) as relay:
        old = running.furl("tc")
        with (
            engines(tmp_path, 2),
            mec_of(running) as mec,
            TaskClient(str(Furl(old.fingerprint, (relay.address,), "tc", old.secret))) as tc,
        ):
            mec.wait_for_engines(2, WAIT)
            futures = [tc.submit(pow, number, 2) for number in range(300)]
            for _ in range(5):
                mec.rotate()
                relay.cut_all()
                futures += [tc.submit(pow, number, 2) for number in range(len(futures), len(futures) + 100)]
                assert "replaced by a new one" in is_refused(old)
            assert [future.result(WAIT) for future in futures] == [number**2 for number in range(800)]
            with TaskClient(str(running.furl_file("tc"))) as new:
                assert new.submit(abs, -1).result(WAIT) == 1
        assert "Traceback" not in running.log()


def test_with_now_all_others_end(tmp_path: Path) -> None:
    with controller(tmp_path) as running, mec_of(running) as mec, mec_of(running) as other:
        engine, _ = register(running.furl("engine"))
        with engine:
            other.get_ids()
            mec.rotate(now=True)
            assert "was replaced by a new one" in str(fails(other, "get_ids"))
            assert "was replaced by a new one" in engine.hear(m.Goodbye).reason
            assert mec.get_ids() == []
            with mec_of(running) as new:
                assert new.get_ids() == []


# --- launches ------------------------------------------------------------------------------------------------


def test_a_stolen_furl_of_a_launch_is_worth_nothing_once_its_engines_are_there(tmp_path: Path) -> None:
    with controller(tmp_path) as running:
        address = launch(running, 2)
        first, _ = register(address, 0)
        second, _ = register(address, 1)
        with first, Member(address) as thief:
            thief.say(m.Register([m.EngineInfo(0, 0, "thief", 1)], "", ""))
            farewell = thief.hear(m.Goodbye)
            assert farewell.furl
            assert "this furl is for the 2 engines of the launch default-1, and 2 have used it" in farewell.reason
            with mec_of(running) as mec:
                assert mec.get_ids() == [0, 1]
                assert mec.shared()[0]["places"] == [2, 2]
                second.say(m.Goodbye("it ends"))
                second.close()
                wait_until(lambda: mec.get_ids() == [0], "the loss of an engine", WAIT)
                with Member(address) as another:
                    another.say(m.Register([m.EngineInfo(0, 5, "thief", 1)], "", ""))
                    assert another.hear(m.Goodbye).furl
                again, number = register(address, 1)  # it was started again, and wants its id
                with again:
                    assert number == 1


def test_the_launch_of_engines_ends_and_its_furl_with_it(tmp_path: Path) -> None:
    with controller(tmp_path) as running, mec_of(running) as mec:
        address = launch(running, 2)
        assert is_refused(address) == ""
        mec._calls.session.request(lambda i: m.EndFurls(i, None, "default-1")).result(WAIT)
        assert "has ended: the launch default-1 is over" in is_refused(address)


def test_who_has_connected_before_the_end_of_a_launch_registers_no_engine_after_it(tmp_path: Path) -> None:
    with controller(tmp_path) as running, mec_of(running) as mec:
        address = launch(running, 2)
        engine, _ = register(address, 0)
        with engine, Member(address) as thief, Member(address) as another:
            thief.ping()
            another.ping()
            mec._calls.session.request(lambda i: m.EndFurls(i, None, "default-1")).result(WAIT)
            thief.say(m.Register([m.EngineInfo(0, 1, "thief", 1)], "", ""))  # a place that nobody has taken
            assert "has ended: the launch default-1 is over" in thief.hear(m.Goodbye).reason
            engine.say(m.Goodbye("it ends"))
            engine.close()
            wait_until(lambda: mec.get_ids() == [], "the end of the engine", WAIT)
            another.say(m.Register([m.EngineInfo(0, 0, "thief", 1)], "", ""))  # that of an engine which has left
            assert "has ended: the launch default-1 is over" in another.hear(m.Goodbye).reason
            assert mec.get_ids() == []


def test_a_job_that_has_ended_leaves_a_furl_that_is_worth_nothing(tmp_path: Path) -> None:
    with controller(tmp_path) as running:
        address = launch(running, 2, seconds=-119.0)  # and the two minutes after the end of a job
        engine, _ = register(address, 0)
        with engine:
            wait_until(lambda: "its time is over" in is_refused(address), "the end of a job", WAIT)
            engine.ping()  # who computes is not stopped by a clock


def test_real_engines_of_a_launch_come_back_to_a_controller_that_was_killed(tmp_path: Path) -> None:
    ports = ["--client-port", str(fixed_port()), "--engine-port", str(fixed_port())]
    first = Controller(tmp_path, [*LOOPBACK, *ports])
    try:
        launch(first, 1)
        with engines(tmp_path, 1, ["--furl-file", str(tmp_path / "security" / "ipengine-1.furl")]):
            with mec_of(first) as mec:
                mec.wait_for_engines(1, WAIT)
                mec.execute("a = 7")
                shared, revoked = mec.share("monitor"), mec.share("monitor")
                mec.revoke(revoked.id)
            saved = tmp_path / "security" / "ipcontroller-grants.json"
            wait_until(lambda: saved.exists() and revoked.id in saved.read_text(), "the file", WAIT)
            assert stat.S_IMODE(saved.stat().st_mode) == 0o600
            for secret in (shared.furl.rpartition("/")[2], revoked.furl.rpartition("/")[2]):
                assert secret not in saved.read_text()
            wait_until(
                lambda: '"taken":[0]' in saved.read_text().replace(" ", ""), "the place of the engine", WAIT
            )
            first.stop(9)
            with (
                controller(tmp_path, [*LOOPBACK, *ports]) as second,
                mec_of(second) as mec,
                Monitor(shared.furl) as watched,
            ):
                mec.wait_for_engines(1, WAIT)
                assert mec.pull("a") == [7]
                assert watched.get_ids() == [0]
                assert "it was revoked" in is_refused(Furl.parse(revoked.furl))
                assert "no place is left" in _registers(furl.load(tmp_path / "security" / "ipengine-1.furl"))
    finally:
        first.stop(9)


def test_what_was_said_of_furls_holds_though_the_controller_is_killed_at_that_moment(tmp_path: Path) -> None:
    ports = ["--client-port", str(fixed_port()), "--engine-port", str(fixed_port())]

    def told_before_the_end(call: Callable[[MultiEngineClient], Any]) -> Any:
        running = Controller(tmp_path, [*LOOPBACK, *ports])
        try:
            with mec_of(running) as mec:
                answer = call(mec)
                running.stop(9)
                return answer
        finally:
            running.stop(9)

    made = told_before_the_end(lambda mec: mec.share("monitor"))
    assert told_before_the_end(lambda mec: mec.revoke(made.id)) == [made.id]
    with controller(tmp_path, [*LOOPBACK, *ports]):
        assert f"this furl ({made.id}) has ended: it was revoked" in is_refused(Furl.parse(made.furl))


def _registers(address: Furl) -> str:
    with Member(address) as thief:
        thief.say(m.Register([m.EngineInfo(0, 0, "thief", 1)], "", ""))
        return thief.hear(m.Goodbye).reason


# --- engines that nobody expects -----------------------------------------------------------------------------


def test_clients_hear_of_engines_that_no_launch_has_started(tmp_path: Path) -> None:
    with controller(tmp_path) as running, mec_of(running) as mec:
        launch(running, 1)
        engine, _ = register(running.furl("engine"), host="elsewhere")
        with engine:
            wait_until(lambda: mec._calls.session.notices, "a notice", WAIT)
            notice = mec._calls.session.notices[0]
            assert "nobody has announced these engines: 1 engine on elsewhere" in notice
            assert "no launch of ipcluster" in notice


def test_clients_hear_of_engines_of_another_user(tmp_path: Path) -> None:
    with controller(tmp_path) as running, mec_of(running) as mec, Member(launch(running, 1)) as engine:
        engine.say(m.Register([m.EngineInfo(0, 0, "node", 1)], "", "", user="mallory"))
        engine.hear(m.Registered)
        wait_until(lambda: mec._calls.session.notices, "a notice", WAIT)
        assert "user mallory" in mec._calls.session.notices[0]


def test_engines_by_hand_are_nothing_strange_where_all_is_started_by_hand(cluster: Controller) -> None:
    assert "nobody has announced" not in cluster.log()


def test_engines_wait_until_they_are_admitted(tmp_path: Path) -> None:
    with controller(tmp_path, [*LOOPBACK, "--admit", "ask"]) as running, mec_of(running) as mec:
        with Member(running.furl("engine")) as engine, Member(running.furl("engine")) as other:
            for each, host in ((engine, "good"), (other, "bad")):
                each.say(m.Register([m.EngineInfo(0, 0, host, 1)], "", "", user="me"))
                each.ping()
            waiting = {each["hosts"][0]: each["set"] for each in mec.waiting_engines()}
            assert sorted(waiting) == ["bad", "good"]
            assert mec.get_ids() == []
            with pytest.raises(ClientError, match=r"no engine set 99 waits to be admitted"):
                mec.admit(99)
            assert [each["hosts"] for each in mec.admit(waiting["good"])] == [["good"]]
            assert engine.hear(m.Registered).ids == [0]
            mec.turn_away()
            assert "does not admit" in other.hear(m.Goodbye).reason
            assert mec.waiting_engines() == []
            assert mec.get_ids() == [0]
        with Member(launch(running, 1)) as announced:  # a launch of ipcluster is admitted as such
            announced.say(m.Register([m.EngineInfo(0, 0, "node", 1)], "", ""))
            announced.hear(m.Registered)
