"""The properties of an engine: a dictionary of copies, for clients and schedulers."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from ipmpi import serialize
from ipmpi.errors import InvalidProperty


class EngineProperties(MutableMapping[str, Any]):
    """Keeps deep copies, so that a value changes only when it is set again.

    Setting raises :class:`InvalidProperty` for a value that plain pickle cannot pickle, or for a name that is not
    a string; reading and deleting raise KeyError for an unknown name.
    """

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}

    def __setitem__(self, key: str, value: Any) -> None:
        self.update({key: value})

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __delitem__(self, key: str) -> None:
        del self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def update(self, other: Mapping[str, Any], /) -> None:  # type: ignore[override]
        """Set all of ``other``, or none of it if one is invalid."""
        self._values |= {_valid_name(key): _copy(key, value) for key, value in other.items()}

    def take(self, keys: list[str]) -> dict[str, Any]:
        """Return these properties; raises KeyError for an unknown one."""
        return {key: self._values[key] for key in keys}

    def remove(self, keys: list[str]) -> None:
        """Delete all of ``keys``, or none of them if one is unknown (KeyError)."""
        self.take(keys)
        for key in keys:
            self._values.pop(key, None)


def _valid_name(key: object) -> str:
    if not isinstance(key, str):
        raise InvalidProperty(f"the name of a property is a string, not {key!r}; use str(...) of it")
    return key


def _copy(key: str, value: Any) -> Any:
    # Plain pickle only: properties are data, not code.
    try:
        return pickle.loads(pickle.dumps(value, serialize.PROTOCOL))
    except Exception as error:
        raise InvalidProperty(
            f"the property {key!r} cannot be stored: {type(error).__name__}: {error}; "
            f"use numbers, strings, and lists and dictionaries of them"
        ) from error
