"""Arrays on engines as data of xarray, which asks for elements when they are needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ...errors import ClientError
from ..session import given


class Source(Protocol):
    """The part of a :class:`~ipmpi.client.engines.distributed.DistributedArray` that is needed here."""

    name: str
    shape: tuple[int, ...]
    dtype: Any

    def __getitem__(self, index: Any) -> Any:
        """Get some elements."""


def to_xarray(array: Source, dims: Sequence[str] | None, coords: Mapping[str, Any] | None) -> Any:
    """Return a DataArray; see :meth:`ipmpi.client.engines.distributed.DistributedArray.to_xarray`."""
    names = _checked(array, dims)
    if coords is not None and not isinstance(coords, Mapping):
        raise TypeError(f"coords must be a dict of names and coordinates: {given.shown(coords)}")
    try:
        import xarray
        from xarray.backends import BackendArray
        from xarray.core import indexing
    except ImportError as error:
        raise ClientError(f"to_xarray() needs xarray: pip install xarray ({error})") from None

    class OnEngines(BackendArray):
        """Elements that are asked for when xarray indexes this."""

        def __init__(self) -> None:
            self.shape = array.shape
            self.dtype = array.dtype

        def __getitem__(self, key: Any) -> Any:
            return indexing.explicit_indexing_adapter(
                key, self.shape, indexing.IndexingSupport.BASIC, array.__getitem__
            )

    lazy = indexing.LazilyIndexedArray(OnEngines())
    return xarray.DataArray(xarray.Variable(names, lazy), coords=coords, name=array.name)


def _checked(array: Source, dims: Any) -> tuple[str, ...]:
    if dims is None:
        return tuple(f"dim_{number}" for number in range(len(array.shape)))
    if isinstance(dims, str) or not hasattr(dims, "__iter__"):
        raise TypeError(f"dims must be a sequence of names, one for each dimension: {given.shown(dims)}")
    names = given.names(dims, "a name in dims")
    if len(names) != len(array.shape):
        raise ValueError(f"dims has {len(names)} names, and {array.name} has {len(array.shape)} dimensions")
    return tuple(names)
