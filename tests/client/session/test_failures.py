from __future__ import annotations

import pickle

import pytest

from ipmpi import errors, serialize
from ipmpi.client.session.enginereply import EngineReply
from ipmpi.client.session.failures import error_from_name, raise_failures, rebuild_exception
from ipmpi.protocol.deaths import Death
from ipmpi.protocol.operations import Failed, Nothing


class Unfriendly(Exception):
    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> None:
        raise RuntimeError("no attributes")


class CannotBeRebuilt(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} {two}")

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return CannotBeRebuilt, self.args  # which its constructor does not take


def test_a_pickled_exception_comes_back_with_its_origin() -> None:
    body = serialize.dumps(KeyError("gone"))
    value = rebuild_exception(Failed("KeyError", "'gone'", "Traceback ..."), body, 3, "pull", ("a",))
    assert isinstance(value, KeyError)
    assert value.args == ("gone",)
    assert value._ipython_engine_info == {"engineid": 3, "method": "pull", "args": ("a",)}
    assert value._ipython_traceback_text == "Traceback ..."


@pytest.mark.parametrize(
    "body", [[], [b"not a pickle"], serialize.dumps("not an exception"), serialize.dumps(CannotBeRebuilt(1, 2))]
)
def test_without_a_usable_pickle_the_description_says_what_it_was(body: list[serialize.Buffer]) -> None:
    value = rebuild_exception(Failed("mine.Special", "something", ""), body, 0, "execute")
    assert isinstance(value, errors.UnpickleableException)
    assert str(value) == "mine.Special: something"


def test_builtin_exceptions_and_our_own_are_made_from_their_names() -> None:
    assert type(error_from_name("ZeroDivisionError", "x")) is ZeroDivisionError
    assert type(error_from_name("builtins.OSError", "x")) is OSError
    assert type(error_from_name("QueueCleared", "x")) is errors.QueueCleared
    assert type(error_from_name("ipmpi.errors.EngineLost", "x")) is errors.EngineLost
    assert type(error_from_name("UnicodeDecodeError", "x")) is errors.UnpickleableException
    assert type(error_from_name("print", "x")) is errors.UnpickleableException


def test_an_exception_that_refuses_attributes_is_raised_all_the_same() -> None:
    value = rebuild_exception(Failed("Unfriendly", "x", ""), serialize.dumps(Unfriendly("x")), 0, "execute")
    assert isinstance(value, Unfriendly)


SEGFAULT = (
    "Fatal Python error: Segmentation fault\n\nCurrent thread 0x1 (most recent call first):\n"
    '  File "/usr/lib/python3.11/ctypes/__init__.py", line 519 in string_at\n  File "heat.py", line 41 in step'
)


def lost(death: Death | None) -> errors.CompositeError:
    text = "engine 3 (rank 3, pid 4711 on n3) is gone: it was killed"
    reply = EngineReply(3, False, Nothing(), [], ("EngineLost", text), death=death)
    with pytest.raises(errors.CompositeError) as caught:
        raise_failures([reply], "execute")
    return caught.value


def test_a_lost_engine_says_to_programs_what_is_known_of_its_end() -> None:
    death = Death(3, 4711, "n3", 11, None, None, False, 7, 8, 9, "execute", 1.5, "one\ntwo", SEGFAULT)
    composite = lost(death)
    error = pickle.loads(pickle.dumps(composite.elist[0][1]))
    assert isinstance(error, errors.EngineLost)
    assert (error.rank, error.pid, error.host, error.signal) == (3, 4711, "n3", "SIGSEGV")
    assert (error.exit_code, error.abort_code, error.oom_killed) == (None, None, False)
    assert (error.peak_rss, error.memory_used, error.memory_limit) == (7, 8, 9)
    assert (error.ran, error.seconds, error.printed, error.stack) == ("execute", 1.5, "one\ntwo", SEGFAULT)
    told = composite.render()
    assert 'File "heat.py", line 41, in step' in told, "where the user's code was"
    assert "| two" not in told, "it was shown when it was printed"
    assert "[3] Traceback" in told
    assert "The last lines that it printed:\n    | one\n    | two\n" in composite.render(all=True)


def test_of_an_engine_whose_node_is_lost_only_the_place_is_known() -> None:
    composite = lost(Death(3, 4711, "n3"))
    error = composite.elist[0][1]
    assert isinstance(error, errors.EngineLost)
    assert (error.rank, error.host, error.signal, error.oom_killed, error.peak_rss) == (3, "n3", None, None, None)
    assert composite.render().splitlines()[1:] == [f"[3] EngineLost: {error}"]
    assert lost(None).render() == composite.render(), "as where no process has ended"


def test_all_failures_of_a_call_come_together() -> None:
    replies = [
        EngineReply(0, False, Failed("ZeroDivisionError", "division by zero", "tb 0"), [], None),
        EngineReply(1, True, Nothing(), [], None),
        EngineReply(2, False, Nothing(), [], ("QueueCleared", "cleared by 1/0")),
    ]
    with pytest.raises(errors.CompositeError) as caught:
        raise_failures(replies, "execute")
    assert str(caught.value) == (
        "one or more exceptions from call to method: execute\n"
        "[0:execute]: ZeroDivisionError: division by zero\n"
        "[2:execute]: QueueCleared: cleared by 1/0"
    )
    raise_failures(replies[1:2], "execute")
