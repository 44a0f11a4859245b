"""Names of machines, which are written in several ways: short or with a domain, in small letters or capitals."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence


def machine(name: str) -> str:
    """Return what all names of one machine have in common: the part before its domain, in small letters.

    Domains are left out, because a machine may be in several. An address remains as it is.
    """
    try:
        return str(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        return name.partition(".")[0].lower()


def others(names: Iterable[str], machines: Iterable[str]) -> list[str]:
    """Return which of these names are of none of the machines."""
    known = {machine(each) for each in machines}
    return [name for name in names if machine(name) not in known]


def shown(names: Sequence[str], most: int = 5) -> str:
    """Return so many of these names, for people, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
