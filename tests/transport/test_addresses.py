"""Addresses in furls: what a machine is called in each of its networks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

from ipmpi.transport.addresses import local_addresses

NETWORKS = """
ip link set lo up
ip link add ib0 type bridge && ip addr add 10.77.1.5/24 dev ib0 && ip link set ib0 up
ip link add eth7 type bridge && ip addr add 10.77.2.5/24 dev eth7 && ip link set eth7 up
ip link add docker0 type bridge && ip addr add 172.17.0.1/16 dev docker0 && ip link set docker0 up
"""


def in_network_of_its_own(*commands: str) -> list[str]:
    look = f"{sys.executable} -c 'from ipmpi.transport.addresses import *; print(*local_addresses())'"
    done = subprocess.run(
        ["unshare", "--net", "sh", "-ec", "\n".join([NETWORKS, *commands, look])],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.split()


def test_a_node_without_default_route_has_the_addresses_of_all_its_networks(
    need: Callable[[str, object], None],
) -> None:
    need("making a network namespace needs root", os.geteuid() == 0)
    assert in_network_of_its_own() == ["10.77.1.5", "10.77.2.5", "127.0.0.1"]


def test_the_address_of_the_default_route_comes_first(need: Callable[[str, object], None]) -> None:
    need("making a network namespace needs root", os.geteuid() == 0)
    found = in_network_of_its_own("ip route add default dev eth7")
    assert found == ["10.77.2.5", "10.77.1.5", "127.0.0.1"]


def test_loopback_is_the_last_resort() -> None:
    assert local_addresses()[-1] == "127.0.0.1"
