"""map() over load-balanced tasks, in three ways.

    $ ipcluster -n 4
    $ python examples/taskmap.py

Each element becomes one task, and whichever engine is free takes it: right when elements take unequal time.
"""

from __future__ import annotations

import sys
from typing import Any

from screen import Screen


def main(_mec: Any, tc: Any, screen: Screen) -> bool:
    # 1. Like Python's map(), but it returns a list, and the work happens on the engines.
    screen.typed("tc.map(lambda x: 2 * x, range(10))")
    first = tc.map(lambda x: 2 * x, range(10))
    screen(repr(first))

    # 2. A mapper holds options. With block=False you get task numbers at once and fetch results when you like.
    screen.typed("ids = tc.mapper(block=False).map(lambda x: 2 * x, range(10))")
    ids = tc.mapper(block=False).map(lambda x: 2 * x, range(10))
    tc.barrier(ids)
    second = [tc.get_task_result(number, block=True) for number in ids]
    screen(repr(second))

    # 3. A decorator turns a function of one element into a function of whole sequences.
    @tc.parallel()  # type: ignore[untyped-decorator, unused-ignore]
    def double(x: int) -> int:
        return 2 * x

    screen.typed("double(range(10))      # after @tc.parallel()")
    third = double(range(10))
    screen(repr(third))

    expected = list(range(0, 20, 2))
    return screen.result("map, mapper and parallel", [first, second, third] == [expected] * 3)


if __name__ == "__main__":
    from ipmpi import client

    sys.exit(0 if main(client.MultiEngineClient(), client.TaskClient(), Screen()) else 1)
