"""S23 for the farm: a client that lies about tasks harms itself at most, and nobody else."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from ipmpi import limits
from ipmpi.protocol import messages as m
from ipmpi.protocol.operations import CallTaskOperation, Nothing, StringTaskOperation, encode
from ipmpi.protocol.packed import pack, unpack
from tests.security.cluster import Controller, controller as controller_at, engines, wait_until
from tests.security.farm import (
    FUNCTION,
    KEY,
    answer,
    clients,
    define,
    do,
    ids,
    is_turned_away,
    key_of,
    leave,
    options,
    other_is_served,
    outcomes,
    submit,
)
from tests.security.wire import Member


@pytest.mark.parametrize("how", ["cancel", "drop", "interrupt"])
def test_tasks_of_another_client_cannot_be_aborted(
    engine: Member, client: Member, other: Member, how: str
) -> None:
    client.say(m.AbortTasks(7, 1, b"", how))
    said = answer(client, 7)
    assert isinstance(said, m.Refused) or not said.value
    client.say(m.TaskStatus(8))
    status = answer(client, 8)
    assert isinstance(status, m.Reply)
    assert status.value["running"] == []
    other_is_served(engine, other)


def test_a_function_is_known_for_the_client_that_defined_it(engine: Member, client: Member, other: Member) -> None:
    define(other)
    other.ping()
    submit(client, 1, [b"x"], KEY)
    said = answer(client, 1)
    assert isinstance(said, m.Refused)
    assert "function" in said.text
    submit(other, 2, [b"x"], KEY)
    other.ping()
    other_is_served(engine, other)
    assert engine.hear(m.DefineFunction).key == KEY
    assert engine.hear(m.GiveTasks).options.functions == [KEY]


def test_forgetting_is_for_oneself_too(engine: Member, client: Member, other: Member) -> None:
    define(other)
    define(client)
    client.say(m.ForgetFunctions([KEY]))
    client.ping()
    submit(other, 2, [b"x"], KEY)
    other.ping()
    other_is_served(engine, other)
    assert engine.hear(m.DefineFunction).total == len(FUNCTION)
    assert engine.hear(m.GiveTasks).options.functions == [KEY]


def test_forgetting_one_clients_function_leaves_it_with_the_other_on_engines(
    engine: Member, client: Member, other: Member
) -> None:
    """Both use it on one engine; when one forgets it, the engine still runs the other's tasks."""
    other_is_served(engine, other)
    for member, group in ((client, 1), (other, 2)):
        define(member)
        submit(member, group, [b"x"], KEY)
        do(engine, engine.hear(m.GiveTasks))
        outcomes(member, 1)
    client.say(m.ForgetFunctions([KEY]))
    client.ping()
    submit(other, 3, [b"x"], KEY)
    messages: list[m.Message] = []
    while not messages or not isinstance(messages[-1], m.GiveTasks):
        messages.append(engine.hear(m.Message))
    known = True
    for message in messages:
        if isinstance(message, m.ForgetFunctions):
            known = known and KEY not in message.keys
        elif isinstance(message, m.DefineFunction):
            known = known or message.key == KEY
    assert known


@pytest.mark.parametrize("defined", ["not at all", "by half", "and forgotten"])
def test_a_function_that_is_not_there_is_not_waited_for(
    engine: Member, client: Member, other: Member, defined: str
) -> None:
    if defined == "by half":
        client.say(m.DefineFunction(KEY, 0, len(FUNCTION), [10]), body=[FUNCTION[:10]])
    elif defined == "and forgotten":
        define(client)
        client.say(m.ForgetFunctions([KEY]))
    submit(client, 1, [b"x"], KEY)
    said = answer(client, 1)
    assert isinstance(said, m.Refused)
    assert "function" in said.text
    other_is_served(engine, other)


PIECES = {
    "a piece that does not begin where the last one ended": [(KEY, 10, 30, b"0123456789")],
    "a negative offset": [(KEY, -1, 30, b"0123456789")],
    "more than was announced": [(KEY, 0, 5, b"0123456789")],
    "more than was announced, in two pieces": [(KEY, 0, 12, b"0123456789"), (KEY, 10, 12, b"0123456789")],
    "the same piece twice": [(KEY, 0, 30, b"0123456789"), (KEY, 0, 30, b"0123456789")],
    "a total that changes": [(KEY, 0, 30, b"0123456789"), (KEY, 10, 31, b"0123456789")],
    "a negative total": [(KEY, 0, -1, b"")],
    "a total past the limit": [(KEY, 0, limits.FUNCTION + 1, b"0123456789")],
    "a total of 2^63": [(KEY, 0, (1 << 63) - 1, b"0123456789")],
    "two functions at once": [
        (KEY, 0, 30, b"0123456789"),
        (bytes(16), 0, 30, b"01"),
        (KEY, 10, 30, b"0123456789"),
    ],
    "bytes that are not those of the key": [(KEY, 0, 10, b"0123456789")],
    "an empty key": [(b"", 0, 10, b"0123456789")],
    "a key of a million bytes": [(bytes(1_000_000), 0, 10, b"0123456789")],
}


