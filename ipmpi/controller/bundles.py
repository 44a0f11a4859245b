"""Bundles: the tasks that one client has submitted under one name, which may outlive it (no I/O).

Tasks without a name are in a bundle as well, one for each client. Who holds the same furl as the client may ask
for all of its bundles. Counts and sizes are here; states of tasks are in the farm, and results in whatever keeps
them.
"""

from __future__ import annotations

import bisect
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from .. import limits
from ..errors import ClientError
from ..protocol import messages as m
from ..protocol.namedtasks import UNNAMED
from .bundle import Bundle, BundleGroup, Origin
from .keptbundles import KeptBundles

NAMES: Final = 10
"""Names that a message about an unknown one lists."""

ENDED: Final = 4096
"""Ended groups of a client that is there which are remembered although their results are not kept: at least so
many, and at most twice as many."""


_ROW: Final = 40
"""Bytes of a group in the answer to ResumeTasks without its label, at most."""


class Bundles:
    """All bundles, by name, by client, and by their groups.

    Attributes:
        kept: those that are kept, and for how long.
    """

    def __init__(self) -> None:
        self._by_name: dict[tuple[str, str], Bundle] = {}
        self._by_client: dict[int, dict[str, Bundle]] = {}
        self._groups: dict[tuple[int, int], BundleGroup] = {}
        self._serials: dict[int, BundleGroup] = {}
        self._by_number: dict[int, Bundle] = {}
        self._numbers: dict[str, list[int]] = {}
        """By holder: the numbers of the bundles that can be found, ascending."""
        self.kept = KeptBundles()

    def __iter__(self) -> Iterator[Bundle]:
        return iter(list(self._by_name.values()))

    def of_client(self, client: int) -> list[Bundle]:
        """Return the bundles of a client."""
        return list(self._by_client.get(client, {}).values())

    def group(self, client: int, number: int) -> BundleGroup | None:
        """Return a group by the number that its client has given it."""
        return self._groups.get((client, number))

    def by_serial(self, serial: int) -> BundleGroup | None:
        """Return a group by its serial."""
        return self._serials.get(serial)

    def after(self, holder: str, number: int) -> Iterator[Bundle]:
        """Yield the bundles of the holder of a furl with larger numbers than this one, in their order."""
        numbers = self._numbers.get(holder, [])
        for at in range(bisect.bisect_right(numbers, number), len(numbers)):
            yield self._by_number[numbers[at]]

    def find(self, holder: str, name: str) -> Bundle:
        """Return a bundle; raises ClientError if the holder of this furl has none of this name."""
        found = self._by_name.get((holder, name))
        if found is None:
            there = [bundle.name for bundle in self if bundle.holder == holder]
            shown = ", ".join(map(repr, there[-NAMES:])) + (" and others" if len(there) > NAMES else "")
            raise ClientError(
                f"there are no tasks named {name!r}; they may have been forgotten, or have ended so long ago that "
                f"they were dropped. There are: {shown or 'none'}"
            )
        return found

    def check(self, client: int, holder: str, name: str, number: int) -> None:
        """Raise ClientError if another client has tasks of this name, or this one another group of this number."""
        if (client, number) in self._groups:
            raise ClientError(f"the number {number} was used for another group of tasks")
        known = self._by_name.get((holder, name)) if name else None
        if known is not None and known.client != client:
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(known.submitted))
            raise ClientError(
                f"there are tasks named {name!r} already, submitted by {known.origin.user}@{known.origin.host} on "
                f"{when}: resume() gives them, forget() drops them; or choose another name"
            )

    def add(
        self, client: int, holder: str, origin: Origin, serial: int, message: m.SubmitTasks, now: float
    ) -> BundleGroup:
        """Add a group to the bundle of its name, or begin one."""
        options = message.options
        name = options.name or f"{UNNAMED}{client}"
        bundle = self._by_client.get(client, {}).get(name)
        if bundle is None:
            bundle = self.begin(Bundle(serial, client, name, holder, origin, now))
        group = BundleGroup(bundle, serial, message, origin.detach if options.detach is None else options.detach)
        bundle.groups[serial] = self._groups[client, group.number] = self._serials[serial] = group
        bundle.open += 1
        bundle.ended = 0.0
        bundle.size += group.size
        self._changed(bundle)
        return group

    def begin(self, bundle: Bundle) -> Bundle:
        """Add a bundle without groups."""
        before = self._by_name.get((bundle.holder, bundle.name))
        if before is not None:
            self._leave_order(before)
            self.kept.changed(before, is_there=False)
        self._by_name[bundle.holder, bundle.name] = self._by_number[bundle.number] = bundle
        bisect.insort(self._numbers.setdefault(bundle.holder, []), bundle.number)
        self._by_client.setdefault(bundle.client, {})[bundle.name] = bundle
        self._changed(bundle)
        return bundle

    def _changed(self, bundle: Bundle) -> None:
        is_there = self._by_name.get((bundle.holder, bundle.name)) is bundle
        self.kept.changed(bundle, is_there=is_there)

    def left(self, bundle: Bundle) -> None:
        """The client of a bundle is gone, and its tasks go on."""
        bundle.is_orphan = True
        self._changed(bundle)

    def closed(self, group: BundleGroup, succeeded: int, now: float) -> None:
        """All tasks of a group have ended."""
        bundle = group.bundle
        group.is_open = False
        group.succeeded, group.failed = succeeded, group.tasks - succeeded
        bundle.open -= 1
        if not bundle.open:
            bundle.ended = now
        self._changed(bundle)

    def forget_ended(self, bundle: Bundle) -> None:
        """Take out the oldest groups that have ended, if there are too many; their tasks still count."""
        ended = len(bundle.groups) - bundle.open
        if ended >= 2 * ENDED:
            over = (group for group in bundle.groups.values() if not group.is_open)
            for group in list(itertools.islice(over, ended - ENDED)):
                self.remove(group)

    def grown(self, group: BundleGroup, size: int) -> None:
        """So many bytes more are kept of a group."""
        group.size += size
        group.bundle.size += size
        self._changed(group.bundle)

    def remove(self, group: BundleGroup) -> None:
        """Take a group out, but count its tasks; a bundle that may end with it stays."""
        bundle = group.bundle
        if bundle.groups.pop(group.serial, None) is None:
            return
        self._groups.pop((bundle.client, group.number), None)
        self._serials.pop(group.serial, None)
        bundle.open -= group.is_open
        bundle.size -= group.size
        bundle.succeeded += group.succeeded
        bundle.failed += group.failed
        self._changed(bundle)

    def close(self, bundle: Bundle) -> bool:
        """Nobody finds a bundle any more, and other tasks may have its name; return whether it was there.

        Its groups are still known, until :meth:`remove`.
        """
        if self._by_name.get((bundle.holder, bundle.name)) is not bundle:
            return False
        del self._by_name[bundle.holder, bundle.name]
        self._leave_order(bundle)
        self._changed(bundle)
        theirs = self._by_client[bundle.client]
        del theirs[bundle.name]
        if not theirs:
            del self._by_client[bundle.client]
        return True

    def _leave_order(self, bundle: Bundle) -> None:
        del self._by_number[bundle.number]
        numbers = self._numbers[bundle.holder]
        del numbers[bisect.bisect_left(numbers, bundle.number)]
        if not numbers:
            del self._numbers[bundle.holder]


