"""Launch furls are good on the nodes of their launch: engines that are elsewhere have to be admitted."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ipmpi.client import MultiEngineClient
from ipmpi.furl import Furl
from ipmpi.protocol import messages as m
from tests.security.cluster import Controller, controller, launch, wait_until
from tests.security.wire import Member

pytestmark = [pytest.mark.timeout(120)]
WAIT = 60.0


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Controller]:
    with controller(tmp_path) as found:
        yield found
        assert "Traceback" not in found.log(), found.log()[-3000:]


@pytest.fixture
def mec(running: Controller) -> Iterator[MultiEngineClient]:
    with MultiEngineClient(str(running.furl_file("mec"))) as client:
        yield client


@contextmanager
def engine(address: Furl, *hosts: str, wanted: int = 0, node: str = "") -> Iterator[Member]:
    """An engine set that has asked to be registered; one engine for each host."""
    with Member(address) as member:
        engines = [m.EngineInfo(k, wanted + k, host, 1, node) for k, host in enumerate(hosts)]
        member.say(m.Register(engines, "", "", user=os.environ.get("USER", "")))
        member.ping()
        yield member


def has_asked(running: Controller, count: int = 1) -> int:
    """The number of the last question where the launch runs, once there are so many."""
    question = running.wait_told(lambda record: "where" in record and record["where"][1] >= count)["where"]
    assert question[0] == "default-1"
    return int(question[1])


def answer(running: Controller, nodes: list[str] | None, question: int) -> None:
    running.is_told({"runs": ["default-1", nodes, question]})


def notice(mec: MultiEngineClient, text: str) -> str:
    def found() -> str | None:
        return next((each for each in mec._calls.session.notices if text in each), None)

    return str(wait_until(found, f"a notice with {text!r}", WAIT))


@pytest.mark.parametrize(
    ("nodes", "hosts", "node"),
    [
        (["n1", "n2"], ["n1", "n2"], ""),
        (["n1.cluster.local"], ["n1"], ""),
        (["n1"], ["N1.hpc.example.org"], ""),
        (["compute-a"], ["ip-10-0-0-7"], "compute-a"),
        (None, ["anywhere"], ""),
    ],
    ids=["same", "with a domain", "another domain, in capitals", "by the name of the batch system", "not known"],
)
def test_engines_on_the_nodes_of_their_launch_are_let_in(
    running: Controller, nodes: list[str] | None, hosts: list[str], node: str
) -> None:
    with engine(launch(running, 2, nodes=nodes), *hosts, node=node) as member:
        assert member.hear(m.Registered).ids[0] == 0


def test_engines_elsewhere_have_to_be_admitted(running: Controller, mec: MultiEngineClient) -> None:
    address = launch(running, 3, nodes=["n1", "n2"])
    with (
        engine(address, "n1", wanted=0) as good,
        engine(address, "n9", wanted=1) as mine,
        engine(address, "n1", "evil\n", wanted=1) as thief,
    ):
        good.hear(m.Registered)
        waiting = {each["hosts"][0]: each for each in mec.waiting_engines()}
        assert len(waiting) == 2
        assert mec.get_ids() == [0]
        number = waiting["n9"]["set"]
        told = notice(mec, f"engine set {number} asks")
        assert re.sub(r"user \S+, from \S+;", "user U, from A;", told) == (
            f"engine set {number} asks to be admitted: 1 engine on n9 (user U, from A; the launch default-1 runs "
            "on n1, n2, and n9 is not among these. If that is only another name of the same machine, "
            f"start with --any-node). Yes: mec.admit({number}) or ipcluster admit, no: mec.turn_away({number})"
        )
        assert running.wait_told(lambda record: "waits" in record and "n9" in record["waits"])["waits"] == told
        mec.admit(number)
        assert mine.hear(m.Registered).ids == [1]
        mec.turn_away()
        assert "does not admit" in thief.hear(m.Goodbye).reason
        assert mec.get_ids() == [0, 1]


def test_who_waits_is_let_in_when_the_job_runs_there(running: Controller, mec: MultiEngineClient) -> None:
    address = launch(running, 2, nodes=["n1"])
    with engine(address, "n2", wanted=0) as moved, engine(address, "n3", wanted=1):
        assert len(mec.waiting_engines()) == 2
        answer(running, ["n2"], 0)  # the job was started again on another node
        assert moved.hear(m.Registered).ids == [0]
        assert [each["hosts"] for each in mec.waiting_engines()] == [["n3"]]


def test_one_that_comes_before_its_job_runs_has_to_be_admitted(
    running: Controller, mec: MultiEngineClient
) -> None:
    address = launch(running, 1, asks=True)
    with engine(address, "n9"):
        assert mec.waiting_engines() == []
        answer(running, [], has_asked(running))
        assert "the job of the launch default-1 runs on no node now: it waits in the queue" in notice(
            mec, "admitted"
        )
        assert len(mec.waiting_engines()) == 1
        assert mec.get_ids() == []


def test_engines_of_a_job_wait_until_its_nodes_are_known(running: Controller, mec: MultiEngineClient) -> None:
    address = launch(running, 3, asks=True)
    with engine(address, "n1", wanted=0) as first:
        question = has_asked(running)
        assert mec.get_ids() == []
        answer(running, ["n1"], question)
        assert first.hear(m.Registered).ids == [0]
        with engine(address, "n1", wanted=1) as second:  # its nodes are known
            assert second.hear(m.Registered).ids == [1]
            with engine(address, "n2", wanted=2) as third:  # an array has begun to run elsewhere, too
                question = has_asked(running, question + 1)
                answer(running, ["n1"], question - 1)  # to the question before
                third.ping()
                assert mec.waiting_engines() == []
                answer(running, ["n1", "n2"], question)
                assert third.hear(m.Registered).ids == [2]


def test_nobody_is_kept_out_by_a_batch_system_that_does_not_answer(
    running: Controller, mec: MultiEngineClient
) -> None:
    with engine(launch(running, 1, asks=True), "n1") as member:
        answer(running, None, has_asked(running))
        assert member.hear(m.Registered).ids == [0]
        assert "the batch system does not say where the launch default-1 runs" in notice(mec, "was let in without")


def test_engines_that_came_before_their_nodes_were_known_are_looked_at_then(
    running: Controller, mec: MultiEngineClient
) -> None:
    address = launch(running, 2)
    with engine(address, "n1", wanted=0) as one, engine(address, "n9", wanted=1) as other:
        one.hear(m.Registered)
        other.hear(m.Registered)
        mec._calls.session.request(
            lambda i: m.GiveFurl(i, "engine", "default-1", places=2, nodes=["n1", "n2"])
        ).result(WAIT)
        told = notice(mec, "is not where it is expected")
        assert "the launch default-1 runs on n1, n2, and n9 is not among these" in told
        assert len([each for each in mec._calls.session.notices if "expected" in each]) == 1


def test_one_that_has_left_is_not_asked_about_any_more(running: Controller, mec: MultiEngineClient) -> None:
    address = launch(running, 1, asks=True)
    with engine(address, "n1") as member:
        question = has_asked(running)
        member.say(m.Goodbye("it ends"))
        member.close()
        wait_until(lambda: "is gone" in running.log(), "the end of a session", WAIT)
    answer(running, ["n1"], question)
    with engine(address, "n1") as again:
        assert again.hear(m.Registered).ids == [0]
