"""``python -m tests.soak [NAME ...]``: the long forms of tests, and what they have measured."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent


class Form(NamedTuple):
    """A test in its long form.

    Attributes:
        what: what it does, in words.
        tests: arguments of pytest.
        settings: environment variables that make it long.
    """

    what: str
    tests: list[str]
    settings: dict[str, str]


_KILLS = ["tests/integration/test_real_journal.py::test_what_was_accepted_ends_once_and_runs_once"]
_STORE = "tests/journal/test_store.py"

FORMS: Final[dict[str, Form]] = {
    "controller-kills": Form(
        "200 kills of the controller, with 10,000 tasks each", _KILLS,
        {"IPMPI_KILLS": "200", "IPMPI_KILL_TASKS": "10000"},
    ),
    "controller-kills-1000": Form(
        "1,000 kills of the controller, with 10,000 tasks each", _KILLS,
        {"IPMPI_KILLS": "1000", "IPMPI_KILL_TASKS": "10000"},
    ),
    "rank-kills": Form(
        "500 kills of ranks that have tasks", ["tests/integration/test_real_rank_kills.py"],
        {"IPMPI_RANK_KILLS": "500"},
    ),
    "partitions": Form(
        "the network is away for 1, 10, 60 and 150 s", ["tests/integration/test_real_partitions.py"],
        {"IPMPI_PARTITIONS": "1,10,60,150"},
    ),
    "client-kills": Form(
        "200 kills of clients, with 10,000 tasks each; another client finds all results",
        ["tests/integration/test_real_leaving.py::test_all_results_are_found_by_a_new_client"],
        {"IPMPI_CLIENT_KILLS": "100", "IPMPI_LEFT_TASKS": "10000"},
    ),
    "link-bytes": Form(
        "links cut at each byte of a handshake and of the first frames",
        ["tests/security/test_link_cut.py::test_cut_at_any_moment_of_the_handshake_of_a_resumption"],
        {"IPMPI_LINK_CUT_STEP": "1"},
    ),
    "journal-bytes": Form(
        "the journal cut at each byte of its last transactions",
        [f"{_STORE}::test_cut_at_every_byte_of_its_last_transactions"], {"IPMPI_CUT_STEP": "1"},
    ),
    "bit-flips": Form(
        "10,000 bits of the journal changed", [f"{_STORE}::test_bits_that_were_flipped"],
        {"IPMPI_BIT_FLIPS": "10000"},
    ),
    "failing-disk": Form(
        "each write and sync of the journal fails", ["tests/faults/test_failing_disk.py"],
        {"IPMPI_DISK_STEP": "1"},
    ),
    "simulation": Form(
        "ten million simulated steps", ["tests/controller/test_network_simulation.py"],
        {"IPMPI_SIMULATED_STEPS": "10000000"},
    ),
    "exceptions": Form(
        "1,000 exceptions in callbacks", ["tests/faults/test_injected_errors.py"],
        {"IPMPI_INJECTED_ERRORS": "1000"},
    ),
    "growth": Form(
        "100,000 operations and 500 connections", ["tests/integration/test_real_soak.py"], {"IPMPI_SOAK": "long"}
    ),
}  # fmt: skip


def run(name: str, form: Form) -> dict[str, Any]:
    """Run one form; return what it has measured, and whether it has passed."""
    with tempfile.TemporaryDirectory(prefix="ipmpi-soak-") as folder:
        figures = Path(folder, "figures")
        environ = {**os.environ, **form.settings, "IPMPI_FIGURES": str(figures)}
        began = time.monotonic()
        load = os.getloadavg()[0]
        code = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", *form.tests], cwd=ROOT, env=environ, check=False
        ).returncode
        lines = figures.read_text("utf-8").splitlines() if figures.exists() else []
        return {
            "form": name, "what": form.what, "passed": code == 0, "seconds": round(time.monotonic() - began),
            "load": [round(load, 1), round(os.getloadavg()[0], 1)],
            "figures": [json.loads(line) for line in lines],
        }  # fmt: skip


def table(results: list[dict[str, Any]]) -> str:
    """The results for people."""
    lines = []
    for result in results:
        verdict = "passed" if result["passed"] else "FAILED"
        lines.append(
            f"{result['form']:22} {verdict}  {result['seconds']:6} s  load {result['load']}  {result['what']}"
        )
        for figures in result["figures"]:
            told = ", ".join(f"{key} {value}" for key, value in figures.items() if key != "name")
            lines.append(f"    {figures['name']}: {told}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run all forms, or those that are named; 0 if all have passed."""
    command_line = argparse.ArgumentParser("python -m tests.soak", description=__doc__)
    command_line.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(FORMS)} (default: all)")
    command_line.add_argument("--json", type=Path, default=ROOT / "soak.json", help="file for the figures")
    options = command_line.parse_args(arguments)
    unknown = set(options.names) - set(FORMS)
    if unknown:
        command_line.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(FORMS)}")
    results = []
    for name in options.names or FORMS:
        results.append(run(name, FORMS[name]))
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(f"\n{table(results)}\n\nfigures: {options.json}")
    return 0 if all(result["passed"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
