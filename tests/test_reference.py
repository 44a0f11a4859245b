"""References: arguments that are looked up where the call runs."""

from __future__ import annotations

import copy
import pickle

import pytest

from ipmpi.client import Reference


def test_a_reference_is_a_value() -> None:
    reference = Reference(" model.weights ")
    assert repr(reference) == "Reference('model.weights')"
    assert reference == Reference("model.weights") != Reference("model")
    assert {reference: 1}[Reference("model.weights")] == 1
    with pytest.raises(AttributeError, match="make another one"):
        reference.name = "a"


def test_a_reference_stays_one_where_there_is_no_engine() -> None:
    assert copy.deepcopy(Reference("a")) == pickle.loads(pickle.dumps(Reference("a"))) == Reference("a")


def test_what_is_no_expression_is_refused() -> None:
    with pytest.raises(TypeError, match=r"takes the name of a value on engines, a str, not int"):
        Reference(5)  # type: ignore[arg-type]
    with pytest.raises(SyntaxError):
        Reference("a = 1")
