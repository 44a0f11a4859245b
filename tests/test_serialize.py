from __future__ import annotations

import contextlib
import pickle
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from ipmpi import limits
from ipmpi.errors import SerializationError
from ipmpi.serialize import OUT_OF_BAND, Buffer, by_value, dumps, loads, serialize, unserialize


def typed_at_a_prompt(source: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(source, names)
    return names


def received(segments: list[Buffer], kind: Callable[[Buffer], Buffer] = bytearray) -> Any:
    return loads([kind(segment) for segment in segments])


data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
)


@given(data)
def test_everyday_data_comes_back(value: Any) -> None:
    assert received(dumps(value)) == value


def test_importing_it_imports_neither_numpy_nor_cloudpickle() -> None:
    code = "import sys, ipmpi.serialize as s; s.loads(s.dumps({'a': len}))"
    code += "; print({'numpy', 'cloudpickle'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    "array",
    [
        np.arange(10_000.0),
        np.arange(10_000).reshape(100, 100),
        np.asfortranarray(np.arange(10_000).reshape(100, 100)),
        np.arange(10_000).reshape(100, 100).T,
        np.zeros(2_000, dtype=[("x", "f8"), ("y", "i4")]),
    ],
)
def test_contiguous_arrays_are_not_copied(array: np.ndarray[Any, Any]) -> None:
    stream, buffer = dumps({"a": array})
    assert len(stream) < 1000
    assert memoryview(buffer).nbytes == array.nbytes
    assert np.shares_memory(np.frombuffer(buffer, "u1"), array)
    np.testing.assert_array_equal(loads([stream, buffer])["a"], array)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(0),
        np.zeros((3, 0)),
        np.array(5),
        np.arange(20_000)[::2],
        np.arange(10_000).reshape(100, 100)[:, :50],
        np.array(["a", None, 3], dtype=object),
        np.arange(10_000).astype("M8[s]"),  # numpy exports no buffer of these
    ],
)
def test_other_arrays_travel_in_the_stream(array: np.ndarray[Any, Any]) -> None:
    segments = dumps(array)
    assert len(segments) == 1
    result = received(segments)
    np.testing.assert_array_equal(result, array)
    assert result.dtype == array.dtype


def test_a_small_array_is_writable_on_arrival_and_in_one_segment() -> None:
    segments = dumps(np.arange(10))
    assert len(segments) == 1
    received(segments, bytes)[0] = 7


def test_arrays_are_writable_as_their_segments_are() -> None:
    segments = dumps(np.zeros(OUT_OF_BAND))
    assert received(segments, bytearray).flags.writeable
    assert not received(segments, bytes).flags.writeable


def test_100_megabytes_cost_no_memory() -> None:
    array = np.zeros(100 * limits.MIB, "u1")
    tracemalloc.start()
    try:
        segments = dumps({"a": [array, array[1:]]})
        loads(segments)
        assert tracemalloc.get_traced_memory()[1] < limits.MIB
    finally:
        tracemalloc.stop()


def test_no_more_segments_than_a_body_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SEGMENTS", 3)
    value = [np.full(OUT_OF_BAND, n, "u1") for n in range(5)]
    segments = dumps(value)
    assert len(segments) == 3
    np.testing.assert_array_equal(received(segments), value)


def test_functions_of_main_travel_by_value() -> None:
    names = typed_at_a_prompt(
        "b = 10\ndef helper(x): return x + b\ndef f(x, y=2, *, z=3): return helper(x) + y + z"
    )
    assert received(dumps(names["f"]))(1) == 16
    assert received(dumps({"a": [names["f"]]}))["a"][0](1) == 16


def test_lambdas_closures_and_local_classes_travel_by_value() -> None:
    n = 3

    class Local:
        def value(self) -> int:
            return n

    assert received(dumps(lambda x: x * n))(2) == 6
    assert received(dumps(Local())).value() == 3


def test_instances_of_classes_of_main_come_back_as_the_same_class() -> None:
    names = typed_at_a_prompt("class Point:\n    def __init__(self, x): self.x = x\n")
    there = received(dumps(names["Point"](4)))
    assert there.x == 4
    assert type(there) is names["Point"]


def test_importable_functions_travel_by_name() -> None:
    (stream,) = dumps(contextlib.suppress)
    assert b"cloudpickle" not in bytes(stream)
    assert loads([stream]) is contextlib.suppress


