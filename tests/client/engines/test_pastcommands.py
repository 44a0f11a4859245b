"""Commands of the history as a user sees them, and the moments that may be named."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator

import pytest

from ipmpi import errors
from ipmpi.client import MultiEngineClient, PastCommand, PastCommands, ResultList
from ipmpi.client.display.ranksets import RankSet
from ipmpi.client.engines.pastcommands import moment
from tests.in_process import FIRST, InProcess, in_process, wait_until

GIVEN = datetime.datetime(2026, 11, 27, 18, 4).astimezone()
NOW = datetime.datetime(2026, 11, 28, 0, 10).timestamp()


def local(*parts: int) -> float:
    return datetime.datetime(*parts).timestamp()  # type: ignore[arg-type]


def past(**more: object) -> PastCommand:
    usual = PastCommand(
        "5-12", GIVEN, None, "laptop", "me", "there", "execute", "execute('a = 1')", "a = 1", RankSet(range(4)),
        RankSet(), RankSet(), "done",
    )  # fmt: skip
    return usual._replace(**more)


@pytest.mark.parametrize(
    ("more", "becomes"),
    [
        ({}, "done; given 2026-11-27 18:04 by me@laptop"),
        ({"state": "waiting", "running": RankSet(range(4))}, "waiting; given 2026-11-27 18:04 by me@laptop"),
        (
            {"state": "running", "running": RankSet([3]), "failed": RankSet([0, 1])},
            "failed on [0-1], running on [3]; given 2026-11-27 18:04 by me@laptop",
        ),
        ({"client": "gone"}, "done; given 2026-11-27 18:04 by me@laptop, which is gone"),
        (
            {"client": "this", "left_out": 2048},
            "done; given 2026-11-27 18:04 by this client; the first 2 KiB of its output are not kept",
        ),
        ({"user": "\x1b[2J"}, r"done; given 2026-11-27 18:04 by \x1b[2J@laptop"),
    ],
)
def test_it_is_one_line(more: dict[str, object], becomes: str) -> None:
    assert str(past(**more)) == f"5-12: execute('a = 1') on [0-3]: {becomes}"


def test_the_list_says_what_is_not_kept() -> None:
    assert repr(PastCommands()) == "no commands"
    assert repr(PastCommands([past(), past()], 1200)) == f"(1,200 older commands are not kept)\n{past()}\n{past()}"


@pytest.mark.parametrize(
    ("since", "when"),
    [
        (0, NOW),
        (90.5, NOW - 90.5),
        ("90s", NOW - 90),
        ("1.5h", NOW - 5400),
        ("15 m", NOW - 900),
        ("2d", NOW - 172_800),
        ("00:05", local(2026, 11, 28, 0, 5)),
        ("23:50", local(2026, 11, 27, 23, 50)),
        ("23:50:30", local(2026, 11, 27, 23, 50, 30)),
        ("2026-11-27", local(2026, 11, 27)),
        (" 2026-11-27 18:04 ", local(2026, 11, 27, 18, 4)),
        (GIVEN, GIVEN.timestamp()),
        ("last", 7.0),
    ],
)
def test_moments(since: object, when: float) -> None:
    assert moment(since, NOW, 7.0) == when


def test_if_nobody_is_known_to_have_left_nothing_is_hidden() -> None:
    assert moment("last", NOW, None) == 0.0


def test_what_is_no_moment_is_refused_with_examples() -> None:
    with pytest.raises(ValueError, match=r"since is a time \(10:30, .*, how long ago .*, or last, .*; not 'noon'"):
        moment("noon", NOW, None)


@pytest.fixture
def cluster() -> Iterator[InProcess]:
    with in_process(2) as cluster:
        yield cluster


def test_own_commands_are_there_and_their_numbers_on_engines_mean_what_they_did(cluster: InProcess) -> None:
    mec = cluster.mec()
    mec.execute("a = 1; a")
    mec.execute("b = 2; b", targets=1)
    first, second = mec.history()
    assert (first.client, first.state, first.source, second.source) == ("this", "done", "a = 1; a", "b = 2; b")
    assert list(second.engines) == [1]
    assert [each["number"] for each in mec.get_result(1)] == [1, 1]
    assert mec.get_result(2, targets=1).values == ["2"]
    assert mec.get_result(second).values == ["2"]
    assert mec.get_result(first.name).values == ["1", "1"]
    assert len(mec.history()) == 2, "asking again is no command"


def test_the_command_of_another_client_is_followed(cluster: InProcess) -> None:
    one, other = cluster.mec(), cluster.mec()
    FIRST.close()
    left = one.execute("from tests.in_process import first; first()", block=False)
    values = one.with_options(block=False).apply(abs, -3)
    wait_until(lambda: FIRST.arrived == 2, "both engines run it")
    running, waiting = other.history()
    assert (running.state, waiting.state, running.client) == ("running", "waiting", "there")
    pending, again = (other.get_result(each, block=False) for each in (running, waiting))
    assert not pending.done()
    FIRST.open()
    assert isinstance(pending.result(60), ResultList)
    assert pending.r.stdout == ["", ""] == left.r.stdout
    assert again.result(60) == [3, 3] == values.r


def test_errors_are_those_of_the_call(cluster: InProcess) -> None:
    one, other = cluster.mec(), cluster.mec()
    with pytest.raises(errors.CompositeError):
        one.execute("1 / 0", targets=1)
    (failed,) = other.history()
    assert (failed.state, list(failed.failed)) == ("failed", [1])
    with pytest.raises(errors.CompositeError) as caught:
        other.get_result(failed)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_what_is_not_there_is_said(cluster: InProcess) -> None:
    mec = cluster.mec()
    with pytest.raises(errors.ClientError, match=r"there is no command 9-9\. .*there is none; see mec\.history"):
        mec.get_result("9-9")
    mec.execute("a = 1")
    with pytest.raises(errors.ClientError, match=re.escape(f"{mec.history()[0].name} is the oldest; see")):
        mec.get_result("9-9")
    with pytest.raises(ValueError, match=r"the name of one in mec\.history\(\), such as '5-12'; not 'a'"):
        mec.get_result("a")
    with pytest.raises(ValueError, match="has its own engines: leave targets out"):
        mec.get_result(mec.history()[0], targets=0)


def test_a_timeout_of_this_client_does_not_end_the_command_of_another(cluster: InProcess) -> None:
    one, other = cluster.mec(), cluster.mec()
    FIRST.close()
    left = one.execute("from tests.in_process import first; first()", block=False)
    wait_until(lambda: FIRST.arrived == 2, "both engines run it")
    other.timeout = 0.01
    pending = other.get_result(other.history()[0], block=False)
    with pytest.raises(errors.ResultNotCompleted):
        pending.get_result(timeout=0.2)
    FIRST.open()
    assert pending.result(60).stdout == ["", ""] == left.r.stdout


def outputs(mec: MultiEngineClient, since: object) -> list[tuple[str, str]]:
    return [
        (each.label, "".join(block.text for block in each.output.blocks)) for each in mec.recent_outputs(since)
    ]


def test_output_since_a_moment(cluster: InProcess) -> None:
    one, other = cluster.mec(), cluster.mec()
    one.execute("print('theirs')", targets=0)
    other.execute("print('own')", targets=0)
    theirs, own = ("execute(\"print('theirs')\")", "theirs\n"), ("execute(\"print('own')\")", "own\n")
    assert outputs(other, "1h") == [theirs, own]
    assert outputs(other, datetime.datetime.now() - datetime.timedelta(hours=1)) == [theirs, own]
    assert outputs(other, 0) == []
    assert outputs(other, "last") == [theirs], "what this client has seen itself was not missed"
    assert [each.label for each in other.recent_outputs()] == [own[0]]
