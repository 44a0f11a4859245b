"""Arrays on engines, for xarray."""

from __future__ import annotations

import builtins
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from array_engines import Engines

from ipmpi.client.engines.distributed import DistributedArray
from ipmpi.errors import ClientError

WHOLE = np.arange(24.0).reshape(6, 4)


@pytest.fixture
def engines(need: Callable[[str, object], None]) -> Engines:
    need("no xarray; pip install xarray", importlib.util.find_spec("xarray"))
    return Engines({n: {"T": WHOLE[2 * n :][:2].copy()} for n in range(3)})


@pytest.fixture
def array(engines: Engines) -> DistributedArray:
    found = engines.array()
    engines.asked.clear()
    return found


def test_only_what_is_selected_is_asked_for(engines: Engines, array: DistributedArray) -> None:
    data = array.to_xarray(["x", "y"], {"x": np.linspace(0, 1, 6)})
    part = data.sel(x=slice(0.3, 0.7)).isel(y=[3, 1])
    assert engines.asked == []
    assert part.dims == ("x", "y")
    np.testing.assert_allclose(part.x, [0.4, 0.6])
    np.testing.assert_array_equal(part.values, WHOLE[2:4, [3, 1]])
    assert engines.asked == [[1]]
    repr(data)
    assert data.name == "T"
    assert array.to_xarray().dims == ("dim_0", "dim_1")


def test_it_is_what_engines_have_when_it_is_asked_for(engines: Engines, array: DistributedArray) -> None:
    data = array.to_xarray(("x", "y"))
    assert float(data.mean()) == WHOLE.mean()
    np.testing.assert_array_equal(data[::-2, 1:3].transpose("y", "x").values, WHOLE[::-2, 1:3].T)
    engines.spaces[0]["T"][:] = 100
    np.testing.assert_array_equal(data[0].values, [100] * 4)


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"dims": "xy"}, TypeError, "dims must be a sequence of names"),
        ({"dims": 5}, TypeError, "dims must be a sequence of names"),
        ({"dims": ["x"]}, ValueError, "dims has 1 names, and T has 2 dimensions"),
        ({"dims": ["x", 1]}, TypeError, "a name in dims must be a str, not 1"),
        ({"coords": [1, 2]}, TypeError, "coords must be a dict"),
    ],
)
def test_bad_names_are_refused(
    array: DistributedArray, given: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        array.to_xarray(**given)


def test_what_to_install_is_said(array: DistributedArray, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name.startswith("xarray"):
            raise ImportError("No module named 'xarray'")
        return plain(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ClientError, match=r"to_xarray\(\) needs xarray: pip install xarray"):
        array.to_xarray()
