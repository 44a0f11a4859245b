"""map() over all engines at once, in three ways.

    $ ipcluster -n 4
    $ python examples/multienginemap.py

The sequence is cut into one block per engine before anything runs: the cheapest way when all elements take
the same time. When they do not, use a TaskClient (``taskmap.py``).
"""

from __future__ import annotations

import sys
from typing import Any

from screen import Screen


def main(mec: Any, _tc: Any, screen: Screen) -> bool:
    # 1. Like Python's map(), but it returns a list, and each engine does its block.
    screen.typed("mec.map(lambda x: 2 * x, range(10))")
    first = mec.map(lambda x: 2 * x, range(10))
    screen(repr(first))

    # 2. A mapper holds options. With block=False you get a PendingResult; .r waits for the value.
    screen.typed("pending = mec.mapper(block=False).map(lambda x: 2 * x, range(10)); pending.r")
    second = mec.mapper(block=False).map(lambda x: 2 * x, range(10)).r
    screen(repr(second))

    # 3. A decorator turns a function of one element into a function of whole sequences.
    @mec.parallel()  # type: ignore[untyped-decorator, unused-ignore]
    def double(x: int) -> int:
        return 2 * x

    screen.typed("double(range(10))      # after @mec.parallel()")
    third = double(range(10))
    screen(repr(third))

    expected = list(range(0, 20, 2))
    return screen.result("map, mapper and parallel", [first, second, third] == [expected] * 3)


if __name__ == "__main__":
    from ipmpi import client

    sys.exit(0 if main(client.MultiEngineClient(), client.TaskClient(), Screen()) else 1)
