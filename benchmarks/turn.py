"""One system's turn: start it, do some rows of work, end it.

A process of its own, which :mod:`benchmarks.turns` starts. What was measured is written to a file as it comes, one
JSON object a line, so that whatever hangs costs only itself.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy

from ipmpi.bench.timing import TookTooLong, limited, sample

from .rows import BY_KEY, TRIAL_TASKS, Row, tasks_for
from .systems import RUNNING, SYSTEMS
from .systems.calls import part
from .systems.system import System

START_LIMIT: Final = 40.0
ROW_LIMIT: Final = 20.0
"""Seconds after which a start, or a row, is given up."""


class WrongData(Exception):
    """What came back is not what was sent."""


def call_for(system: System, row: Row, array: Any) -> Callable[[], object]:
    """What to do again and again for a call or a transfer; prepares it, and checks what comes back."""
    method: Callable[..., Any] = getattr(system, row.key)
    if row.key in ("push_all", "scatter"):
        return lambda: method(array)
    if row.key == "pull_one":
        system.prepare_pull(array.nbytes)
    if row.key == "gather":
        system.scatter(array)
    if row.kind == "transfer" and not numpy.array_equal(method(), array):
        raise WrongData("what came back is not what was sent")
    return method


def seconds_of(system: System, row: Row, array: Any) -> list[float]:
    """Measure one row: seconds of each call, of each transfer, or of a task in each sample of tasks."""
    if row.kind != "tasks":
        call = call_for(system, row, array)
        return sample(call, row.samples, warm=row.warm, budget=row.budget)
    method: Callable[[int], object] = getattr(system, row.key)
    count = TRIAL_TASKS
    for _ in range(2):  # the first trial is too short where tasks are quick
        count = tasks_for(count, sample(partial(method, count), 1, warm=0)[0])
    return [each / count for each in sample(partial(method, count), row.samples, warm=0, budget=row.budget)]


def measure(system: System, rows: Iterable[Row], array: Any, tell: Callable[[dict[str, Any]], None]) -> None:
    """Do all rows and tell of each; a row that fails leaves the others alone, one that hangs is the last one."""
    for row in rows:
        tell({"begun": row.key})
        try:
            with limited(ROW_LIMIT, row.key):
                tell({"row": row.key, "seconds": seconds_of(system, row, array)})
        except TookTooLong:
            tell({"row": row.key, "failed": f"gave up after {ROW_LIMIT:g} s"})
            return
        except Exception as error:  # any of a system's own
            first_line = (str(error).strip() or "no message").splitlines()[0]
            tell({"row": row.key, "failed": f"{type(error).__name__}: {first_line}"[:200]})


def main() -> None:
    """Run the turn."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.turn", description="Measure one system.")
    parser.add_argument("system", choices=[*SYSTEMS, *RUNNING])
    parser.add_argument("rows", nargs="+", choices=list(BY_KEY))
    parser.add_argument("-n", type=int, required=True, help="engines")
    parser.add_argument("--size", type=int, required=True, help="bytes of each transfer")
    parser.add_argument("--since", type=float, required=True, help="the monotonic clock when this was started")
    parser.add_argument("--out", type=Path, required=True, help="file for what was measured")
    parser.add_argument("--contact", type=Path, help="file that says how to reach one that runs already")
    options = parser.parse_args()
    with options.out.open("w") as out:

        def tell(what: dict[str, Any]) -> None:
            out.write(json.dumps(what) + "\n")
            out.flush()

        with limited(START_LIMIT, "start"):
            if options.contact is None:
                class_ = SYSTEMS[options.system].load()
                system = class_(options.n)
            else:
                class_ = RUNNING[options.system].load()
                system = class_(json.loads(options.contact.read_text()))
        started = time.monotonic() - options.since
        with contextlib.closing(system):
            tell({"calls": dict(system.calls)})
            if "start" in options.rows:
                tell({"row": "start", "seconds": [started]})
            rows = [BY_KEY[key] for key in options.rows if key in system.calls]
            measure(system, rows, part(0, 1, options.size), tell)
            tell({"end": True})


if __name__ == "__main__":
    main()
