"""``python -m ipmpi.bench``: the command line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from ipmpi.client import MultiEngineClient, TaskClient
from ipmpi.errors import KernelError

from ..cli.argtypes import number
from . import bulk, farm, idle, limits, machine, report, scale, steer
from .cluster import Target, foreign, mpi_or_none, own_cluster
from .figures import OURS, Figure, from_times
from .goals import GOAL_BYTES, GOAL_ENGINES, goal_for
from .shares import Share, share_table, shares
from .timing import TookTooLong, limited
from .workloads import mpi_library

PARTS: Final = ("start", "steer", "bulk", "idle", "farm")
PART_LIMIT: Final = 60.0
"""Seconds after which a part is given up; it should take less than 30."""
positive: Final = number("positive", "a number above 0", int, 1, sys.maxsize)
IDLE_SECONDS: Final = 5.0
UNITS: Final = {"GB": 1_000_000_000, "MB": 1_000_000, "KB": 1_000}
FAILURES: Final = (TookTooLong, bulk.WrongData, limits.LimitFailed, KernelError, ConnectionError)
"""What keeps a part from being measured, and leaves the others alone."""


class Run:
    """One run: collects figures and notes, and shows progress."""

    failures: tuple[type[Exception], ...] = FAILURES

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.parts: list[str] = [part for part in PARTS if options.part in (part, "all")]
        self.figures: list[Figure] = []
        self.notes: list[str] = []
        self.machine = machine.describe("")
        self.scaled: dict[int, list[Figure]] = {}
        self.engines: int = options.n
        self.failed = False

    def note(self, text: str) -> None:
        """Something that the reader of the figures has to know."""
        self.notes.append(text)
        print(f"note: {text}", flush=True)

    def collect(self, part: str, figures: Iterable[Figure], seconds: float = PART_LIMIT) -> None:
        """Take the figures of one part as they come; a part that fails leaves the others alone."""
        print(f"measuring {part} ...", file=sys.stderr, flush=True)
        try:
            with limited(seconds, part):
                for figure in figures:
                    goal = None
                    if figure.system == OURS:
                        goal = goal_for(figure.key, self.engines, self.options.transfer, self.options.size)
                    self.figures.append(figure._replace(goal=goal))
        except self.failures as error:
            self.failed = True
            self.note(f"{part}: {error}")

    def everything(self) -> None:
        """Measure what was asked for."""
        if self.options.scale and self.options.furl is not None:
            raise ValueError("--scale starts clusters of its own: leave out --furl")
        if self.options.picture is not None and not self.options.scale:
            raise ValueError("--picture draws what --scale measures: add --scale 1,4,16")
        mpi, sentence = mpi_or_none()
        if sentence and self.options.furl is None:
            self.note(sentence)
        if self.options.limits:
            self._limits(mpi)
        if self.options.scale:
            self._scale(mpi)
        elif self.options.furl is not None:
            self._ours(foreign(self.options.furl))
        else:
            if "start" in self.parts:
                self.collect("start", self._starts(mpi), 40.0 * self.options.repeat)
            if self.parts != ["start"] and not self.failed:
                with own_cluster(self.engines, mpi, self.options.keep_logs) as target:
                    self._ours(target)

    def _limits(self, mpi: str) -> None:
        options = self.options
        self.collect("limits", limits.measure(options.transfer, options.repeat, self.engines, mpi), 2 * PART_LIMIT)

    def _scale(self, mpi: str) -> None:
        options = self.options
        for count in options.scale:
            figures = scale.measure(count, mpi, options.transfer, options.repeat, options.keep_logs)
            before = len(self.figures)
            self.collect(f"{count} engines", figures, 2 * PART_LIMIT)
            self.scaled[count] = self.figures[before:]
            del self.figures[before:]
        if options.picture is not None:
            options.picture.write_text(scale.picture(scale.series(self.scaled)), encoding="utf-8")

    def _starts(self, mpi: str) -> Iterator[Figure]:
        times = []
        for _ in range(min(3, self.options.repeat)):
            with own_cluster(self.engines, mpi, self.options.keep_logs) as target:
                times.append(target.ready_after)
        yield from_times("start", f"nothing to {self.engines} engines registered", "s", times)

    def _ours(self, target: Target) -> None:
        with MultiEngineClient(str(target.mec_furl)) as mec:
            # Before any bulk: what the controller keeps of that must count as growth.
            before = 0 if target.controller_pid is None else machine.resident_bytes(target.controller_pid)
            ids = mec.get_ids()
            self.engines = len(ids)
            self.machine = machine.describe(mec[ids[0]].apply(mpi_library)[0])
            if "steer" in self.parts:
                self.collect("steer", steer.measure(mec, self.options.repeat))
            if "bulk" in self.parts:
                self.collect("bulk", bulk.measure(mec, self.options.transfer, self.options.repeat))
                if self.options.size:
                    self._memory(mec, target, before)
            if "idle" in self.parts:
                self._idle(target)
        if "farm" in self.parts:
            self._farm(target)

    def _memory(self, mec: MultiEngineClient, target: Target, before: int) -> None:
        lacking = bulk.lacking_memory(self.options.size)
        if target.controller_pid is None:
            self.note("--size needs a cluster of our own, to look at its controller: leave out --furl")
        elif lacking:
            self.note(lacking)
        else:
            self.collect("memory", bulk.measure_memory(mec, target, self.options.size, before), 2 * PART_LIMIT)

    def _idle(self, target: Target) -> None:
        if not target.roots:
            self.note("idle needs a cluster of our own, to know all its processes: leave out --furl")
            return
        self.collect("idle", idle.measure(target, IDLE_SECONDS))

    def _farm(self, target: Target) -> None:
        if not target.tc_furl.exists():
            self.note(f"farm needs {target.tc_furl.name} in the folder of the furl file: left out")
            return
        with TaskClient(str(target.tc_furl)) as tc:
            self.collect("farm", farm.measure(tc, self.engines, self.options.repeat))
            if self.options.queue and target.controller_pid is None:
                self.note("--queue needs a cluster of our own, to look at its controller: leave out --furl")
            elif self.options.queue:
                self.collect("queue", farm.measure_queue(tc, target, self.options.queue), 5 * PART_LIMIT)

    def tables(self) -> str:
        """What was measured, for people."""
        figures = report.table(self.figures) if self.figures else ""
        grown = scale.table(scale.series(self.scaled))
        return "\n\n".join(filter(None, [figures, share_table(self._shares()), grown]))

    def _shares(self) -> list[Share]:
        return shares(self.figures, self.options.transfer, one_machine=self.options.furl is None)

    def record(self) -> dict[str, Any]:
        """Everything, for ``json.dump``."""
        options = {key: value for key, value in vars(self.options).items() if key != "json"}
        return {
            "machine": self.machine,
            "options": {**options, "n": self.engines},
            "figures": [figure.as_dict() for figure in self.figures],
            "shares": [vars(share) for share in self._shares()],
            "scale": scale.record(scale.series(self.scaled)),
            "notes": self.notes,
        }


def parse_size(text: str) -> int:
    """Bytes of ``4GB``, ``500MB`` or ``1000``.

    Raises:
        argparse.ArgumentTypeError: it is none of these.
    """
    unit = next((unit for unit in UNITS if text.upper().endswith(unit)), "")
    try:
        size = int(float(text[: len(text) - len(unit)]) * UNITS.get(unit, 1))
    except (ValueError, OverflowError):
        size = 0
    if size < 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size of 1 KB or more, as in 4GB or 500MB")
    return size


def parse_counts(text: str) -> list[int]:
    """Numbers of engines, as in ``1,4,16``, in ascending order.

    Raises:
        argparse.ArgumentTypeError: there is something else in it.
    """
    return sorted({positive(part) for part in text.split(",")})


def parser(prog: str = "python -m ipmpi.bench") -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog=prog,
        description="Measure a cluster: a new one on this machine, stopped at the end, or that of --furl.",
    )
    p.add_argument("part", nargs="?", default="all", choices=[*PARTS, "all"], help="what to measure (all)")
    p.add_argument("-n", type=positive, default=GOAL_ENGINES, metavar="N", help=f"engines ({GOAL_ENGINES})")
    p.add_argument("--furl", type=Path, metavar="FILE", help="ipcontroller-mec.furl of a running cluster")
    p.add_argument(
        "--repeat", type=positive, default=5, metavar="K", help="samples: K of bulk, 100 K of others (5)"
    )
    p.add_argument(
        "--transfer", type=parse_size, default=GOAL_BYTES, metavar="SIZE", help="arrays of bulk (100MB)"
    )
    p.add_argument("--size", type=parse_size, metavar="SIZE", help="bulk: also push one object of this size (4GB)")
    p.add_argument(
        "--queue", type=positive, metavar="N", help="farm: also hand over so many tasks at once (1000000)"
    )
    p.add_argument(
        "--limits", action="store_true", help="also measure the limits of this machine, and show shares of them"
    )
    p.add_argument(
        "--scale", type=parse_counts, metavar="N,N,..", help="instead: the same with so many engines (1,4,16)"
    )
    p.add_argument("--picture", type=Path, metavar="FILE.svg", help="--scale: also draw it, as SVG")
    p.add_argument("--json", type=Path, metavar="FILE", help="also write everything to this file")
    p.add_argument("--keep-logs", type=Path, metavar="FOLDER", help="leave log files of our own cluster there")
    return p


def finish(run: Run) -> int:
    """Measure and report; returns the exit code, which is not 0 if a part failed (a missed goal is no failure)."""
    try:
        run.everything()
    except KeyboardInterrupt:
        run.failed = True
        run.note("stopped by Ctrl-C: what was measured until then follows")
    except (KernelError, OSError, ValueError) as error:
        print(f"ipmpi.bench: {error}", file=sys.stderr)
        if not run.figures and not run.scaled:
            return 1
        run.failed = True
    show(run)
    return int(run.failed)


def show(run: Run) -> None:
    """Print the tables, and write the JSON file."""
    print(report.machine_lines(run.machine, run.engines))
    if tables := run.tables():
        print("\n" + tables)
    if any(figure.goal is not None for figure in run.figures):
        print("\nGoals are of medians; docs/performance.rst has what they are for.")
    elif run.figures:
        print(f"\nThe goals are for {GOAL_ENGINES} engines and {GOAL_BYTES / 1e6:g} MB: not compared.")
    print(*(f"note: {note}" for note in run.notes), sep="\n")
    if run.options.json is not None:
        run.options.json.write_text(json.dumps(run.record(), indent=1, default=str) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return finish(Run(parser().parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
