"""What a new value of a parameter may be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ipmpi.parameters import checked, declare, unequal, unknown

ARRAY = np.zeros((2, 3), "f4")


@pytest.mark.parametrize(
    ("old", "new", "result"),
    [
        (1e-3, 5e-4, 5e-4),
        (1e-3, 2, 2.0),
        (1e-3, np.float32(0.5), 0.5),
        (1e-3, np.array(0.5), 0.5),
        (3, np.int64(4), 4),
        (True, False, False),
        ("a", "b", "b"),
        (1j, 2, 2 + 0j),
        (None, None, None),
        ([1], [2, 3], [2, 3]),
    ],
    ids=repr,
)
def test_values_of_its_type_are_taken(old: Any, new: Any, result: Any) -> None:
    found = checked("dt", declare(old), new)
    assert (found, type(found)) == (result, type(result))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (1e-3, "much", "dt is of type float, and 'much' is of type str"),
        (1e-3, True, "dt is of type float, and True is of type bool"),
        (1e-3, None, "of type NoneType"),
        (1e-3, [1.0], "of type list"),
        (3, 4.0, "dt is an int, and 4.0 is a float: dt = 4 would do"),
        (3, 4.5, "dt is of type int, and 4.5 is of type float"),
        (True, 1, "dt is of type bool, and 1 is of type int"),
        (1e-3, np.zeros(3), "of type array of 3 float64"),
        (ARRAY, 1j * ARRAY, "complex64 cannot become float32 without loss"),
    ],
    ids=repr,
)
def test_others_are_refused_with_a_sentence(old: Any, new: Any, words: str) -> None:
    with pytest.raises(TypeError) as caught:
        checked("dt", declare(old), new)
    assert words in str(caught.value)


def test_an_array_keeps_its_shape_and_dtype() -> None:
    found = checked("k", declare(ARRAY), [[1, 2, 3], [4, 5, 6]])
    assert found.dtype == ARRAY.dtype
    assert found.tolist() == [[1, 2, 3], [4, 5, 6]]
    for wrong in (np.zeros((3, 2)), 1.0, [[1, 2], [3]]):
        with pytest.raises(ValueError, match="k is an array of float32, 2x3"):
            checked("k", declare(ARRAY), wrong)


def test_a_name_that_is_none_is_told_with_those_that_are() -> None:
    assert unknown("dtt", {"dt": 1, "nu": 2}) == (
        "'dtt' is no parameter of this program (it has dt, nu): attach(dtt=...) would declare it"
    )


def test_a_number_that_is_too_large_is_refused_with_its_name() -> None:
    with pytest.raises(ValueError, match=r"dt is a float, and 1000.*\.\.\. is too large for one"):
        checked("dt", declare(1.0), 10**400)


def test_a_parameter_that_ranks_have_declared_differently_is_told_of() -> None:
    one, two = {"n": declare(1), "k": declare(ARRAY)}, {"n": declare(1.0), "k": declare(ARRAY)}
    assert unequal("k", {0: one, 1: two}) == ""
    assert unequal("n", {0: one, 1: two, 2: two, 3: {}}) == (
        "n is not the same on all ranks (int on engine 0; float on engines 1-2; not declared on engine 3), so "
        "it cannot be changed: give attach(n=...) a value of the same type and shape on each rank"
    )
