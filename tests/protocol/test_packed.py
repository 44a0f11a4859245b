"""Batches of tasks as single buffers: what goes in comes out, and rubbish is an error that callers expect."""

from __future__ import annotations

import struct
from array import array

import msgspec
import pytest
from hypothesis import example, given, settings, strategies as st

from ipmpi.protocol import operations as o, packed
from ipmpi.protocol.packed import count, pack, pack_failure, slices, unpack, unpack_failure

fast = settings(max_examples=150, deadline=None, derandomize=True, database=None)
numbers = st.lists(st.integers(0, 2**32 - 1), max_size=50)
texts = st.text(max_size=40)
failures = st.builds(
    o.Failed, texts, texts, texts, st.none() | st.builds(o.Executed, st.integers(0, 2**31), texts, texts)
)


def test_a_number_has_four_bytes_the_lowest_first() -> None:
    assert array("I").itemsize == 4
    assert pack([1, 0x01020304, 2**32 - 1]) == b"\1\0\0\0\4\3\2\1\xff\xff\xff\xff"
    assert unpack(b"\1\0\0\0\4\3\2\1").tolist() == [1, 0x01020304]


@fast
@given(numbers)
def test_numbers_come_out_as_they_went_in(given_numbers: list[int]) -> None:
    data = pack(given_numbers)
    assert unpack(data).tolist() == given_numbers
    assert unpack(memoryview(data)).tolist() == given_numbers
    assert count(data) == len(given_numbers)
    assert data == struct.pack(f"<{len(given_numbers)}I", *given_numbers)


def test_ranges_and_generators_are_packed_as_lists_are() -> None:
    assert pack(range(5)) == pack([0, 1, 2, 3, 4]) == pack(number for number in range(5))


@pytest.mark.parametrize("number", [-1, 2**32, 2**70])
def test_what_is_no_such_number_is_not_packed(number: int) -> None:
    with pytest.raises(OverflowError):
        pack([0, number])


@pytest.mark.parametrize("size", [1, 2, 3, 5, 4097])
def test_a_length_that_is_no_multiple_of_four_is_an_error_for_both_readers(size: int) -> None:
    with pytest.raises(ValueError, match=r"4|bytes"):
        unpack(bytes(size))
    with pytest.raises(ValueError, match=str(size)):
        count(bytes(size))


def test_the_packers_of_both_byte_orders_do_swap(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be little-endian on a machine of the other order is the reverse here."""
    monkeypatch.setattr(packed, "_FOREIGN", not packed._FOREIGN)
    assert pack([1, 0x01020304]) == struct.pack(">2I", 1, 0x01020304)
    assert unpack(struct.pack(">2I", 1, 0x01020304)).tolist() == [1, 0x01020304]


@fast
@given(st.lists(st.binary(max_size=30), max_size=20))
def test_payloads_are_cut_out_of_their_body_without_a_copy(payloads: list[bytes]) -> None:
    body = b"".join(payloads)
    found = list(slices(body, [len(payload) for payload in payloads]))
    assert found == payloads
    assert all(view.obj is body for view in found)


@fast
@given(failures, st.lists(st.binary(max_size=30), max_size=3))
def test_failures_come_out_as_they_went_in(failed: o.Failed, body: list[bytes]) -> None:
    for payload in (pack_failure(failed, body), memoryview(pack_failure(failed, body))):
        again, rest = unpack_failure(payload)
        assert again == failed
        assert b"".join(rest) == b"".join(body)
        assert bool(rest) == any(body)


GOOD = pack_failure(o.Failed("ValueError", "no", "Traceback ..."), [b"pickle"])


def rubbish(data: bytes) -> None:
    try:
        failed, rest = unpack_failure(data)
    except (ValueError, msgspec.DecodeError):
        return
    assert isinstance(failed, o.Failed)
    assert sum(len(part) for part in rest) < len(data)


@fast
@given(st.binary(max_size=80))
@example(b"")
@example(b"\0\0\0")
@example(b"\0\0\0\0")
@example(b"\xff\xff\xff\xff" + GOOD[4:])
@example(struct.pack("<I", 100_000) + b"\x91" * 100_000)
@example(struct.pack("<I", 100_006) + b"\x95\xa6failed\xa1a\xa1b\xa1c" + b"\x91" * 100_000)
@example(struct.pack("<I", 1) + o.encode(o.Nothing()))
@example(struct.pack("<I", 4) + b"\x91\xa2\xff\xfe")
def test_any_bytes_are_a_failure_or_an_error_that_callers_expect(data: bytes) -> None:
    rubbish(data)


@fast
@given(
    st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=5),
    st.integers(0, len(GOOD)),
)
def test_so_are_failures_with_bytes_changed_and_cut_off(changes: list[tuple[int, int]], end: int) -> None:
    data = bytearray(GOOD)
    for at, value in changes:
        data[at] = value
    rubbish(bytes(data))
    rubbish(bytes(data[:end]))


def test_a_failure_whose_description_is_cut_off_is_not_half_understood() -> None:
    with pytest.raises(ValueError, match="cut off"):
        unpack_failure(struct.pack("<I", len(GOOD)) + GOOD[4:])


@pytest.mark.parametrize("outcome", [o.Nothing(), o.Value(), o.Executed(1)], ids=repr)
def test_another_outcome_is_no_failure(outcome: o.Outcome) -> None:
    text = o.encode(outcome)
    with pytest.raises(ValueError, match=type(outcome).__name__):
        unpack_failure(struct.pack("<I", len(text)) + text)


@fast
@given(st.binary(max_size=100))
def test_any_bytes_are_a_task_or_a_decode_error(data: bytes) -> None:
    try:
        operation = o.decode_task_operation(data)
    except msgspec.DecodeError:
        return
    assert isinstance(operation, o.StringTaskOperation | o.CallTaskOperation)
