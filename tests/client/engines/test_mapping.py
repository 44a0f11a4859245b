from __future__ import annotations

import collections
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ipmpi import copying, limits
from ipmpi.client.engines.mapping import join, partition, partition_together


@pytest.mark.parametrize("dist", ["b", "r"])
@pytest.mark.parametrize("parts", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("length", [0, 1, 3, 4, 10])
def test_what_is_dealt_out_is_put_together_again(length: int, parts: int, dist: str) -> None:
    array = np.arange(length * 2).reshape(length, 2)
    assert join(partition(list(range(length)), parts, dist), dist) == list(range(length))
    assert join(partition(tuple(range(length)), parts, dist), dist) == list(range(length))
    assert np.array_equal(join(partition(array, parts, dist), dist), array)


def test_blocks_are_consecutive_and_the_first_ones_longer() -> None:
    assert partition(list(range(10)), 4) == [[0, 1, 2], [3, 4, 5], [6, 7], [8, 9]]
    assert partition("abcde", 2) == ["abc", "de"]
    assert partition((1, 2), 3) == [(1,), (2,), ()]


def test_round_robin_deals_one_item_at_a_time() -> None:
    assert partition(list(range(5)), 2, "r") == [[0, 2, 4], [1, 3]]


def test_iterables_and_dicts_are_dealt_out_as_lists() -> None:
    assert partition(iter("abc"), 2) == [["a", "b"], ["c"]]
    assert partition({"a": 1, "b": 2}, 2) == [["a"], ["b"]]
    assert sorted(join(partition({1, 2, 3}, 2))) == [1, 2, 3]


def test_an_unknown_distribution_is_refused_with_the_known_ones() -> None:
    with pytest.raises(KeyError, match=r"'b' .blocks. or 'r' .round robin., not 'c'"):
        partition([1], 1, "c")


def test_parts_that_are_neither_arrays_nor_lists_stay_a_list_of_parts() -> None:
    assert join(["abc", "de"]) == ["abc", "de"]
    assert join([1, 2]) == [1, 2]
    assert join([]) == []


def test_flattened_parts_find_their_place() -> None:
    assert join([[0, 1], 2, 3]) == [0, 1, 2, 3]
    assert join([[0, 3], 1, 2], "r") == [0, 1, 2, 3]
    assert join([np.array([0, 1]), np.int64(2)]).tolist() == [0, 1, 2]


def test_sequences_that_are_dealt_out_together_leave_no_part_empty() -> None:
    assert partition_together([[1, 2], (3, 4)], 4) == [[[1], (3,)], [[2], (4,)]]
    assert partition_together([[]], 4) == []
    with pytest.raises(ValueError, match=r"all sequences must have equal length"):
        partition_together([[1, 2], [3]], 2)


class Squares:
    """Items, and no slices."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, number: int) -> int:
        if not isinstance(number, int):
            raise TypeError("items only")
        if number >= 6:
            raise IndexError(number)
        return number * number


class Table:
    """As those of pandas: slices are rows, going through it gives the names of its columns."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.iloc = self

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[str]:
        return iter(["x", "y"])

    def __getitem__(self, chosen: slice) -> Table:
        return Table(len(range(*chosen.indices(self.rows))))


@pytest.mark.parametrize("items", [collections.deque(range(6)), Squares(), collections.UserList("abc")])
@pytest.mark.parametrize("dist", ["b", "r"])
def test_sequences_without_slices_are_dealt_out_too(items: Any, dist: str) -> None:
    assert join(partition(items, 2, dist), dist) == list(items)
    shares = [share for (share,) in partition_together([items], 2, dist)]
    assert join(shares, dist) == list(items)


def test_a_map_goes_through_what_the_builtin_goes_through() -> None:
    assert partition_together([Table(8)], 3) == [[["x"]], [["y"]]]
    assert partition_together([{"a": 1, "b": 2}], 3) == [[["a"]], [["b"]]]
    assert [part.rows for part in partition(Table(8), 3)] == [3, 3, 2]


@pytest.mark.parametrize("dist", ["b", "r"])
@pytest.mark.parametrize("parts", [1, 2, 3, 9])
def test_masks_and_records_survive(parts: int, dist: str) -> None:
    masked = np.ma.masked_array(np.arange(7), np.arange(7) % 3 == 0)
    whole = join(partition(masked, parts, dist), dist)
    assert isinstance(whole, np.ma.MaskedArray)
    assert whole.mask.tolist() == masked.mask.tolist()
    assert whole.compressed().tolist() == masked.compressed().tolist()
    records = np.rec.array([(n, n / 2) for n in range(7)], dtype=[("a", int), ("b", float)])
    joined = join(partition(records, parts, dist), dist)
    assert isinstance(joined, np.recarray)
    assert joined.a.tolist() == list(range(7))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        matrix = np.asmatrix(np.arange(14).reshape(7, 2))
    put_together = join(partition(matrix, parts, dist), dist)
    assert type(put_together) is type(matrix)
    assert np.array_equal(put_together, matrix)


def test_flattened_masked_parts_keep_their_masks() -> None:
    masked = np.ma.masked_array([1.0, 2.0], [False, True])
    whole = join([masked[:1], masked[1]])
    assert whole.mask.tolist() == [False, True]


class Metres(np.ndarray[Any, Any]):
    """A class that numpy's functions make plain arrays of."""


class WithUnit(np.ndarray[Any, Any]):
    """A class that says what numpy's functions make of it."""

    unit = ""

    def __array_finalize__(self, obj: Any) -> None:
        self.unit = getattr(obj, "unit", "")

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        result = super().__array_function__(func, types, args, kwargs)
        if func is np.concatenate:
            units = {each.unit for each in args[0]}
            if len(units) > 1:
                raise TypeError(f"different units: {sorted(units)}")
            result = np.asarray(result).view(WithUnit)
            (result.unit,) = units
        return result


def test_an_array_of_an_unknown_class_is_never_made_a_plain_one() -> None:
    array = np.arange(4.0).view(Metres)
    parts = partition(array, 2)
    whole = join(parts)
    assert isinstance(whole, list)
    assert [type(part) for part in whole] == [Metres, Metres]
    assert join([array, np.arange(2)])[1].tolist() == [0, 1]
    other = np.ma.masked_array([1]).view(type("Special", (np.ma.MaskedArray,), {}))
    assert isinstance(join([other, other]), list)


@pytest.mark.parametrize("dist", ["b", "r"])
def test_a_class_that_knows_how_it_is_joined_is_asked(dist: str) -> None:
    array = np.arange(5.0).view(WithUnit)
    array.unit = "m"
    whole = join(partition(array, 2, dist), dist)
    assert (type(whole), whole.unit, whole.tolist()) == (WithUnit, "m", [0, 1, 2, 3, 4])
    other = np.arange(2.0).view(WithUnit)
    other.unit = "km"
    with pytest.raises(TypeError, match="different units"):
        join([array, other])


def test_a_named_tuple_is_one_thing() -> None:
    Point = collections.namedtuple("Point", "x y")
    points = [Point(1, 2), Point(3, 4)]
    assert join(points) == points
    assert join([points, [Point(5, 6)]]) == [*points, Point(5, 6)]


ALIKE = {
    "floats": [np.arange(n, dtype=float) for n in (3, 1, 4)],
    "rows": [np.arange(6).reshape(2, 3), np.arange(3).reshape(1, 3), np.zeros((0, 3), int)],
    "big-endian": [np.arange(3, dtype=">i4"), np.arange(2, dtype=">i4")],
    "records": [np.zeros(2, [("a", "u1"), ("b", "f8")]), np.ones(3, [("a", "u1"), ("b", "f8")])],
    "overlapping fields": [
        np.zeros(3, {"names": ["a", "b"], "formats": ["i8", "i8"], "offsets": [0, 0], "itemsize": 8})
    ]
    * 2,
    "dates": [np.array(["2026-01-01"], "M8[D]"), np.array(["2026-01-02"], "M8[D]")],
    "one": [np.arange(5)],
    "scalars": [np.array(1.5), np.array(2.5)],
}
NOT_ALIKE = {
    "types": [np.arange(3), np.arange(3.0)],
    "columns first": [np.asfortranarray(np.ones((3, 2))), np.ones((3, 2))],
    "strided": [np.arange(10)[::2], np.arange(3)],
    "objects": [np.array([None, 1]), np.array(["x", ()], object)],
    "classes of arrays": [np.rec.array([(1, 2.0)]), np.rec.array([(3, 4.0)])],
    "masks": [np.ma.array([1, 2], mask=[0, 1]), np.ma.array([3], mask=[0])],
}


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("dist", ["b", "r"])
@pytest.mark.parametrize("parts", ALIKE.values(), ids=list(ALIKE))
def test_arrays_that_are_alike_are_joined_in_memory_that_is_there(
    parts: list[np.ndarray], dist: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "_cores", lambda: threads)
    monkeypatch.setattr(limits, "COPY_SHARE", 1)
    places: list[bytearray] = []

    def memory(size: int) -> memoryview:
        places.append(bytearray(b"\xff" * size))
        return memoryview(places[-1])

    joined, usual = join(parts, dist, memory), join(parts, dist)
    assert len(places) == 1
    assert (joined.dtype, joined.shape, joined.flags.writeable) == (usual.dtype, usual.shape, True)
    assert np.array_equal(joined, usual)
    assert np.shares_memory(joined, np.frombuffer(places[0], np.uint8)) == (dist == "b")


@pytest.mark.parametrize("parts", NOT_ALIKE.values(), ids=list(NOT_ALIKE))
def test_others_are_joined_as_numpy_does(parts: list[np.ndarray]) -> None:
    def memory(_size: int) -> memoryview:
        raise AssertionError("it is not asked for")

    joined, usual = join(parts, "b", memory), join(parts)
    assert (type(joined), joined.dtype, joined.shape) == (type(usual), usual.dtype, usual.shape)
    assert np.array_equal(np.asarray(joined), np.asarray(usual))
    assert joined.flags.f_contiguous == usual.flags.f_contiguous


def test_shapes_that_do_not_fit_are_an_error_with_memory_too() -> None:
    with pytest.raises(ValueError, match="must match"):
        join([np.ones((2, 3)), np.ones((2, 4))], "b", lambda size: memoryview(bytearray(size)))
    with pytest.raises(ValueError, match="dimension"):
        join([np.ones((2, 3)), np.ones(3)], "b", lambda size: memoryview(bytearray(size)))