@pytest.mark.parametrize("case", PIECES)
def test_impossible_definitions_do_no_harm(engine: Member, client: Member, other: Member, case: str) -> None:
    """There is no number to refuse them by: the link ends, or tasks that name the function are refused."""
    for key, offset, total, body in PIECES[case]:
        client.say(m.DefineFunction(key, offset, total, [len(body)] if body else []), body=[body] if body else [])
    submit(client, 1, [b"x"], PIECES[case][0][0])
    assert is_turned_away(client, 1)
    other_is_served(engine, other)


AFTER = {
    "its own group": (2, 0),
    "a later group": (3, 0),
    "a group of nobody": (77, 0),
    "a negative group": (-1, 0),
    "a task that its group has not": (1, 1),
    "a negative task": (1, -1),
    "task 2^63": (1, (1 << 63) - 1),
}


@pytest.mark.parametrize("how", ["after", "follow"])
@pytest.mark.parametrize("case", AFTER)
def test_impossible_dependencies_are_refused(
    engine: Member, client: Member, other: Member, case: str, how: str
) -> None:
    submit(client, 1, [b"parent"])
    named = AFTER[case]
    submit(client, 2, [b"child"], **{how: named if how == "follow" else [named]})
    said = answer(client, 2)
    assert isinstance(said, m.Refused)
    assert said.error == "DependencyError"
    client.say(m.AbortTasks(3, 1, b"", "cancel"))
    answer(client, 3)
    other_is_served(engine, other)


@pytest.mark.parametrize("how", ["after", "follow"])
def test_a_task_of_another_client_is_nothing_to_wait_for(
    engine: Member, client: Member, other: Member, how: str
) -> None:
    """Both number their groups: 1 of the other is unknown here, and its end must not start anything here."""
    submit(client, 5, [b"child"], **{how: (1, 0) if how == "follow" else [(1, 0)]})
    said = answer(client, 5)
    assert isinstance(said, m.Refused)
    assert said.error == "DependencyError"
    other_is_served(engine, other)


MANY = limits.TASKS_PER_MESSAGE + 1
SUBMITS: dict[str, tuple[m.SubmitTasks, list[bytes]]] = {
    "lengths of more than the body": (m.SubmitTasks(1, options(), pack([3, 4]), [6]), [b"abcdef"]),
    "lengths of less than the body": (m.SubmitTasks(1, options(), pack([3, 2]), [6]), [b"abcdef"]),
    "lengths, and no body": (m.SubmitTasks(1, options(), pack([3])), []),
    "lengths whose sum is right modulo 2^32": (
        m.SubmitTasks(1, options(), pack([2**32 - 1, 7]), [6]),
        [b"abcdef"],
    ),
    "lengths of 5 bytes": (m.SubmitTasks(1, options(), bytes(5)), []),
    "lengths of 3 bytes": (m.SubmitTasks(1, options(), bytes(3)), []),
    "too many tasks": (m.SubmitTasks(1, options(), bytes(4 * MANY)), []),
    "400,000 tasks": (m.SubmitTasks(1, options(), bytes(1_600_000)), []),
    "no rank": (m.SubmitTasks(1, options(width=0), bytes(4)), []),
    "minus one rank": (m.SubmitTasks(1, options(width=-1), bytes(4)), []),
    "fewer than no retries": (m.SubmitTasks(1, options(retries=-1), bytes(4)), []),
    "a million million ranks": (m.SubmitTasks(1, options(width=10**12), bytes(4)), []),
    "a million million retries": (m.SubmitTasks(1, options(retries=10**12), bytes(4)), []),
    "a priority of more than 32 bits": (m.SubmitTasks(1, options(priority=2**31), bytes(4)), []),
    "a timeout that is no number": (m.SubmitTasks(1, options(timeout=math.nan), bytes(4)), []),
    "a negative timeout": (m.SubmitTasks(1, options(timeout=-1.0), bytes(4)), []),
    "seconds expected that are no number": (m.SubmitTasks(1, options(expected=math.nan), bytes(4)), []),
    "minus one second expected": (m.SubmitTasks(1, options(expected=-1.0), bytes(4)), []),
    "a function without a key": (m.SubmitTasks(1, options(b""), bytes(4)), []),
}


