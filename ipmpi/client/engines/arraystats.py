"""What is known of the elements of an array."""

from __future__ import annotations

from ...arrays.summary import Summary


class ArrayStats:
    """What is known of all elements of an array, without NaNs.

    Attributes:
        count: how many there are.
        nans: how many are NaN.
        mean, std: NaN if there are no others.
        min, max: with position and engine; None if there are no others.
    """

    def __init__(self, summary: Summary) -> None:
        self.count = summary.count
        self.nans = summary.nans
        self.mean = summary.mean
        self.std = summary.std
        self.min = summary.least
        self.max = summary.most

    def __repr__(self) -> str:
        nans = f", {self.nans} NaN" if self.nans else ""
        if self.min is None:
            return f"no elements{nans}"
        return f"min {self.min}, max {self.max}, mean {self.mean:g}, std {self.std:g}{nans}"
