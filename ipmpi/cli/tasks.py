"""``ipcluster tasks``: tasks that were submitted with a name, or by a client that is gone."""

from __future__ import annotations

import argparse
import os
import pickle
from collections.abc import Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np

from ipmpi import limits
from ipmpi.cli import argtypes
from ipmpi.cli.printing import show_table
from ipmpi.client import MapResults, NamedTasks, TaskClient
from ipmpi.client.tasks.futures import cancel_all
from ipmpi.errors import LauncherError, text_of
from ipmpi.launch.cluster import records


def task_name(text: str) -> str:
    """A name of tasks."""
    if not text.strip() or not text.isprintable() or len(text) > limits.LABEL:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no name of tasks; see: ipcluster tasks list")
    return argtypes.line(text)


def result_file(text: str) -> Path:
    """The file for results."""
    return argtypes.some_path(text)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argtypes.Parser(
        prog="ipcluster tasks",
        description="List tasks that were submitted with a name, or by a client that is gone; show, cancel or "
        "forget them, or fetch their results into a file.",
        epilog="The file is a pickle of a dictionary: 'results' is the list of results in the order of "
        "submission, with None for tasks that have none, 'errors' a dictionary of the others, number to text. "
        "pickle.load(open(FILE, 'rb')) reads it. If the name ends with .npz, numpy.load(FILE) does: 'results' is "
        "an array of them, 'numbers' the numbers of their tasks.",
    )
    p.add_argument("action", choices=("list", "show", "cancel", "forget", "fetch"), help="what to do")
    p.add_argument(
        "tasks", nargs="?", type=task_name, default=None, metavar="TASKS", help="name of the tasks (not for list)"
    )
    p.add_argument(
        "--cluster", type=argtypes.cluster_name, default="", metavar="NAME",
        help="which cluster, if there are several",
    )  # fmt: skip
    p.add_argument(
        "--furl-file", type=argtypes.path_name, default="", metavar="FILE",
        help="furl for TaskClient (default: that of the cluster)",
    )  # fmt: skip
    p.add_argument(
        "-o", "--output", type=result_file, default=None, metavar="FILE",
        help="file for fetch (default: TASKS.pkl)",
    )  # fmt: skip
    p.add_argument("--wait", action="store_true", help="wait for tasks that have not ended, before fetching")
    return p


def main(words: Sequence[str]) -> int:
    """Run it; returns the exit code."""
    parsed = parser().parse_args(words)
    if parsed.action != "list" and parsed.tasks is None:
        parser().error(f"{parsed.action} needs the name of the tasks; see: ipcluster tasks list")
    file = parsed.furl_file or records.find(parsed.cluster).furl_files.get("tc", "")
    with TaskClient(file) as tc:
        if parsed.action == "list":
            return _list(tc.history())
        known = next((each for each in tc.history() if each.name == parsed.tasks), None)
        if known is None:
            raise LauncherError(f"there are no tasks named {parsed.tasks!r}; see: ipcluster tasks list")
        if parsed.action == "show":
            return _show(known)
        if parsed.action == "cancel":
            return _cancel(tc, known)
        if parsed.action == "forget":
            print(f"{known.name}: {tc.forget(known.name)} tasks were forgotten")
            return 0
        return _fetch(tc, known, parsed.output, parsed.wait)


def _list(found: list[NamedTasks]) -> int:
    if not found:
        print("There are none: no tasks with a name, and none of clients that are gone.")
        return 0
    rows: list[tuple[str, ...]] = [("NAME", "SUBMITTED", "BY", "WAITING", "RUNNING", "DONE", "FAILED", "CLIENT")]
    for each in found:
        counts = map(str, (each.waiting, each.running, each.done, each.failed))
        when, who = f"{each.submitted:%Y-%m-%d %H:%M}", f"{each.user}@{each.host}"
        rows.append((each.name, when, who, *counts, "there" if each.is_there else "gone"))
    show_table(rows)
    return 0


def _show(known: NamedTasks) -> int:
    total = known.waiting + known.running + known.done + known.failed
    print(f"{known.name}: {total} tasks, submitted on {known.submitted:%Y-%m-%d %H:%M:%S}")
    print(f"by {known.user} on {known.host}, whose client is {'there' if known.is_there else 'gone'}")
    for what in ("waiting", "running", "done", "failed"):
        print(f"{getattr(known, what):10d} {what}")
    return 0


def _cancel(tc: TaskClient, known: NamedTasks) -> int:
    resumed = tc.resume(known.name)
    if isinstance(resumed, MapResults):
        resumed.cancel()
    else:
        cancel_all(resumed)
    print(f"{known.name}: what had not started is cancelled, and what has ended is kept.")
    return 0


def _fetch(tc: TaskClient, known: NamedTasks, given: Path | None, wait: bool) -> int:
    path = Path(f"{known.name.replace('/', '_')}.pkl") if given is None else given
    left = known.waiting + known.running
    if left and not wait:
        raise LauncherError(
            f"{left} of the tasks {known.name!r} have not ended: give --wait to wait for them, or come back later"
        )
    resumed = tc.resume(known.name)
    results: list[Any] = []
    errors: dict[int, str] = {}
    if isinstance(resumed, MapResults):
        values = resumed.collect(return_exceptions=True)
    else:
        values = [_outcome(each) for each in resumed]
    for number, value in enumerate(values):
        if isinstance(value, BaseException):
            errors[number] = f"{type(value).__name__}: {text_of(value)}"
        results.append(None if number in errors else value)
    _write(path, known.name, results, errors)
    print(f"{path}: {len(results) - len(errors)} results, {len(errors)} failed")
    return 0


def _outcome(future: Any) -> Any:
    try:
        return future.result()
    except (Exception, CancelledError) as error:
        return error


def _write(path: Path, name: str, results: list[Any], errors: dict[int, str]) -> None:
    part = path.with_name(f"{path.name}.part")
    try:
        with open(part, "xb") as file:
            if path.suffix == ".npz":
                numbers = [number for number in range(len(results)) if number not in errors]
                try:
                    array = np.array([results[number] for number in numbers])
                except ValueError as error:
                    raise LauncherError(
                        f"the results make no array ({error}): fetch them into a .pkl file"
                    ) from None
                if array.dtype.hasobject or array.dtype.kind in "US":  # 1 beside "a" would be "1"
                    raise LauncherError("the results are not numbers or arrays: fetch them into a .pkl file")
                np.savez(file, results=array, numbers=np.array(numbers))
            else:
                pickle.dump({"name": name, "results": results, "errors": errors}, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise LauncherError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
