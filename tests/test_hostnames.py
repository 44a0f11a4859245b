"""Names of machines in several spellings."""

from __future__ import annotations

import pytest

from ipmpi.hostnames import machine, others, shown


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("n17", "n17.cluster.local"),
        ("n17.cluster.local", "n17.hpc.example.org"),
        ("N17", "n17"),
        ("Node-3.Example", "node-3"),
        ("::1", "[::1]"),
        ("2001:db8:0::1", "2001:db8::1"),
    ],
)
def test_one_machine(one: str, other: str) -> None:
    assert machine(one) == machine(other)
    assert others([one], [other]) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [("n1", "n10"), ("n1", "n01"), ("n1", "xn1"), ("10.0.0.1", "10.0.0.2"), ("10.0.0.1", "10"), ("n1", "")],
)
def test_two_machines(one: str, other: str) -> None:
    assert machine(one) != machine(other)
    assert others([one], [other]) == [one]


def test_many_names_are_shown_in_part() -> None:
    assert shown(["a", "b"]) == "a, b"
    assert shown([f"n{k}" for k in range(8)]) == "n0, n1, n2, n3, n4 and 3 more"
