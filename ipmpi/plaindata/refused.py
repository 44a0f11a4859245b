"""How a pickle is refused that is not plain data."""

from __future__ import annotations

from typing import Any


class Refused(Exception):
    """A pickle has something in it that is not plain data.

    Attributes:
        name: module and name of what it asks for, if it could be allowed; "" if not.
    """

    def __init__(self, text: str, name: str = "") -> None:
        super().__init__(text)
        self.name = name


def check_types(kinds: tuple[type, ...], *values: Any) -> None:
    """Raise Refused unless each of the values is exactly of one of these types."""
    for each in values:
        if type(each) not in kinds:
            raise Refused(f"a call with a value of type {type(each).__name__[:80]}, which does not belong there")
