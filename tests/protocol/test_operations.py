"""Every operation and outcome on the wire."""

from __future__ import annotations

from typing import Any, Literal, get_args

import msgspec
import pytest

from ipmpi.protocol import operations as o

OPERATIONS = get_args(o.Operation)
TASK_OPERATIONS = get_args(o.TaskOperation)
OUTCOMES = get_args(o.Outcome)

VALUES: dict[Any, Any] = {
    int: 3,
    float: 1.5,
    bool: True,
    str: "text é",
    bytes: b"\0\xff",
    list[str]: ["a", "b"],
    list[str] | None: ["k"],
    int | None: 5,
    str | None: "shown",
    o.Display | None: o.Display({"text/html": "<b>1</b>"}, {"image/png": b"\x89PNG"}),
    o.TakeSnapshot | None: o.TakeSnapshot("/f", "c", "k", ["a"]),
    Literal["revoke", "ask", "replace"]: "ask",
    o.Watch | None: o.Watch("T", 10, "max", True),
    o.Executed | None: o.Executed(1, "pp", "repr", "source"),
}


def example(kind: Any) -> Any:
    return kind(*[VALUES[field.type] for field in msgspec.structs.fields(kind)])


@pytest.mark.parametrize("kind", OPERATIONS, ids=lambda kind: kind.__name__)
def test_operation_round_trip(kind: Any) -> None:
    operation = example(kind)
    assert o.decode_operation(o.encode(operation)) == operation
    with pytest.raises(msgspec.DecodeError):
        o.decode_outcome(o.encode(operation))


@pytest.mark.parametrize("kind", TASK_OPERATIONS, ids=lambda kind: kind.__name__)
def test_task_operation_round_trip(kind: Any) -> None:
    operation = example(kind)
    assert o.decode_task_operation(o.encode(operation)) == operation
    for other in (o.decode_operation, o.decode_outcome):
        with pytest.raises(msgspec.DecodeError):
            other(o.encode(operation))


@pytest.mark.parametrize("kind", OPERATIONS, ids=lambda kind: kind.__name__)
def test_a_command_is_no_task(kind: Any) -> None:
    with pytest.raises(msgspec.DecodeError):
        o.decode_task_operation(o.encode(example(kind)))


@pytest.mark.parametrize("kind", OUTCOMES, ids=lambda kind: kind.__name__)
def test_outcome_round_trip(kind: Any) -> None:
    outcome = example(kind)
    assert o.decode_outcome(o.encode(outcome)) == outcome
    with pytest.raises(msgspec.DecodeError):
        o.decode_operation(o.encode(outcome))


def test_tags_are_unique() -> None:
    tags = [kind.__struct_config__.tag for kind in OPERATIONS + TASK_OPERATIONS + OUTCOMES]
    assert len(set(tags)) == len(tags)


def test_equal_outcomes_have_equal_bytes() -> None:
    # Folding compares bytes.
    assert o.encode(o.Executed(1, "x")) == o.encode(o.Executed(1, "x"))
    assert o.encode(o.Nothing()) == o.encode(o.Nothing())


@pytest.mark.parametrize(
    "value", [[], ["rm"], ["execute"], ["execute", 3], ["pull", "x"], {"execute": 1}], ids=str
)
def test_anything_else_is_refused(value: object) -> None:
    for decode in (o.decode_operation, o.decode_task_operation):
        with pytest.raises(msgspec.DecodeError):
            decode(msgspec.msgpack.encode(value))


@pytest.mark.parametrize(
    "value", [["call_task"], ["call_task", "text"], ["call_task", b"k", 1], ["string_task", "a=1"]], ids=str
)
def test_tasks_that_are_none(value: object) -> None:
    with pytest.raises(msgspec.DecodeError):
        o.decode_task_operation(msgspec.msgpack.encode(value))


@pytest.mark.parametrize(
    ("decode", "data"),
    [
        (o.decode_operation, b"\x92\xa7execute\xa2\xff\xfe"),
        (o.decode_task_operation, b"\x93\xabstring_task\xa2\xff\xfe\x90"),
        (o.decode_outcome, b"\x94\xa6failed\xa2\xff\xfe\xa0\xa0"),
    ],
)
def test_text_that_is_not_utf_8_is_refused_in_the_same_way(decode: Any, data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError, match="UTF-8"):
        decode(data)