@pytest.mark.parametrize("case", SUBMITS)
def test_impossible_groups_are_turned_away(engine: Member, client: Member, other: Member, case: str) -> None:
    message, body = SUBMITS[case]
    client.say(message, body=body)
    assert is_turned_away(client, 1)
    other_is_served(engine, other)


STRANGE: dict[str, m.TaskOptions] = {
    "priority 2^63 - 1": options(priority=(1 << 63) - 1),
    "priority -2^63": options(priority=-(1 << 63)),
    "for ever": options(timeout=math.inf, expected=math.inf),
    "more retries than there are seconds": options(retries=(1 << 63) - 1),
    "a long label": m.TaskOptions(b"operation", "y" * 1_000_000),
    "a long operation": m.TaskOptions(bytes(1_500_000), "task"),
    "after the same task 10,000 times": options(after=[(1, 0)] * 10_000),
    "more ranks than there can be": options(width=(1 << 63) - 1),
}


@pytest.mark.parametrize("case", STRANGE)
def test_strange_options_do_no_harm(engine: Member, client: Member, other: Member, case: str) -> None:
    """Refused or accepted: others are served, and the client can take back what it did."""
    submit(client, 1, [b"parent"])
    client.say(m.SubmitTasks(2, STRANGE[case], bytes(4)))
    client.say(m.AbortTasks(3, 2, b"", "cancel"), m.AbortTasks(4, 1, b"", "cancel"))
    with suppress(EOFError):
        answer(client, 4)
    other_is_served(engine, other)


def test_a_group_that_is_there_is_not_submitted_again(engine: Member, client: Member, other: Member) -> None:
    submit(client, 9, [b"first"])
    submit(client, 9, [b"second"] * 2)
    assert is_turned_away(client, 9)
    other.say(m.TaskStatus(5))
    status = answer(other, 5)
    assert isinstance(status, m.Reply)
    assert status.value["scheduled"] <= 4


ABORTS = {
    "a task that the group has not": (1, pack([0, 77]), "cancel"),
    "task 2^32 - 1": (1, pack([2**32 - 1]), "interrupt"),
    "numbers of 5 bytes": (1, bytes(5), "drop"),
    "one task 100,000 times": (1, bytes(400_000), "cancel"),
    "a group of nobody": (77, b"", "cancel"),
    "a way that there is not": (1, b"", "eat"),
}


@pytest.mark.parametrize("case", ABORTS)
def test_impossible_aborts_do_no_harm(engine: Member, client: Member, other: Member, case: str) -> None:
    submit(client, 1, [b"x"])
    client.say(m.AbortTasks(2, *ABORTS[case]))
    client.say(m.AbortTasks(3, 1, b"", "cancel"))
    with suppress(EOFError):
        answer(client, 3)
    other_is_served(engine, other)


def test_a_client_that_leaves_takes_its_tasks_and_functions_along(
    controller: Controller, engine: Member, other: Member
) -> None:
    with Member(controller.furl("tc")) as client:
        define(client)
        submit(client, 1, [b"x"] * 3, KEY)
        client.ping()
        leave(client)
    wait_until(lambda: clients(other) == ["tc"], "the end of the client's session")
    other_is_served(engine, other)
    submit(other, 2, [b"x"], KEY)
    assert isinstance(answer(other, 2), m.Refused)
    engine.ping()
    assert not [message for message in engine._arrived if isinstance(message, m.GiveTasks)]


def test_a_reservation_is_released_by_who_made_it(controller: Controller, engine: Member, other: Member) -> None:
    with Member(controller.furl("mec")) as holder, Member(controller.furl("mec")) as stranger:
        holder.say(m.Reserve(1, None))
        ids = answer(holder, 1)
        assert isinstance(ids, m.Reply)
        assert engine.hear(m.ReserveRanks) == m.ReserveRanks([0], True)
        for number in range(2, 5):
            stranger.say(m.Release(number, ids.value))
            answer(stranger, number)
        stranger.say(m.Reserve(5, [60_000]), m.Release(6, [-1]))
        assert isinstance(answer(stranger, 5), m.Refused)
        answer(stranger, 6)
        engine.say(m.WantTasks(10))
        engine.ping()
        assert not engine._arrived, "a reserved engine gets no task"
        leave(holder, stranger)
    assert engine.hear(m.ReserveRanks) == m.ReserveRanks([0], False)
    other_is_served(engine, other)


