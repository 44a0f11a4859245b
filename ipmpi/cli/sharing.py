"""``ipcluster share``, ``revoke``, ``rotate``, ``admit``: who may come to a cluster, and for how long."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ipmpi.cli import argtypes
from ipmpi.cli.printing import show_table
from ipmpi.client import MultiEngineClient
from ipmpi.client.engines.sharing import MOST
from ipmpi.environment.walltime import duration, moment
from ipmpi.errors import LauncherError
from ipmpi.furl import write_private
from ipmpi.launch.cluster import defaultfurls, records
from ipmpi.launch.cluster.records import ClusterRecord
from ipmpi.limits import FURL_LASTS, MAX_ENGINES
from ipmpi.ranges import ranges

LASTS: Final = 8 * 3600
"""Seconds that a furl lasts if nothing is said."""

_UNITS: Final = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_ID: Final = re.compile(r"[a-z2-7]{1,16}", re.ASCII)


def main(command: str, words: Sequence[str]) -> int:
    """Run one of the commands; return its exit code."""
    parsed = parser(command).parse_args(words)
    record = records.find(parsed.name)
    with MultiEngineClient(record.furl_files.get("mec", "")) as mec:
        return _COMMANDS[command](parsed, record, mec)


def parser(command: str = "share") -> argparse.ArgumentParser:
    """The command line."""
    p = argtypes.Parser(prog=f"ipcluster {command}", description=_PURPOSES[command])
    p.add_cluster_name()
    if command == "share":
        _add_bounds(p)
    if command == "revoke":
        p.add_argument("ids", nargs="*", type=furl_id, metavar="ID", help="furls, as --list of share shows them")
        p.add_argument("--all", action="store_true", help="all that were shared")
    if command == "rotate":
        p.add_argument(
            "--now", action="store_true",
            help="end all sessions that were begun with the former furls, those of engines as well",
        )  # fmt: skip
    if command == "admit":
        p.add_argument("sets", nargs="*", type=argtypes.count, metavar="SET", help="engine sets (default: list)")
        p.add_argument("--all", action="store_true", help="all that wait")
        p.add_argument("--refuse", action="store_true", help="have them end")
    return p


def _add_bounds(p: argparse.ArgumentParser) -> None:
    p.add_argument("--list", action="store_true", help="show the furls that were given out and have not ended")
    p.add_argument("--json", action="store_true", help="with --list: print it as JSON")
    p.add_argument(
        "--role", choices=["monitor", "tasks"], default="monitor",
        help="monitor: look, and change nothing (default); tasks: submit tasks",
    )  # fmt: skip
    p.add_argument(
        "--for", dest="lasts", type=lasting, default=LASTS, metavar="TIME",
        help=f"until it ends: 90m, 2h, 1-12:00:00 with days ({LASTS // 3600}h)",
    )  # fmt: skip
    p.add_argument("--tasks", type=total, default=None, metavar="N", help="allow so many tasks in all")
    p.add_argument(
        "--bytes", dest="size", type=total, default=None, metavar="N",
        help="allow so many bytes of arguments and functions in all: 500M, 2G",
    )  # fmt: skip
    p.add_argument(
        "--engines", type=engine_ids, default=None, metavar="IDS",
        help="these engines only, as in 0-3,7: its holder sees no others, and tasks run on no others",
    )  # fmt: skip
    p.add_argument("--note", type=argtypes.line, default="", metavar="TEXT", help="for whom it is")
    p.add_argument(
        "-o", "--out", type=file_or_screen, default="", metavar="FILE",
        help="the file to write (default: NAME-ROLE-ID.furl in this folder); - prints the furl",
    )  # fmt: skip


def total(text: str) -> int:
    """A number of tasks or bytes: 500, 64k, 2G."""
    found = re.fullmatch(r"([0-9]{1,16})([kmgt]?)", text, re.ASCII | re.IGNORECASE)
    number = int(found[1]) << _UNITS[found[2].lower()] if found else -1
    if not 0 <= number <= MOST:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no number: write 500, 64k, 20M or 2G (powers of 1024)")
    return number


def lasting(text: str) -> float:
    """Seconds until a furl ends."""
    seconds = float(argtypes.walltime(text))
    if not 0 < seconds <= FURL_LASTS:
        raise argparse.ArgumentTypeError(f"{text[:40]!r}: a furl lasts more than 0 seconds, and at most 366 days")
    return seconds


def file_or_screen(text: str) -> str:
    """The path of a file, or - for the screen."""
    return text if text == "-" else argtypes.path_name(text)


def engine_ids(text: str) -> list[int]:
    """Ids of engines: 0-3,7."""
    found: dict[int, None] = {}
    for part in text.split(","):
        match = re.fullmatch(r" *([0-9]{1,6})(?:-([0-9]{1,6}))? *", part, re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < MAX_ENGINES:
            raise argparse.ArgumentTypeError(f"{text[:40]!r} are no ids of engines: write them as 0-3,7")
        found.update(dict.fromkeys(range(first, last + 1)))
    return list(found)


def furl_id(text: str) -> str:
    """The id of a furl."""
    if not _ID.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is no id of a furl: `ipcluster share NAME --list` has them"
        )
    return text


# --- share and revoke ----------------------------------------------------------------------------------------


def _share(parsed: argparse.Namespace, record: ClusterRecord, mec: MultiEngineClient) -> int:
    if parsed.list:
        return _list(mec.shared(), parsed.json)
    if parsed.role == "monitor" and (parsed.tasks is not None or parsed.size is not None):
        raise LauncherError("--tasks and --bytes are bounds of a furl for tasks: say --role tasks as well")
    made = mec.share(
        parsed.role, float(parsed.lasts), tasks=parsed.tasks, size=parsed.size, engines=parsed.engines,
        note=parsed.note,
    )  # fmt: skip
    now = time.time()
    ends = f"It ends at {moment(now + parsed.lasts, now)}, or by: ipcluster revoke {record.name} {made.id}"
    if parsed.out == "-":
        print(made.furl)
        print(ends, file=sys.stderr)
        return 0
    path = Path(parsed.out or f"{record.name}-{parsed.role}-{made.id}.furl").expanduser().absolute()
    try:
        write_private(path, f"{made.furl}\n".encode("ascii"))
    except BaseException:
        mec.revoke(made.id)  # nobody has it
        raise
    kind = "TaskClient" if parsed.role == "tasks" else "Monitor"
    print(f"Wrote the furl {made.id} to {path}. {ends}")
    print("Who has it is let in: send it as you would send a password. To connect with it:")
    print(f"client.{kind}({path.name!r})")
    return 0


def _list(rows: list[dict[str, Any]], as_json: bool) -> int:
    if as_json:
        print(json.dumps(rows, indent=1))
        return 0
    if not rows:
        print("No furl has been given out. To give one to a colleague: ipcluster share NAME --for 2h")
        return 0
    show_table([("ID", "ROLE", "ENDS IN", "USED", "ENGINES", "FOR"), *map(_row, rows)])
    return 0


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    engines = "all" if row["engines"] is None else ranges(row["engines"]) or "none"
    if row["role"] == "engine":
        return (
            row["id"],
            "launch",
            _left(row),
            _of(row["places"][0], row["places"][1], "engines"),
            "",
            row["note"],
        )
    counted = ("tasks", "bytes") if row["role"] == "tasks" else ()
    used = [_of(row[what][0], row[what][1], what) for what in counted]
    return (row["id"], row["role"], _left(row), ", ".join(used), engines, row["note"])


def _left(row: dict[str, Any]) -> str:
    return "-" if row["left"] is None else duration(row["left"])


def _of(used: int, most: int | None, what: str) -> str:
    return f"{used:,} {what}" if most is None else f"{used:,} of {most:,} {what}"


def _revoke(parsed: argparse.Namespace, record: ClusterRecord, mec: MultiEngineClient) -> int:
    if bool(parsed.ids) == parsed.all:
        raise LauncherError(
            f"which furls? ipcluster revoke {record.name} ID, or --all; ipcluster share {record.name} --list "
            "shows them"
        )
    ended = mec.revoke(None if parsed.all else parsed.ids)
    print(f"Ended: {', '.join(ended)}." if ended else "There was none.")
    return 0


# --- rotate and admit ----------------------------------------------------------------------------------------


def _rotate(parsed: argparse.Namespace, record: ClusterRecord, mec: MultiEngineClient) -> int:
    left = [row for row in mec.shared() if row["role"] != "engine"]
    for role, path in mec.rotate(parsed.now).items():
        print(f"New furl of {role}: {path}")
    if not record.ssh:
        defaultfurls.refresh(record)
    print(
        "Sessions that were begun with the former furls have ended." if parsed.now else
        "Who is connected stays connected; the former furls let nobody else in. To end these sessions, too: --now"
    )  # fmt: skip
    if left:
        print(f"Furls that were shared go on ({len(left)}): ipcluster revoke {record.name} --all ends them.")
    return 0


def _admit(parsed: argparse.Namespace, record: ClusterRecord, mec: MultiEngineClient) -> int:
    if parsed.sets and parsed.all:
        raise LauncherError("which engine sets? Give their numbers, or --all, and not both")
    if not (parsed.sets or parsed.all):
        waiting = mec.waiting_engines()
        for each in waiting:
            hosts = ", ".join(each["hosts"])
            print(
                f"{each['set']}: {_engines(each['engines'])} on {hosts}, of user "
                f"{each['user'] or 'unknown'}, from {each['from']} ({each['why']})"
            )
        print(f"To admit them: ipcluster admit {record.name} SET, or --all" if waiting else "No engines wait.")
        return 0
    decide = mec.turn_away if parsed.refuse else mec.admit
    done = decide(None if parsed.all else parsed.sets)
    word = "Refused" if parsed.refuse else "Admitted"
    print(
        f"{word}: {_engines(sum(each['engines'] for each in done))} in {len(done)} set{'s' * (len(done) != 1)}."
        if done
        else "None waits."
    )
    return 0


def _engines(count: int) -> str:
    return f"{count} engine{'s' * (count != 1)}"


_COMMANDS: Final[Mapping[str, Callable[[argparse.Namespace, ClusterRecord, MultiEngineClient], int]]] = {
    "share": _share,
    "revoke": _revoke,
    "rotate": _rotate,
    "admit": _admit,
}
_PURPOSES: Final[Mapping[str, str]] = {
    "share": "Make a furl for a colleague, which ends by itself, or show those that there are.",
    "revoke": "End furls that were shared, with the sessions of their holders.",
    "rotate": "Replace the secrets in all furl files of a cluster, which goes on.",
    "admit": "Show, admit or refuse engines that wait to be admitted (see --admit and --any-node).",
}
