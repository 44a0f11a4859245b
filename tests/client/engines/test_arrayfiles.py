"""What is refused when arrays are saved and loaded, before anything is sent; tests/integration has the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from array_engines import Engines

from ipmpi.errors import ClientError

BAD = [
    ({"path": 5}, TypeError, "path must be a str"),
    ({"path": ""}, ValueError, "path must be the name of a file"),
    ({"path": "a\0"}, ValueError, "path must be the name of a file"),
    ({"path": "a.h5", "name": 5}, TypeError, "name, that of the dataset, must be a str"),
    ({"path": "a.h5", "name": "/"}, ValueError, "name must be that of a dataset"),
    ({"path": "a.h5", "name": ""}, ValueError, "name must be that of a dataset"),
]


@pytest.mark.parametrize("method", ["save", "load"])
@pytest.mark.parametrize(("given", "error", "text"), BAD)
def test_bad_arguments_are_refused(method: str, given: dict[str, Any], error: type[Exception], text: str) -> None:
    engines = Engines({0: {"T": np.zeros(2)}})
    array = engines.array()
    engines.asked.clear()
    with pytest.raises(error, match=text):
        getattr(array, method)(**given)
    assert engines.asked == []


def test_loading_is_a_change_of_a_program() -> None:
    engines = Engines({0: {"T": np.zeros(2)}})
    array = engines.array()
    array.gather()
    assert not engines.is_changed
    with pytest.raises((OSError, ClientError), match=r"no file|h5py"):
        array.load("no file.h5")
    assert engines.is_changed


def test_overwriting_is_asked_for_by_true() -> None:
    with pytest.raises(TypeError, match="overwrite must be True or False: 'yes'"):
        Engines({0: {"T": np.zeros(2)}}).array().save("a.h5", overwrite="yes")  # type: ignore[arg-type]


def test_new_blocks_need_a_name() -> None:
    array = Engines({0: {"T": np.zeros(2)}, 1: {"T": np.zeros(2)}}).array()
    array.name = "T[0]"
    with pytest.raises(ValueError, match="is no name to keep the new blocks under: give one with to="):
        array.redistribute()
    for wrong, text in (
        ({"grid": (3,)}, "3 places, and there are 2 engines"),
        ({"grid": (1, 2)}, "cannot divide an array of 1 dim"),
        ({"axis": 1}, "axis=1 is none of"),
        ({"halo": -1}, "halo must be"),
    ):
        with pytest.raises(ValueError, match=text):
            array.redistribute(to="U", **wrong)  # type: ignore[arg-type]
