"""Every operation and outcome on the wire."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest

from ipmpi.protocol import operations as o

OPERATIONS = get_args(o.Operation)
OUTCOMES = get_args(o.Outcome)

VALUES: dict[Any, Any] = {
    int: 3,
    bool: True,
    str: "text é",
    list[str]: ["a", "b"],
    list[str] | None: ["k"],
    int | None: 5,
    str | None: "shown",
    o.Executed | None: o.Executed(1, "out", "err", "pp", "repr", "source"),
}


def example(kind: Any) -> Any:
    return kind(*[VALUES[field.type] for field in msgspec.structs.fields(kind)])


@pytest.mark.parametrize("kind", OPERATIONS, ids=lambda kind: kind.__name__)
def test_operation_round_trip(kind: Any) -> None:
    operation = example(kind)
    assert o.decode_operation(o.encode(operation)) == operation
    with pytest.raises(msgspec.DecodeError):
        o.decode_outcome(o.encode(operation))


@pytest.mark.parametrize("kind", OUTCOMES, ids=lambda kind: kind.__name__)
def test_outcome_round_trip(kind: Any) -> None:
    outcome = example(kind)
    assert o.decode_outcome(o.encode(outcome)) == outcome
    with pytest.raises(msgspec.DecodeError):
        o.decode_operation(o.encode(outcome))


def test_tags_are_unique() -> None:
    tags = [kind.__struct_config__.tag for kind in OPERATIONS + OUTCOMES]
    assert len(set(tags)) == len(tags)


def test_equal_outcomes_have_equal_bytes() -> None:
    # Folding compares bytes.
    assert o.encode(o.Executed(1, "x")) == o.encode(o.Executed(1, "x"))
    assert o.encode(o.Nothing()) == o.encode(o.Nothing())


@pytest.mark.parametrize(
    "value", [[], ["rm"], ["execute"], ["execute", 3], ["pull", "x"], {"execute": 1}], ids=str
)
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(msgspec.DecodeError):
        o.decode_operation(msgspec.msgpack.encode(value))
