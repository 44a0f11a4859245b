from __future__ import annotations

import pytest

from ipmpi import errors, serialize
from ipmpi.client.session.enginereply import EngineReply
from ipmpi.client.session.failures import error_from_name, raise_failures, rebuild_exception
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
