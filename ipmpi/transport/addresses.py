"""Under which addresses others may reach this machine (layer L3)."""

from __future__ import annotations

import fcntl
import socket
import struct
from typing import Final

from ..furl import HINTS

_ADDRESS_OF_INTERFACE: Final = 0x8915
"""The request SIOCGIFADDR of Linux; see netdevice(7)."""
_NAME_BYTES: Final = 16
_OF_THIS_MACHINE_ONLY: Final = ("lo", "docker", "br-", "virbr", "veth", "podman", "cni")
"""Networks of containers and of virtual machines have the same addresses on every machine."""


def local_addresses() -> list[str]:
    """IPv4 addresses for furls: that of the default route, those of all other networks, loopback last.

    Compute nodes often have no default route, and login nodes are in several networks, of which only one is theirs
    in common.
    """
    found = dict.fromkeys([*_of_default_route(), *_of_interfaces()])
    found.pop("127.0.0.1", None)
    return [*list(found)[: HINTS - 1], "127.0.0.1"]


def _of_default_route() -> list[str]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Connecting a datagram socket sends nothing; it only asks the routing table.
            probe.connect(("192.0.2.1", 9))
            return [str(probe.getsockname()[0])]
        except OSError:
            return []


def _of_interfaces() -> list[str]:
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            if name.startswith(_OF_THIS_MACHINE_ONLY):
                continue
            request = struct.pack("256s", name.encode()[: _NAME_BYTES - 1])
            try:
                answer = fcntl.ioctl(asking, _ADDRESS_OF_INTERFACE, request)
            except OSError:  # it has none, or this is another system than Linux
                continue
            found.append(socket.inet_ntoa(answer[20:24]))
    return [address for address in found if not address.startswith("169.254.")]