def called(function: bytes, payload: bytes, **more: Any) -> tuple[bytes, list[bytes], bytes]:
    return encode(CallTaskOperation(function, **more)), [function], payload


NO_PICKLE = b"this is no pickle"
POW = pickle.dumps(pow)
RUBBISH: dict[str, tuple[bytes, list[bytes], bytes]] = {
    "an operation that is none": (b"rubbish", [], b""),
    "an operation of another kind": (encode(Nothing()), [], b""),
    "an operation whose text is not UTF-8": (b"\x93\xabstring_task\xa2\xff\xfe\x90", [], b""),
    "a function that was not sent along": called(bytes(16), pickle.dumps(((2, 3), {}))),
    "a function that is no pickle": called(key_of(NO_PICKLE), pickle.dumps(((2, 3), {}))),
    "a function that cannot be called": called(key_of(pickle.dumps(5)), pickle.dumps(((2, 3), {}))),
    "arguments that are no pickle": called(key_of(POW), NO_PICKLE),
    "arguments that are a number": called(key_of(POW), pickle.dumps(5)),
    "arguments that are three": called(key_of(POW), pickle.dumps((1, 2, 3))),
    "keywords that are none": called(key_of(POW), pickle.dumps(((2, 3), 4))),
    "no arguments": called(key_of(POW), b""),
    "spread arguments that are a number": called(key_of(POW), pickle.dumps(5), spread=True),
    "names that are a list": (encode(StringTaskOperation("a = 1", ["a"])), [], pickle.dumps([1])),
    "a source that is none": (encode(StringTaskOperation("a = (", ["a"])), [], b""),
    "a source with a NUL": (encode(StringTaskOperation("a = 1\0", ["a"])), [], b""),
}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    """A controller with a real engine."""
    with controller_at(tmp_path_factory.mktemp("real")) as running, engines(running.home, 1):
        running.wait_engines(1)
        yield running


@pytest.mark.parametrize("case", RUBBISH)
def test_rubbish_fails_as_a_task_and_the_engine_lives(real: Controller, case: str) -> None:
    operation, keys, payload = RUBBISH[case]
    with Member(real.furl("tc")) as client:
        for function in (NO_PICKLE, POW, pickle.dumps(5)):
            define(client, function)
        known = [key for key in keys if key != bytes(16)]
        terms = m.TaskOptions(operation, "rubbish", known)
        body = payload * 2
        client.say(m.SubmitTasks(1, terms, pack([len(payload)] * 2), [len(body)]), body=[body])
        failed = 0
        while failed < 2:
            message = client.hear(m.TasksDone)
            failed += len(unpack(message.failed))
            assert len(message.failed) == len(message.indices)
        good, _, arguments = called(key_of(POW), pickle.dumps(((2, 3), {})))
        terms, size = m.TaskOptions(good, "pow", [key_of(POW)]), len(arguments)
        client.say(m.SubmitTasks(2, terms, pack([size]), [size]), body=[arguments])
        assert not client.hear(m.TasksDone).failed
        assert ids(client) == [0]
        leave(client)


@pytest.mark.parametrize("how", ["leaves", "breaks off and leaves", "sends another size"])
def test_a_body_that_never_comes_frees_the_engine_for_others(real: Controller, how: str) -> None:
    """The only engine waits for it; when it is clear that it will not come, the engine does something else."""
    good, _, arguments = called(key_of(POW), pickle.dumps(((2, 3), {})))
    terms, size = m.TaskOptions(good, "pow", [key_of(POW)]), 1 << 20
    with Member(real.furl("tc")) as client, Member(real.furl("tc")) as other:
        define(client, POW)
        stream = client.connection.send_streamed(m.SubmitTasks(1, terms, b"", [size]), size)
        client.ping()
        wait_until(lambda: client.ping() or stream.credit, "the engine to ask")
        client.connection.feed(stream, bytes(1000))
        if how != "leaves":
            client.connection.abort(stream)
            client.ping()
            assert client.hear(m.SendBodyAgain).id == 1
        if how == "sends another size":
            client.connection.send_streamed(m.BodyAgain(1, [size + 1]), size + 1)
            client.ping()
        define(other, POW)
        other.say(m.SubmitTasks(1, terms, pack([len(arguments)]), [len(arguments)]), body=[arguments])
        other.ping()
        leave(client)
        assert not other.hear(m.TasksDone).failed
        leave(other)
