"""Count words on all engines and add the counts by MPI, engine to engine.

    $ ipcluster -n 4
    $ python examples/wordcount.py

The text is the source of Python's own standard library, so nothing has to be downloaded. (The engines read the
files themselves: client and engines must see the same Python installation, by the same paths.)

Three steps: *scatter* the list of files, let every engine count its part, and *allreduce* - MPI's word for
"combine what all ranks have, and give everyone the outcome". The partial counts never pass through the client.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from time import perf_counter
from typing import Any

from screen import Screen, ranks_in_order


def text_files(folder: str = os.path.dirname(os.__file__), limit: int = 600) -> list[str]:
    """Return the first ``limit`` Python and text files under a folder, in order of their names."""
    found: list[str] = []
    for place, folders, names in os.walk(folder):
        # Other people's packages come and go while the library itself stays the same.
        folders[:] = [name for name in folders if name != "site-packages"]
        found += [os.path.join(place, name) for name in names if name.endswith((".py", ".txt"))]
    return sorted(found)[:limit]


def count_words(files: Sequence[str]) -> Counter[str]:
    """Return how often each word occurs in the files: runs of a-z, in lower case."""
    counts: Counter[str] = Counter()
    for name in files:
        with open(name, "rb") as file:
            counts.update(re.findall("[a-z]+", file.read().decode("utf-8", errors="replace").lower()))
    return counts


def main(mec: Any, _tc: Any, screen: Screen) -> bool:
    engines = ranks_in_order(mec)
    files = text_files()

    # 1. A pushed function brings its code; the names it uses are looked up on the engine, so import them there.
    screen.typed("mec.push_function({'count_words': count_words})")
    mec.execute("import re; from collections import Counter")
    mec.push_function({"count_words": count_words})

    # 2. Scatter the files, count, and add up over the ranks. A Counter knows "+", so MPI.SUM can add Counters.
    started = perf_counter()
    screen.typed("mec.scatter('files', files)")
    mec.scatter("files", files)
    screen.typed("mec.execute('mine = count_words(files)')")
    mec.execute("mine = count_words(files)")
    screen.typed("mec.execute('counts = mpi.COMM_WORLD.allreduce(mine, op=mpi.SUM)')")
    mec.execute("counts = mpi.COMM_WORLD.allreduce(mine, op=mpi.SUM) if mpi else mine")
    parallel = perf_counter() - started
    screen(f"{len(files)} files counted on {len(engines)} engine(s) in {parallel:.2f} s")

    # 3. After an allreduce everybody has the outcome, so one engine is enough to ask.
    screen.typed("counts = mec.pull('counts', targets=0)[0]")
    counts = mec.pull("counts", targets=engines[0])[0]
    for word, number in counts.most_common(10):
        screen(f"{number:8d}  {word}")

    # 4. Every engine must have the same total, and it must be what one process counts alone.
    mec.execute("total = sum(counts.values())")
    started = perf_counter()
    serial = count_words(files)
    screen(f"the client alone counted the same files in {perf_counter() - started:.2f} s")
    same = counts == serial and set(mec.pull("total")) == {sum(serial.values())}
    figure = (
        f"{sum(counts.values())} words, {len(counts)} distinct, {'equal to' if same else 'NOT'} the serial count"
    )
    return screen.result(figure, same)


if __name__ == "__main__":
    from ipmpi import client

    sys.exit(0 if main(client.MultiEngineClient(), client.TaskClient(), Screen()) else 1)
