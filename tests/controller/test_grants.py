"""Furls that were given out: who may come in until when, and what is left of them after a restart."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ipmpi import limits
from ipmpi.controller import grants as module
from ipmpi.controller.grants import COMES_BACK, OPEN, Bounds, Grant, Grants, secret_of
from ipmpi.errors import ClientError, FurlEnded
from ipmpi.protocol.furlkeys import key_of

MASTER = bytes(range(32))
ROLES = ("engine", "mec", "tc", "monitor")


def table() -> Grants:
    return Grants(lambda role, grant: secret_of(MASTER, f"{role}/{grant}"))


def enters(grants: Grants, grant: Grant, now: float, *, known: bool = False, local: bool = True) -> bool:
    try:
        grants.check(grant, now, is_local=local, is_known=known)
    except FurlEnded:
        return False
    return True


def restarted(grants: Grants, then: float, elapsed: float, now: float) -> Grants:
    after = table()
    after.restored(grants.saved(then), elapsed, now, ROLES)
    return after


def same(grants: Grants, grant: Grant) -> Grant:
    found = grants.of(grant.role, grant.key)
    assert found is not None
    return found


def test_a_furl_is_good_until_its_end_and_its_holder_is_told_why_no_longer() -> None:
    grants = table()
    grant = grants.give("monitor", "Ada", 100.0, 7200.0)
    assert grants.next_end() == 7300.0
    assert enters(grants, grant, 7299.9)
    assert not enters(grants, grant, 7300.0)
    with pytest.raises(FurlEnded, match=rf"\({grant.id}\) has ended: its time is over.*ipcluster share"):
        grants.check(grant, 7301.0, is_local=True, is_known=True)
    assert grants.next_end() is None


def test_secrets_follow_from_the_id_and_are_in_no_list_and_no_file() -> None:
    grants = table()
    grant = grants.give("tc", "Ada", 0.0, 60.0)
    secret = grants.secret_for("tc", key_of(grants.secret_of(grant)))
    assert secret == secret_of(MASTER, f"tc/{grant.id}")
    assert grants.secret_for("monitor", grant.key) is None  # another role's
    assert grants.secret_for("tc", b"") is None
    saved = grants.saved(0.0)
    for form in (secret, secret.hex().encode()):
        assert form not in saved
        assert form not in repr(grants.described(0.0)).encode()


def test_a_revoked_one_ends_at_once_and_only_shared_ones_are_revoked() -> None:
    grants = table()
    grant, launch = grants.give("tc", "Ada", 0.0, 60.0), grants.launch("default-1", 2)
    grants.end(grants.named(grant.id), "it was revoked")
    with pytest.raises(FurlEnded, match="it was revoked"):
        grants.check(grant, 1.0, is_local=True, is_known=True)
    with pytest.raises(ClientError, match="has ended already: it was revoked"):
        grants.named(grant.id)
    for unknown in (launch.id, "nosuch", ""):
        with pytest.raises(ClientError, match=r"there is no furl .*ipcluster share NAME --list"):
            grants.named(unknown)


def test_bounds_of_tasks_and_bytes_count_over_all_sessions() -> None:
    grants = table()
    grant = grants.give("tc", "Ada", 0.0, 60.0, Bounds(tasks=10, size=1000))
    grants.spend(grant, 6, 100)
    with pytest.raises(FurlEnded, match=r"allows 10 tasks in all: 6 were used, and these are 5"):
        grants.spend(grant, 5, 0)
    with pytest.raises(FurlEnded, match=r"allows 1,000 bytes in all: 100 were used, and these are 901"):
        grants.spend(grant, 1, 901)
    grants.spend(grant, 4, 900)  # what was refused was not counted
    with pytest.raises(FurlEnded):
        grants.spend(same(restarted(grants, 1.0, 1.0, 500.0), grant), 1, 0)


def test_a_launch_lets_so_many_engines_in_and_lost_ones_come_back_with_their_ids() -> None:
    grants = table()
    grant = grants.launch("default-1", 4)
    grants.check_places(grant, [0, 1, 2, 3], 4, [])
    grants.took(grant, [0, 1, 2, 3], [0, 1, 2, 3], [], 0.0)
    for wanted in ([0], [4], [0, 1, 2, 3]):  # a thief, whatever it asks for
        with pytest.raises(
            FurlEnded, match=r"for the 4 engines of the launch default-1, and 4 have used it \(ids 0-3\)"
        ):
            grants.check_places(grant, wanted, len(wanted), [0, 1, 2, 3])
    there = [0, 1]  # engines 2 and 3 are lost
    with pytest.raises(FurlEnded):
        grants.check_places(grant, [7, 8], 2, there)
    with pytest.raises(FurlEnded):
        grants.check_places(grant, [2, 3, 4], 3, there)
    grants.check_places(grant, [2, 3], 2, there)
    grants.took(grant, [2, 3], [2, 3], there, 1.0)
    assert grant.taken == {0, 1, 2, 3}


def test_engines_that_get_other_ids_than_they_asked_for_take_no_more_places() -> None:
    grants = table()
    grant = grants.launch("default-2", 2)
    grants.took(grant, [0, 1], [4, 5], [0, 1, 2, 3], 0.0)
    assert grant.taken == {4, 5}
    grants.took(grant, [4, 5], [6, 7], [0, 1, 2, 3], 0.0)
    assert grant.taken == {6, 7}


def test_the_time_of_a_launch_runs_from_its_first_engine_on() -> None:
    grants = table()
    grant = grants.launch("slurm-1", 2, 3600.0)
    assert enters(grants, grant, 1e6)  # it waits in the queue
    grants.took(grant, [0], [0], [], 1e6)
    grants.took(grant, [1], [1], [0], 1e6 + 100)
    assert grant.ends == 1e6 + 3600
    grants.job_ends(grant, 1e6 + 9999)  # an engine cannot make it longer
    assert grant.ends == 1e6 + 3600
    grants.job_ends(grant, 1e6 + 600)
    assert grants.due(1e6 + 601) == [grant]
    assert not enters(grants, grant, 1e6 + 602)
    assert enters(grants, grant, 1e6 + 602, known=True)  # who computes may reconnect


def test_a_job_that_waits_is_not_hurried_by_who_has_come_and_gone_without_an_engine() -> None:
    grants = table()
    grant = grants.launch("slurm-1", 2, 3600.0)
    grants.all_left(grant, 100.0)
    assert enters(grants, grant, 100.0 + 7 * 86400)


def test_there_is_room_for_all_new_secrets_or_for_none() -> None:
    grants = table()
    for _ in range(OPEN - 3):
        grants.give("monitor", "", 0.0, 60.0)
    grants.check_room(3)
    with pytest.raises(ClientError, match=r"1000 furls .*as many as there can be: revoke some"):
        grants.check_room(4)


def test_a_job_that_was_requeued_has_a_day_to_come_back_and_then_its_time_anew() -> None:
    grants = table()
    grant = grants.launch("slurm-1", 1, 3600.0)
    grants.took(grant, [0], [0], [], 0.0)
    grants.all_left(grant, 100.0)
    assert enters(grants, grant, COMES_BACK)
    grants.took(grant, [0], [0], [], COMES_BACK)
    assert grant.ends == COMES_BACK + 3600
    grants.all_left(grant, COMES_BACK + 10)
    assert not enters(grants, grant, 2 * COMES_BACK + 11)


def test_a_launch_that_is_started_again_keeps_its_furl() -> None:
    grants = table()
    first = grants.launch("slurm-1", 2, 3600.0)
    grants.took(first, [0, 1], [0, 1], [], 0.0)
    before = first.ends
    assert grants.launch("slurm-1", 2, 3600.0).ends == before  # a controller that was started again asks anew
    again = grants.launch("slurm-1", 2, 3600.0, again=True)
    assert again is first
    assert again.ends == math.inf
    assert again.taken == {0, 1}
    grants.end(first, "the launch slurm-1 is over")
    with pytest.raises(FurlEnded, match=r"the launch slurm-1 is over.*ipcontroller-engine\.furl"):
        grants.check(first, 1.0, is_local=True, is_known=False)


def test_a_launch_on_this_machine_lets_nobody_in_from_elsewhere() -> None:
    grants = table()
    grant = grants.launch("default-1", 2, local=True)
    assert enters(grants, grant, 0.0)
    with pytest.raises(FurlEnded, match="on the controller's machine"):
        grants.check(grant, 0.0, is_local=False, is_known=False)


def test_the_nodes_of_a_launch_are_kept_until_it_is_started_again() -> None:
    grants = table()
    grant = grants.launch("slurm-1", 2, asks=True)
    assert grant.nodes is None
    assert grants.runs_on("slurm-1", ["n1", "n2"]) is grant
    assert grants.runs_on("slurm-2", ["n1", "n2"]) is None
    after = restarted(grants, 0.0, 10.0, 0.0)
    assert after.launch("slurm-1", 2, asks=True).nodes == ("n1", "n2")  # its controller was started again
    assert after.launch("slurm-1", 2, asks=True, again=True).nodes is None  # a further job
    assert after.launch("slurm-1", 2, nodes=["n3"]).nodes == ("n3",)


def test_the_former_secret_of_a_role_is_good_for_the_sessions_that_there_are() -> None:
    grants = table()
    secret = b"s" * 32
    grant = grants.retire("mec", secret)
    assert grants.secret_for("mec", key_of(secret)) == secret
    assert enters(grants, grant, 0.0, known=True)
    with pytest.raises(FurlEnded, match="was replaced by a new one: copy the furl file again"):
        grants.check(grant, 0.0, is_local=True, is_known=False)
    after = restarted(grants, 0.0, 10.0, 0.0)
    assert after.secret_for("mec", key_of(secret)) == secret


def test_there_may_be_so_many() -> None:
    grants = table()
    for _ in range(OPEN):
        last = grants.give("monitor", "", 0.0, 60.0)
    with pytest.raises(ClientError, match="as many as there can be: revoke some"):
        grants.give("monitor", "", 0.0, 60.0)
    grants.end(last, "it was revoked")
    grants.give("monitor", "", 0.0, 60.0)


def test_ended_ones_are_forgotten_after_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 3)
    grants = table()
    ended = [grants.give("monitor", "", 0.0, 60.0) for _ in range(5)]
    for grant in ended:
        grants.end(grant, "it was revoked")
    assert [grants.of("monitor", grant.key) is not None for grant in ended] == [False, False, True, True, True]


def test_grants_of_roles_whose_furls_are_new_are_dropped() -> None:
    grants = table()
    kept, dropped = grants.give("monitor", "", 0.0, 60.0), grants.launch("default-1", 2)
    after = table()
    after.restored(grants.saved(0.0), 0.0, 0.0, ["monitor"])
    assert after.of("monitor", kept.key) is not None
    assert after.of("engine", dropped.key) is None


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b'[{"id": 1}]', b"\xff", b"[" * 100_000])
def test_a_file_with_something_else_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        table().restored(data, 0.0, 0.0, ROLES)


@given(
    lasts=st.floats(1, 1e7), before=st.floats(0, 1e7), elapsed=st.floats(-1e9, 1e9), after=st.floats(0, 1e7),
    then=st.floats(0, 1e9), now=st.floats(0, 1e9),
)  # fmt: skip
def test_no_restart_and_no_clock_makes_a_furl_longer_than_the_time_that_nobody_saw(
    lasts: float, before: float, elapsed: float, after: float, then: float, now: float
) -> None:
    grants = table()
    grant = grants.give("monitor", "", then, lasts)
    grants.due(then + before)
    then += before
    again = restarted(grants, then, elapsed, now)
    seen = before + max(0.0, elapsed) + after
    slack = 1e-3
    if seen > min(lasts, limits.FURL_LASTS) + slack:
        assert not enters(again, same(again, grant), now + after)
    elif seen < min(lasts, limits.FURL_LASTS) - slack:
        assert enters(again, same(again, grant), now + after)


class Life(RuleBasedStateMachine):
    """A controller that gives out, ends and counts, with restarts, beside a model of what each furl is worth."""

    @initialize()
    def begin(self) -> None:
        self.grants = table()
        self.now = 1000.0
        self.model: dict[tuple[str, bytes], tuple[float, int, bool]] = {}
        """Of each client's furl: when it ends, tasks that are left, whether it was revoked."""
        self.launch = self.grants.launch("default-1", 4)
        self.there: set[int] = set()

    @rule(lasts=st.floats(1, 100), tasks=st.integers(0, 10))
    def give(self, lasts: float, tasks: int) -> None:
        grant = self.grants.give("tc", "", self.now, lasts, Bounds(tasks=tasks))
        self.model[grant.role, grant.key] = (self.now + lasts, tasks, False)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), tasks=st.integers(1, 5))
    def spend(self, data: st.DataObject, tasks: int) -> None:
        name = data.draw(st.sampled_from(list(self.model)))
        ends, left, revoked = self.model[name]
        grant = self.grants.of(*name)
        assert grant is not None
        allowed = tasks <= left
        try:
            self.grants.spend(grant, tasks, 1)
        except FurlEnded:
            assert not allowed
        else:
            assert allowed
            self.model[name] = (ends, left - tasks, revoked)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def revoke(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(list(self.model)))
        grant = self.grants.of(*name)
        assert grant is not None
        self.grants.end(grant, "it was revoked")
        ends, left, _ = self.model[name]
        self.model[name] = (ends, left, True)

    @rule(seconds=st.floats(0.1, 60))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.grants.due(self.now)

    @rule(away=st.floats(0, 60), clock=st.floats(0, 1e6))
    def restart(self, away: float, clock: float) -> None:
        data, then = self.grants.saved(self.now), self.now
        self.grants = table()
        self.grants.restored(data, away, clock, ROLES)
        shift = clock - then - away
        self.now = clock
        self.model = {name: (ends + shift, *rest) for name, (ends, *rest) in self.model.items()}  # type: ignore[misc]
        found = self.grants.of(self.launch.role, self.launch.key)
        assert found is not None
        self.launch = found

    @rule(data=st.data(), count=st.integers(1, 5))
    def engines_come(self, data: st.DataObject, count: int) -> None:
        wanted = data.draw(st.lists(st.integers(0, 9), min_size=count, max_size=count, unique=True))
        usable = self.there.isdisjoint(wanted)
        try:
            self.grants.check_places(self.launch, wanted, count, self.there)
        except FurlEnded:
            return
        free = [number for number in range(100) if number not in self.there]
        ids = wanted if usable else free[:count]
        self.grants.took(self.launch, wanted, ids, set(self.there), self.now)
        self.there |= set(ids)

    @precondition(lambda self: self.there)
    @rule(data=st.data())
    def engine_is_lost(self, data: st.DataObject) -> None:
        self.there.discard(data.draw(st.sampled_from(sorted(self.there))))

    @invariant()
    def each_is_worth_what_was_given(self) -> None:
        for name, (ends, _, revoked) in getattr(self, "model", {}).items():
            grant = self.grants.of(*name)
            assert grant is not None
            if abs(ends - self.now) > 1e-3:
                assert enters(self.grants, grant, self.now) == (ends > self.now and not revoked)

    @invariant()
    def a_launch_never_has_more_engines_than_places(self) -> None:
        if hasattr(self, "launch"):
            assert len(self.launch.taken) <= 4
            assert len(self.there) <= 4


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
