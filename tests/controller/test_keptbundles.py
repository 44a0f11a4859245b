"""Which bundles are not kept any longer: as by looking at each, at the cost of those that are not."""

from __future__ import annotations

import random
import sys
from types import FrameType
from typing import Any

import pytest

from ipmpi.controller.bundle import UNKNOWN, Bundle, BundleGroup
from ipmpi.controller.bundles import Bundles
from ipmpi.protocol import messages as m, packed


def submit(bundles: Bundles, serial: int, name: str, size: int, now: float, client: int = 1) -> BundleGroup:
    message = m.SubmitTasks(serial, m.TaskOptions(b"", "f()", name=name), packed.pack([size]), [size])
    return bundles.add(client, "tc", UNKNOWN, serial, message, now)


def expired_by_looking(bundles: Bundles, now: float, keep: float, keep_bytes: int) -> list[Bundle]:
    kept = [bundle for bundle in bundles if bundle.is_kept]
    over = [bundle for bundle in kept if bundle.ended and bundle.ended + keep <= now]
    left = [bundle for bundle in kept if bundle not in over]
    held = sum(bundle.size for bundle in left)
    others = [bundle for bundle in left if bundle.ended or bundle.is_orphan]
    for bundle in sorted(others, key=lambda b: (not b.ended, b.ended or b.submitted, b.number)):
        if held <= keep_bytes:
            break
        over.append(bundle)
        held -= bundle.size
    return over


def surplus_by_looking(bundles: Bundles, keep_bytes: int) -> list[BundleGroup]:
    there = [bundle for bundle in bundles if bundle.is_kept and not bundle.ended and not bundle.is_orphan]
    there.sort(key=lambda bundle: bundle.number)
    held = sum(bundle.size for bundle in there)
    found: list[BundleGroup] = []
    for group in [group for bundle in there for group in bundle.groups.values()]:
        if held > keep_bytes and group.size:
            found.append(group)
            held -= group.size
    return found


@pytest.mark.parametrize("seed", range(30))
def test_they_are_those_that_are_found_by_looking_at_each(seed: int) -> None:
    chance, bundles, groups = random.Random(seed), Bundles(), list[BundleGroup]()
    sometimes = 0
    for step in range(1, 300):
        now, act = step / 10, chance.randrange(8)
        group = chance.choice(groups) if groups else None
        if act < 3 or group is None:
            name, client = chance.choice(["", *"abcdefgh"]), chance.randrange(1, 4)
            groups.append(
                submit(bundles, step, f"{name}{client}" if name else "", chance.randrange(50), now, client)
            )
        elif act == 3 and group.is_open:
            bundles.closed(group, 0, now)
        elif act == 4:
            bundles.grown(group, chance.randrange(-group.size, 50))
        elif act == 5:
            bundles.remove(group)
            groups.remove(group)
        elif act == 6:
            bundles.left(group.bundle)
        elif chance.random() < 0.3:
            bundles.close(group.bundle)
        keep, size = chance.choice([1.0, 5.0, 100.0]), chance.choice([0, 100, 300, 10_000])
        over = expired_by_looking(bundles, now, keep, size)
        assert {b.number for b in bundles.kept.expired(now, keep, size)} == {b.number for b in over}
        assert bundles.kept.surplus(size) == surplus_by_looking(bundles, size)
        ends = [bundle.ended + keep for bundle in bundles if bundle.is_kept and bundle.ended]
        assert bundles.kept.next_expiry(keep) == min(ends, default=None)
        sometimes += bool(over)
    assert sometimes > 20


def test_a_bundle_that_ends_often_is_remembered_once() -> None:
    bundles = Bundles()
    bundles.closed(submit(bundles, 1, "first", 10, 0.0), 1, 1.0)
    for number in range(2, 5000):
        group = submit(bundles, number, "second", 10, float(number))
        bundles.closed(group, 1, float(number))
        bundles.remove(group)
    assert len(bundles.kept._ends) < 200
    assert [bundle.name for bundle in bundles.kept.expired(1e6, 1.0, 10**9)] == ["first", "second"]


def calls_of_a_look(count: int, ended: int) -> int:
    """Function calls of a look at so many bundles, some of which have ended and one of which has expired."""
    bundles = Bundles()
    for number in range(1, count + 1):
        group = submit(bundles, number, f"n{number}", 10, 1.0)
        if number <= ended:
            bundles.closed(group, 1, 100.0 + number)
    calls = 0

    def called(_frame: FrameType, event: str, _what: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(called)
    try:
        over = bundles.kept.expired(111.0, 10.0, 20 * count)
        bundles.kept.surplus(20 * count)
        bundles.kept.next_expiry(10.0)
    finally:
        sys.setprofile(None)
    assert [bundle.number for bundle in over] == [1]
    return calls


def test_a_look_costs_as_much_for_many_bundles_as_for_few() -> None:
    few = calls_of_a_look(20, 10)
    assert few < 60
    assert calls_of_a_look(20_000, 10_000) == few
