"""The first example: two tasks, two words.

$ ipcluster -n 4
$ python examples/helloworld.py
"""

from __future__ import annotations

import sys
from typing import Any

from screen import Screen


def main(_mec: Any, tc: Any, screen: Screen) -> bool:
    from ipmpi import client

    # A StringTask is some source text, and the names whose values should come back.
    hello = client.StringTask('word = "Hello,"', pull="word")
    world = client.StringTask('word = "World!"', pull="word")

    # run() hands a task over and returns its number at once.
    ids = [tc.run(hello), tc.run(world)]
    screen(f"Submitted tasks: {ids[0]} {ids[1]}")

    # get_task_result(block=True) waits; the pulled names are attributes of .ns
    words = [tc.get_task_result(number, block=True).ns.word for number in ids]
    return screen.result(" ".join(words), words == ["Hello,", "World!"])


if __name__ == "__main__":
    from ipmpi import client

    sys.exit(0 if main(client.MultiEngineClient(), client.TaskClient(), Screen()) else 1)
