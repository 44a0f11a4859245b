"""Under which addresses others may reach this machine."""

from __future__ import annotations

import ipaddress
import socket
from typing import Final

from ...furl import HINTS

_OF_THIS_MACHINE_ONLY: Final = ("lo", "docker", "br-", "virbr", "veth", "podman", "cni")
"""Networks of containers and of virtual machines have the same addresses on every machine."""

_IPV6_ADDRESSES: Final = "/proc/net/if_inet6"
"""Of Linux: address, index of the interface, length of the prefix, scope, flags, name; all but the last in hex."""
_GLOBAL: Final = 0x00
_NOT_USABLE: Final = 0x08 | 0x20 | 0x40
"""Another machine has it too, it is outdated, or it is still being tried."""
_TEMPORARY: Final = 0x01


def is_unspecified(host: str) -> bool:
    """Whether this means "all addresses of this machine", wherever it is read: ``""``, ``0.0.0.0``, ``::``."""
    if not host:
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_unspecified
    except ValueError:
        return False


def plain(address: str) -> str:
    """An address without what a socket of both families adds to one of IPv4: ``::ffff:192.0.2.7``."""
    return address.removeprefix("::ffff:") if "." in address else address


def local_addresses(*, ipv6: bool = True) -> list[str]:
    """Addresses for furls: that of the default route, those of all other networks, IPv6 after IPv4, loopback last.

    Compute nodes often have no default route, and login nodes are in several networks, of which only one is theirs
    in common.

    Args:
        ipv6: whether those of IPv6 count, too.
    """
    found = dict.fromkeys([*_of_default_route(), *_of_interfaces(), *(_of_ipv6() if ipv6 else [])])
    loopback = "127.0.0.1" if not ipv6 or _is_here(socket.AF_INET, "127.0.0.1") else "::1"
    found.pop(loopback, None)
    return [*list(found)[: HINTS - 1], loopback]


def is_here(address: str) -> bool:
    """Return whether a peer with this address is on this machine."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return _is_here(family, address)


def _is_here(family: int, address: str) -> bool:
    """Whether this machine has an address."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def _of_default_route() -> list[str]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Connecting a datagram socket sends nothing; it only asks the routing table.
            probe.connect(("192.0.2.1", 9))
            return [str(probe.getsockname()[0])]
        except OSError:
            return []


def _of_interfaces() -> list[str]:
    import psutil  # not for clients

    return [
        each.address
        for name, addresses in psutil.net_if_addrs().items()
        if not name.startswith(_OF_THIS_MACHINE_ONLY)
        for each in addresses
        if each.family == socket.AF_INET and not each.address.startswith("169.254.")
    ]


def _of_ipv6() -> list[str]:
    """Those of IPv6 that are valid on other machines; temporary ones, for privacy, after the others."""
    try:
        with open(_IPV6_ADDRESSES, encoding="ascii") as file:
            rows = [line.split() for line in file]
    except OSError:  # there is no IPv6, or this is another system than Linux
        return []
    found = []
    for digits, _, _, scope, flags, name in rows:
        on_a_network = name == "lo" or not name.startswith(_OF_THIS_MACHINE_ONLY)
        if on_a_network and int(scope, 16) == _GLOBAL and not int(flags, 16) & _NOT_USABLE:
            address = str(ipaddress.IPv6Address(bytes.fromhex(digits)))
            found.append((bool(int(flags, 16) & _TEMPORARY), address))
    return [address for _, address in sorted(found, key=lambda each: each[0])]