def groups_told(bundle: Bundle, after: int, most: int, size: int) -> dict[str, Any]:
    """Return the answer to :class:`ResumeTasks`: groups with larger serials than ``after``, in their order.

    Args:
        bundle: the bundle.
        after: the last serial that was told before.
        most: of so many groups.
        size: bytes of the answer, about; the last row may make it larger.
    """
    chosen = sorted(serial for serial in bundle.groups if serial > after)
    told: list[list[Any]] = []
    for serial in chosen[:most]:
        if size <= 0:
            break
        group = bundle.groups[serial]
        label = group.label[: limits.LABEL]
        told.append([serial, group.tasks, group.is_map, group.size, label])
        size -= _ROW + len(label.encode("utf-8", "replace"))
    return {"groups": told, "more": len(chosen) > len(told)}


def told_of(bundle: Bundle, states: Callable[[int, int], tuple[int, int, int]]) -> list[Any]:
    """Return the row of a bundle in the answer to :class:`TaskHistory`.

    Args:
        bundle: the bundle.
        states: returns how many tasks of an open group, by its client and number, run, have succeeded and failed.
    """
    tasks, succeeded, failed = bundle.tasks()
    running = 0
    for group in bundle.groups.values() if bundle.open else ():
        if group.is_open:
            counts = states(bundle.client, group.number)
            running, succeeded, failed = running + counts[0], succeeded + counts[1], failed + counts[2]
    host, user, _ = bundle.origin
    there = not bundle.is_orphan
    return [bundle.number, bundle.name, bundle.submitted, host, user, tasks, succeeded, failed, running, there]
