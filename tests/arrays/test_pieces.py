"""Cutting blocks into pieces."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, strategies as st

from ipmpi.arrays.pieces import pieces


@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.integers(1, 40))
def test_each_element_is_in_one_piece_and_none_is_too_large(shape: list[int], most: int) -> None:
    seen = np.zeros(shape, int)
    for part in pieces(tuple(shape), most):
        assert len(part) == len(shape)
        assert math.prod(each.stop - each.start for each in part) <= most
        seen[part] += 1
    assert (seen == 1).all()
