"""Addresses in furls: what a machine is called in each of its networks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from ipmpi.transport.dial.addresses import is_unspecified, local_addresses, plain

NETWORKS = """
ip link set lo up
ip link add ib0 type bridge && ip addr add 10.77.1.5/24 dev ib0 && ip link set ib0 up
ip link add eth7 type bridge && ip addr add 10.77.2.5/24 dev eth7 && ip link set eth7 up
ip link add docker0 type bridge && ip addr add 172.17.0.1/16 dev docker0 && ip link set docker0 up
"""


def in_network_of_its_own(*commands: str) -> list[str]:
    look = f"{sys.executable} -c 'from ipmpi.transport.dial.addresses import *; print(*local_addresses())'"
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


def test_ipv6_comes_after_ipv4_and_before_loopback(need: Callable[[str, object], None]) -> None:
    need("making a network namespace needs root", os.geteuid() == 0)
    found = in_network_of_its_own(
        "ip addr add fd00::5/64 dev ib0 nodad",
        "ip addr add fe80::5/64 dev ib0 nodad",
        "ip addr add fd00:1::1/64 dev docker0 nodad",
    )
    assert found == ["10.77.1.5", "10.77.2.5", "fd00::5", "127.0.0.1"]


def test_a_machine_with_ipv6_only(need: Callable[[str, object], None]) -> None:
    need("making a network namespace needs root", os.geteuid() == 0)
    alone = "for name in ib0 eth7 docker0; do ip link del $name; done; ip addr del 127.0.0.1/8 dev lo"
    assert in_network_of_its_own(alone, "ip addr add fd00::5/128 dev lo") == ["fd00::5", "::1"]


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "[::]", "0:0:0:0:0:0:0:0", "::0"])
def test_unspecified_addresses_mean_this_machine_wherever_they_are_read(host: str) -> None:
    assert is_unspecified(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "login1", "fd00::5", "192.0.2.0"])
def test_other_addresses_are_specified(host: str) -> None:
    assert not is_unspecified(host)


def test_an_address_of_ipv4_that_came_through_a_socket_of_both_families() -> None:
    assert [plain(address) for address in ("::ffff:192.0.2.7", "192.0.2.7", "fd00::5", "::1")] == [
        *("192.0.2.7", "192.0.2.7", "fd00::5", "::1")
    ]
