"""Exceptions whose constructors want other things than their ``args``: they arrive as what they were."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from ipmpi import raised, serialize


class Diverged(Exception):
    def __init__(self, step: int, *, residual: float) -> None:
        super().__init__(f"diverged in step {step}")
        self.step, self.residual = step, residual


class NoArguments(ValueError):
    def __init__(self) -> None:
        super().__init__("there is nothing")


class NeverCallsSuper(Exception):
    def __init__(self, text: str, more: object) -> None:
        self.text = text
        self.more = more

    def __str__(self) -> str:
        return f"{self.text}, {self.more}"


class Missing(OSError):
    def __init__(self, where: str, *, code: int) -> None:
        super().__init__(code, "is missing", where)
        self.where = where


class Slotted(Exception):
    __slots__ = ("__secret", "place")

    def __init__(self, place: int, *, secret: int) -> None:
        super().__init__("slots")
        self.place = place
        self.__secret = secret

    @property
    def secret(self) -> int:
        return self.__secret


class NewAndInit(Exception):
    def __new__(cls, one: int, two: int) -> NewAndInit:
        return super().__new__(cls, one, two)

    def __init__(self, one: int, two: int) -> None:
        super().__init__(one)
        self.two = two


class Stopped(StopIteration):
    def __init__(self, *, why: str) -> None:
        super().__init__(7)
        self.why = why


class Frozen(Exception):
    def __init__(self, *, number: int) -> None:
        super().__init__("frozen")
        object.__setattr__(self, "number", number)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("frozen")


class Own(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(one)
        self.two = two

    def __reduce__(self) -> Any:
        return Own, (self.args[0], self.two + 1)


def sent(error: BaseException) -> Any:
    return serialize.loads(serialize.dumps(error))


@pytest.mark.parametrize(
    ("error", "attributes"),
    [
        (Diverged(7, residual=1e9), {"step": 7, "residual": 1e9}),
        (NoArguments(), {}),
        (NeverCallsSuper("a", 5), {"text": "a", "more": 5}),
        (Missing("/data", code=2), {"where": "/data", "errno": 2, "filename": "/data", "strerror": "is missing"}),
        (Slotted(3, secret=4), {"place": 3, "secret": 4}),
        (NewAndInit(1, 2), {"two": 2}),
        (Stopped(why="end"), {"why": "end", "value": 7}),
        (Frozen(number=5), {"number": 5}),
        (Own(1, 2), {"two": 3}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_class_text_args_and_attributes_arrive(error: BaseException, attributes: dict[str, Any]) -> None:
    got = sent(error)
    assert type(got) is type(error)
    assert got.args == error.args
    assert str(got) == str(error)
    assert {name: getattr(got, name) for name in attributes} == attributes


def test_one_such_member_leaves_a_group_readable() -> None:
    ExceptionGroup = pytest.importorskip("builtins").__dict__.get("ExceptionGroup")
    if ExceptionGroup is None:
        pytest.skip("Python 3.10 has no exception groups")
    got = sent(ExceptionGroup("two", [ValueError("one"), Diverged(7, residual=1e9)]))
    assert [type(each) for each in got.exceptions] == [ValueError, Diverged]
    assert got.exceptions[1].step == 7


def test_notes_arrive() -> None:
    error = Diverged(1, residual=2)
    error.__dict__["__notes__"] = ["in the morning"]
    assert sent(error).__notes__ == ["in the morning"]


def test_attributes_that_cannot_be_sent_are_left_and_named() -> None:
    error = Diverged(1, residual=2)
    error.lock = threading.Lock()  # type: ignore[attr-defined]

    def is_sent(value: object) -> bool:
        return not isinstance(value, type(threading.Lock()))

    rest = raised.without(error, is_sent)
    assert isinstance(rest, Diverged)
    assert (rest.step, rest.residual, str(rest)) == (1, 2, str(error))
    assert not hasattr(rest, "lock")
    assert "lock of this exception cannot be pickled" in rest.__notes__[0]  # type: ignore[attr-defined]
    assert raised.without(Diverged(1, residual=2), is_sent) is None