def test_modules_registered_by_value_with_cloudpickle_are_honoured() -> None:
    import cloudpickle

    module = sys.modules[typed_at_a_prompt.__module__]
    cloudpickle.register_pickle_by_value(module)
    try:
        (stream,) = dumps(typed_at_a_prompt)
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    assert loads([stream]) is not typed_at_a_prompt
    assert loads([stream])("a = 1")["a"] == 1


def test_by_value_sends_a_function_of_any_module() -> None:
    copy = by_value(typed_at_a_prompt)
    (stream,) = dumps(copy)
    assert b"_make_function" in bytes(stream)
    assert loads([stream])("a = 1")["a"] == 1
    assert copy.__qualname__ == typed_at_a_prompt.__qualname__


class Holder:
    def __init__(self, value: object) -> None:
        self.value = value


class Refuses:
    def __reduce__(self) -> Any:
        raise ValueError("not today")


LOCK = threading.Lock()
NEXT = "; leave it out, or create it on the side where it is used"


def uses_lock() -> object:
    return LOCK


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (LOCK, "cannot send the _thread.lock object: a _thread.lock object cannot be pickled"),
        ({"a": 1, "b": LOCK}, "cannot send 'b' of the dictionary: a _thread.lock object cannot be pickled"),
        ([1, (2, LOCK)], "cannot send item 1 of item 1 of the list: a _thread.lock object cannot be pickled"),
        (
            {"h": Holder([LOCK])},
            "cannot send item 0 of attribute 'value' of 'h' of the dictionary: "
            "a _thread.lock object cannot be pickled",
        ),
        (
            by_value(uses_lock),
            "cannot send variable 'LOCK' of the function uses_lock: a _thread.lock object",
        ),
        (
            [Refuses()],
            "test_serialize.Refuses object cannot be pickled (ValueError: not today)",
        ),
        (
            (n for n in (1,)),
            "cannot send the generator object: a generator object cannot be pickled",
        ),
    ],
)
def test_the_error_names_the_part_that_cannot_be_sent(value: object, message: str) -> None:
    with pytest.raises(SerializationError) as caught:
        dumps(value)
    assert message in str(caught.value).replace("tests.", "")
    assert str(caught.value).endswith(NEXT)


def test_by_value_wants_functions() -> None:
    with pytest.raises(TypeError, match="function object expected"):
        by_value(len)


def test_the_error_uses_the_name_that_it_is_given() -> None:
    with pytest.raises(SerializationError, match=r"^cannot send item 0 of 'x': "):
        dumps([LOCK], what="'x'")


def test_one_bad_item_among_many_is_found_quickly() -> None:
    value = [0] * 200_000
    value[123_456] = LOCK  # type: ignore[call-overload]
    with pytest.raises(SerializationError, match="item 123456 of the list"):
        dumps(value)


def test_what_is_nested_too_deeply_is_said_so() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(SerializationError, match=r"^cannot send the list: it is nested too deeply"):
        dumps(deep)


def test_a_list_that_contains_itself_is_fine() -> None:
    value: list[Any] = []
    value.append(value)
    result = received(dumps(value))
    assert result[0] is result


@pytest.mark.parametrize(
    "array", [np.arange(12.0).reshape(3, 4), np.arange(12)[::3], np.zeros((0, 2)), np.array(3)]
)
def test_serialized_arrays(array: np.ndarray[Any, Any]) -> None:
    serialized = serialize(array, "a")
    assert serialized.getTypeDescriptor() == "ndarray"
    assert serialized.getMetadata() == {"shape": array.shape, "dtype": array.dtype.str}
    assert serialized.getDataSize(units=1) == array.nbytes
    for there in (serialized, received(dumps(serialized)), pickle.loads(pickle.dumps(serialized, 4))):
        np.testing.assert_array_equal(unserialize(there), array)
        assert there.key == "a"


def test_a_serialized_array_is_not_copied() -> None:
    array = np.zeros(10_000)
    assert np.shares_memory(np.frombuffer(serialize(array, "a").getData(), "u1"), array)
    assert len(dumps(serialize(array, "a"))) == 2


@pytest.mark.parametrize("value", [1, {"a": [1, 2]}, {"a": 10_000 * [1.5]}, "text"])
def test_serialized_objects(value: object) -> None:
    serialized = serialize(value, "k")
    assert serialized.getTypeDescriptor() == "pickle"
    assert serialized.getMetadata() == {}
    assert unserialize(serialized) == value


def test_serialized_object_with_an_array_inside() -> None:
    serialized = serialize({"a": np.arange(10_000)}, "k")
    assert serialized.getDataSize() == pytest.approx(0.08, rel=0.05)
    np.testing.assert_array_equal(unserialize(serialized)["a"], np.arange(10_000))
