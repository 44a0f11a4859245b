"""Every message type on the wire: round trip, and nothing else gets through."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest
from msgspec.structs import fields

from ipmpi.ids import Ids
from ipmpi.protocol import messages as m

ALL: tuple[type[m.Message], ...] = get_args(m.AnyMessage)

VALUES: dict[Any, Any] = {
    int: 3,
    bool: True,
    float: 1.5,
    str: "text é",
    str | None: "n\n",
    bytes: b"\0\xff",
    list[int]: [0, 5, 70_000],
    list[float]: [0.5, -1e300],
    list[int] | None: [1],
    Ids: [0, 5, 70_000],
    Ids | None: [1, 2, 3],
    float | None: 0.25,
    int | None: 70_000,
    list[str] | None: ["7ab3", ""],
    list[str]: ["-n", "4"],
    list[bytes]: [b"k" * 16, b""],
    list[tuple[int, int]]: [(1, 0), (70_000, 3)],
    list[tuple[int, bytes]]: [(1, b""), (70_000, b"\x00\xff")],
    tuple[int, int] | None: (2, 1),
    list[m.EngineInfo]: [m.EngineInfo(0, 4, "host", 77)],
    list[m.OutputBlock]: [m.OutputBlock(m.STDERR, 70_000, [0, 5], b"text \xc3\xa9\n")],
    m.Death | None: m.Death(3, 4711, "host", 9, None, None, True, 7, 8, 9, "execute", 1.5, "text é", "stack"),
    m.TaskOptions: m.TaskOptions(b"op", "label", [b"k" * 16], after=[(1, 2)], follow=(1, 2), timeout=0.5),
    Any: {"a": [1, None, 2.5, b"x"], "b": "c"},
}


def example(kind: type[m.Message]) -> Any:
    # A constraint is beside the type.
    types = [
        get_args(field.type)[0] if hasattr(field.type, "__metadata__") else field.type for field in fields(kind)
    ]
    return kind(*[VALUES[each] for each in types])


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_round_trip(kind: type[m.Message]) -> None:
    message = example(kind)
    again = m.decode(m.encode(message))
    assert again == message
    assert type(again) is kind


def test_tags_are_unique_and_numbers() -> None:
    tags = [kind.__struct_config__.tag for kind in ALL]
    assert len(set(tags)) == len(tags)
    assert all(isinstance(tag, int) for tag in tags)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_message_has_a_docstring(kind: type[m.Message]) -> None:
    assert kind.__doc__


@pytest.mark.parametrize(
    "value",
    [
        [],
        [999, 1],
        ["GetIds", 1],
        [3, "1"],
        [3, 1, 2],
        [3],
        [3, None],
        {"id": 1},
        [40, [1, "2"]],
        [20.0, 1],
        3,
        [60, [[0, 1, "h"]], "", ""],
        [9, 1, [b"op"]],
        [9, 1, b"op"],
        [9, 1, ["op", "label"]],
        [9, 1, [b"op", "label", b"key"]],
        [9, 1, [b"op", "label", [], 0, 0, 1, False, None, None, False, [[1]]]],
        [9, 1, [b"op", "label", [], 0, 0, 1, False, None, None, False, [[1, 2, 3]]]],
        [9, 1, [b"op", "label", [], 0, 0, 1, False, "5"]],
        [9, 1, [b"op", "label", [], 0, 0, 1, False, None, None, False, [], None, "", None, False, "more"]],
        [63, 1, 0, [1, 2], b"", b"", 0.0],
        [65, 1, b"", None, "taken"],
    ],
    ids=str,
)
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(msgspec.DecodeError):
        m.decode(msgspec.msgpack.encode(value))


def test_messages_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        m.GetIds(1).id = 2  # type: ignore[misc]


def test_options_that_nobody_set_cost_nothing() -> None:
    """The controller makes them anew for each group; two groups share no list."""
    first, second = m.TaskOptions(b"op", "label"), m.TaskOptions(b"op", "label")
    assert first == second
    assert first.functions is not second.functions
    assert m.decode(m.encode(m.SubmitTasks(1, first))) == m.SubmitTasks(1, second)
    short = msgspec.msgpack.encode([9, 1, [b"op", "label"]])
    assert m.decode(short) == m.SubmitTasks(1, first)
