"""Run by test_failing_disk.py with a disk that fails: each call in turn; prints what became of it as JSON.

Arguments: folder, path of the preloaded library, errno (negative: short writes), how often, step between calls.
"""

from __future__ import annotations

import ctypes
import json
import shutil
import sys
from pathlib import Path

from ipmpi.errors import JournalDamaged, JournalFull, KernelError
from ipmpi.journal.rows import Change, DropGroup, EndRow, GroupRow
from ipmpi.journal.store import Journal

TRANSACTIONS = 12
TRIES = 40


def changes(number: int) -> list[Change]:
    found: list[Change] = [GroupRow(number, 1, number, b"message", bytes(3000)), EndRow(number, b"end", b"r")]
    return [*found, DropGroup(number - 3)] if number % 4 == 3 else found


def expected(acknowledged: list[int]) -> set[int]:
    dropped = {number - 3 for number in acknowledged if number % 4 == 3}
    return set(acknowledged) - dropped


def write(path: Path) -> tuple[list[int], list[str]]:
    """Write all transactions; return those that were acknowledged, and the errors."""
    acknowledged, errors = [], []
    journal = Journal(path)
    try:
        journal.load()
        for number in range(TRANSACTIONS):
            for _ in range(TRIES):
                try:
                    journal.commit(changes(number))
                except (JournalFull, JournalDamaged) as error:
                    errors.append(type(error).__name__)
                    if isinstance(error, JournalDamaged):
                        return acknowledged, errors
                else:
                    acknowledged.append(number)
                    break
        return acknowledged, errors
    finally:
        journal.close()


def main() -> None:
    folder, library, error, times, step = Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:])
    disk = ctypes.CDLL(library)
    disk.disk_files(str(folder / "j").encode())
    disk.disk_calls.restype = ctypes.c_long
    number, total = 0, 1 << 30
    found = []
    while number <= total:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        path = folder / "j"
        disk.disk_fail(ctypes.c_long(number), error if number else 0, ctypes.c_long(times))
        acknowledged: list[int] = []
        errors: list[str] = []
        try:
            acknowledged, errors = write(path)
        except KernelError as refused:  # it cannot even be opened
            errors = [type(refused).__name__]
        except OSError as refused:
            errors = [type(refused).__name__]
        calls = disk.disk_calls()
        total = calls if not number else total
        disk.disk_fail(ctypes.c_long(0), 0, ctypes.c_long(0))
        try:
            again = Journal(path)
            there = {row.serial for row in again.load().groups}
            again.close()
            # A disk that has failed may have what it was given last, although nothing was acknowledged.
            unclear = [*acknowledged, len(acknowledged)]
            outcomes = {frozenset(expected(unclear)): "unclear", frozenset(expected(acknowledged)): "whole"}
            outcome = outcomes.get(frozenset(there), "lost")
        except JournalDamaged:
            outcome = "said"
        found.append({"call": number, "acknowledged": len(acknowledged), "errors": errors, "outcome": outcome})
        number += step if number else 1
    print(json.dumps({"calls": total, "runs": found}))


if __name__ == "__main__":
    main()
