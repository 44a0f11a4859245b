"""``python -m benchmarks``: ipmpi and other systems do the same work in turns, on one machine and in one run."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final
from unittest import mock

from ipmpi.bench import bulk, limits
from ipmpi.bench.__main__ import FAILURES, parse_size, positive
from ipmpi.bench.cluster import mpi_or_none
from ipmpi.bench.figures import Figure
from ipmpi.bench.machine import describe
from ipmpi.bench.report import aligned, machine_lines
from ipmpi.bench.timing import limited
from ipmpi.errors import KernelError

from . import alone, bigobject, comparisontable, turns
from .bigpush import BigPush, big_rows
from .bulkrates import rate_rows
from .comparison import Comparison, may_begin
from .rows import ROWS
from .systems import OWN, SYSTEMS

PARTS: Final = ("limits", "peers", "elsewhere", "big")
ELSEWHERE_LIMIT: Final = 400.0
BIG_LIMIT: Final = 120.0
LIMITS_LIMIT: Final = 60.0


class Run:
    """One run: what was measured so far."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.begin = time.monotonic()
        self.notes: list[str] = []
        self.loads: list[float] = []
        self.limits: list[Figure] = []
        self.comparison: Comparison | None = None
        self.elsewhere: dict[str, Any] = {}
        self.big: list[tuple[str, BigPush]] = []
        self.machine: dict[str, Any] = {}

    def note(self, text: str) -> None:
        """Something that the reader of the figures has to know."""
        self.notes.append(text)
        print(f"note: {text}", file=sys.stderr, flush=True)

    def everything(self) -> None:
        """Measure what was asked for."""
        self.machine = describe(_mpi_library())
        parts: dict[str, Callable[[], None]] = {
            "limits": self._limits, "peers": self._peers, "elsewhere": self._elsewhere, "big": self._big
        }  # fmt: skip
        for name in self.options.parts or PARTS:
            self.loads.append(os.getloadavg()[0])
            try:
                parts[name]()
            except (*FAILURES, KernelError, OSError, subprocess.TimeoutExpired) as error:
                self.note(f"{name}: {error}")

    def _limits(self) -> None:
        options = self.options
        print("measuring limits of this machine ...", file=sys.stderr, flush=True)
        with limited(LIMITS_LIMIT, "limits"):
            self.limits += limits.measure(options.transfer, 3, options.n, mpi_or_none()[0])

    def _peers(self) -> None:
        options = self.options
        refused = alone.why_not()
        prefix = [] if refused else alone.prefix()
        if refused:
            self.note(f"no networks of their own, so Ray, which listens on all addresses, is left out: {refused}")
        found = self.comparison = Comparison(options.systems, options.rows)
        for name in options.systems:
            if not SYSTEMS[name].is_installed():
                found.add_failure(name, "not installed")
            elif refused and SYSTEMS[name].listens_everywhere:
                found.add_failure(name, "it listens on all addresses, and this system gives it no network")
        end, longest = time.monotonic() + 60 * options.minutes, 0.0
        while may_begin(found.rounds, options.rounds, longest, end - time.monotonic()):
            begin = time.monotonic()
            self.loads.append(os.getloadavg()[0])
            for name in found.begin_round():
                print(f"round {found.rounds}: measuring {name} ...", file=sys.stderr, flush=True)
                keys = found.rows_for(name)
                found.add(name, turns.take(name, SYSTEMS[name], keys, options.n, options.transfer, prefix=prefix))
            longest = max(longest, time.monotonic() - begin)

    def _elsewhere(self) -> None:
        options = self.options
        with tempfile.TemporaryDirectory(prefix="ipmpi-benchmark-") as folder:
            record = Path(folder, "elsewhere.json")
            words = ["-n", str(options.n), "--transfer", str(options.transfer), "--json", str(record)]
            words += ["--big", str(options.big)] if self._has_memory() else []
            command = [sys.executable, "-m", "benchmarks.elsewhere", *words]
            try:
                done = subprocess.run(
                    command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                    timeout=ELSEWHERE_LIMIT, check=False,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                self.note(f"elsewhere: gave up after {ELSEWHERE_LIMIT:g} s")
            else:
                if done.returncode:
                    words = done.stdout.strip().splitlines() or [f"exit code {done.returncode}"]
                    self.note(f"elsewhere: {words[-1]}")
            if not record.exists():
                return
            self.elsewhere = json.loads(record.read_text())
        for system, each in self.elsewhere["failed"].items():
            for key, why in each.items():
                self.note(f"elsewhere: {system}: {key or 'left out'}: {why}")
        told = self.elsewhere.get("big", {})
        if "failed" in told:
            self.note(f"elsewhere: one big object: {told['failed']}")
        elif told:
            self.big.append(("by TLS from another machine", BigPush(**told)))

    def _has_memory(self) -> bool:
        lacking = bulk.lacking_memory(self.options.big)
        if lacking:
            self.note(lacking.replace("--size", "--big"))
        return not lacking

    def _big(self) -> None:
        if self._has_memory():
            print("pushing one big object ...", file=sys.stderr, flush=True)
            with limited(BIG_LIMIT, "big"):
                self.big.append(("on one machine", bigobject.push_here(self.options.n, self.options.big)))

    def _versions(self) -> str:
        names = [name for system in self.options.systems for name in SYSTEMS[system].distributions]
        return ", ".join(filter(None, map(_version, dict.fromkeys(names))))

    def _circumstances(self) -> str:
        rounds = self.comparison.rounds if self.comparison is not None else 0
        loads = f"load {min(self.loads):.1f} to {max(self.loads):.1f}" if self.loads else "load not looked at"
        seconds = time.monotonic() - self.begin
        return f"{rounds} rounds in {seconds:.0f} s, {loads}; {self._versions()}"

    def text(self) -> str:
        """What was measured, for a terminal."""
        options = self.options
        parts = [machine_lines(self.machine, options.n), self._circumstances()]
        if self.limits:
            parts.append("\n".join(aligned(comparisontable.limit_rows(self.limits))))
        if self.comparison is not None:
            parts.append(comparisontable.text(self.comparison, options.transfer, options.n))
        if self.elsewhere:
            parts.append("\n".join(aligned(rate_rows(self.elsewhere["rates"]))))
        if self.big:
            parts.append("\n".join(aligned(big_rows(self.big))))
        return "\n\n".join([*parts, *(f"note: {note}" for note in self.notes)])

    def rst(self) -> str:
        """The same for the documentation."""
        options = self.options
        parts = [
            f"{self.machine['cpu']}, {self.machine['cores']} cores; {self.machine['mpi']}.",
            self._circumstances(),
        ]
        if self.comparison is not None:
            parts.append(comparisontable.rst(self.comparison, options.transfer, options.n))
        if self.limits:
            parts.append(comparisontable.list_table(comparisontable.limit_rows(self.limits)))
        if self.elsewhere:
            parts.append(comparisontable.list_table(rate_rows(self.elsewhere["rates"])))
        if self.big:
            parts.append(comparisontable.list_table(big_rows(self.big)))
        if self.notes:
            parts.append("\n".join(f"* {note}" for note in self.notes))
        return "\n\n".join(parts) + "\n"

    def record(self) -> dict[str, Any]:
        """Everything, for ``json.dump``."""
        return {
            "machine": self.machine, "options": vars(self.options), "loads": self.loads, "notes": self.notes,
            "versions": self._versions(), "limits": [figure.as_dict() for figure in self.limits],
            "comparison": self.comparison.record() if self.comparison is not None else None,
            "elsewhere": self.elsewhere, "big": {where: each._asdict() for where, each in self.big},
        }  # fmt: skip


def _version(name: str) -> str:
    try:
        return f"{name} {importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:
        return ""


def _mpi_library() -> str:
    """The MPI library of ranks; asked for in a process of its own, as it starts MPI in that process."""
    done = subprocess.run(
        [sys.executable, "-c", "from mpi4py import MPI; print(MPI.Get_library_version())"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    return done.stdout


def _some_of(known: Sequence[str]) -> Callable[[str], list[str]]:
    def some(text: str) -> list[str]:
        words = [word.strip() for word in text.split(",")]
        for word in words:
            if word not in known:
                raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(known)}")
        return [word for word in known if word in words]

    return some


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    keys = [row.key for row in ROWS]
    p.add_argument("parts", nargs="*", metavar="PART", help=f"what to measure: {', '.join(PARTS)} (all)")
    p.add_argument("-n", type=positive, default=4, metavar="N", help="engines (4)")
    p.add_argument("--transfer", type=parse_size, default=100_000_000, metavar="SIZE", help="arrays (100MB)")
    p.add_argument("--big", type=parse_size, default=4_000_000_000, metavar="SIZE", help="the big object (4GB)")
    p.add_argument(
        "--systems", type=_some_of(list(SYSTEMS)), default=list(SYSTEMS), metavar="NAME,NAME...",
        help=f"some of {', '.join(SYSTEMS)} (all)",
    )  # fmt: skip
    p.add_argument(
        "--rows", type=_some_of(keys), default=keys, metavar="ROW,ROW...", help=f"some of {', '.join(keys)} (all)"
    )
    p.add_argument("--rounds", type=positive, default=5, metavar="K", help="rounds at most (5)")
    p.add_argument(
        "--minutes", type=float, default=5.5, metavar="M", help="begin no round that would end after these (5.5)"
    )
    p.add_argument("--json", type=Path, metavar="FILE", help="write everything to this file")
    p.add_argument("--rst", type=Path, metavar="FILE", help="write tables for the documentation to this file")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report; returns the exit code, which is 1 if nothing of ours could be measured."""
    options = parser().parse_args(arguments)
    for part in options.parts:
        if part not in PARTS:
            parser().error(f"{part!r} is none of {', '.join(PARTS)}")
    run = Run(options)
    try:
        # All that is started finds this checkout, wherever it runs.
        with mock.patch.dict("os.environ", PYTHONPATH=turns.python_path()):
            run.everything()
    except KeyboardInterrupt:
        run.note("stopped by Ctrl-C: what was measured until then follows")
    print(run.text())
    if options.json is not None:
        options.json.write_text(json.dumps(run.record(), indent=1, default=str) + "\n")
    if options.rst is not None:
        options.rst.write_text(run.rst())
    asked_for_ours = run.comparison is not None and OWN in options.systems
    return int(asked_for_ours and run.comparison is not None and not run.comparison.has(OWN))


if __name__ == "__main__":
    sys.exit(main())
