from __future__ import annotations

import math
import time
from typing import Any

import pytest

from ipmpi.engine.session.completions import MOST, completions


class Vector:
    """Its property must not be read by a completion."""

    def __init__(self) -> None:
        self.length = "long"

    @property
    def norm(self) -> str:
        raise AssertionError("user code ran")


class Table:
    def _ipython_key_completions_(self) -> list[str]:
        return ["temperature", "time"]


class Broken:
    def __dir__(self) -> list[str]:
        raise RuntimeError

    def _ipython_key_completions_(self) -> list[str]:
        raise RuntimeError


NAMES: dict[str, Any] = {
    "math": math, "viscosity": 1, "v": Vector(), "table": Table(), "broken": Broken(), "_own": 2,
    "d": {"alpha": 1, "beta": 2, 3: 4},
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("vis", ["viscosity"]),
        ("x = (vis", ["viscosity"]),
        ("math.cei", ["math.ceil"]),
        ("print(math.cei", ["math.ceil"]),
        ("v.no", ["v.norm"]),
        ("v.norm.", []),
        ("v.length.isal", ["v.length.isalnum", "v.length.isalpha"]),
        ("d['a", ["alpha"]),
        ('d["', ["alpha", "beta"]),
        ("table['te", ["temperature"]),
        ("broken.a", []),
        ("broken['a", []),
        ("nothing.a", []),
        ("f().vis", []),
        ("'vis", []),
        ("impor", ["import"]),
        ("ZeroDiv", ["ZeroDivisionError"]),
        ("_ow", ["_own"]),
        ("", ["broken", "d", "math", "table", "v", "viscosity"]),
        ("1 +", ["broken", "d", "math", "table", "v", "viscosity"]),
    ],
)
def test_what_a_word_can_become(text: str, found: list[str]) -> None:
    assert completions(text, NAMES) == found


@pytest.mark.parametrize("text", ["a" * 10**7, "a." * 10**6, "d['" * 10**6, "d[" * 10**6 + "'a"])
def test_a_long_text_takes_no_time(text: str) -> None:
    began = time.monotonic()
    completions(text, NAMES)
    assert time.monotonic() - began < 1


def test_there_is_a_bound() -> None:
    assert len(completions("", {f"name{number}": 0 for number in range(10_000)})) == MOST
