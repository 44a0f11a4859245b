"""When does the batch job end that this process runs in? Told from options and environment."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from typing import Final

JOB_END: Final = "IPMPI_JOB_END"
"""Unix time at which the job ends. Our job scripts export it, and engines have it in their environment."""

_DAY_FORMS: Final = (("hours",), ("hours", "minutes"), ("hours", "minutes", "seconds"))
_FORMS: Final = (("seconds",), ("minutes", "seconds"), ("hours", "minutes", "seconds"))
_UNITS: Final = {"hours": 3600.0, "minutes": 60.0, "seconds": 1.0}
_LETTERS: Final = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_WITH_LETTERS: Final = "".join(rf"(?:(\d{{1,8}}(?:\.\d+)?){letter})?" for letter in _LETTERS)
_LIKE: Final = "write it like 90m, 1h30m, 5400s, 1:30:00 or 1-12:00:00"


def seconds(text: str) -> float:
    """What a walltime means: 1h30m, 90m, 1:30:00; after days, as in 1-12:00:00, also 1-12 and 1-12:30.

    A number alone is seconds, and 10:30 is minutes and seconds.

    Raises:
        ValueError: it is something else.
    """
    text = text.strip()
    with_letters = re.fullmatch(_WITH_LETTERS, text, re.IGNORECASE)
    if with_letters is not None and text:
        pairs = zip(with_letters.groups("0"), _LETTERS.values(), strict=True)
        return sum(float(number) * unit for number, unit in pairs)
    match = re.fullmatch(r"(?:(\d{1,4})-)?(\d{1,8}(?:\.\d+)?(?::\d{1,4}){0,2})", text)
    if match is None:
        raise ValueError(f"{text!r} is no time: {_LIKE}")
    days, rest = match.groups()
    parts = [float(part) for part in rest.split(":")]
    names = (_FORMS if days is None else _DAY_FORMS)[len(parts) - 1]
    return float(days or 0) * 86400 + sum(_UNITS[name] * part for name, part in zip(names, parts, strict=True))


def span(text: object) -> float | None:
    """The same for what a batch system has printed; None if that is no time, as UNLIMITED."""
    try:
        return seconds(str(text))
    except ValueError:
        return None


def job_seconds(text: str) -> int:
    """The same for a job that is to be submitted, where a number alone would be taken for what it is not.

    Raises:
        ValueError: it is a number alone, or nothing, or no time.
    """
    if re.fullmatch(r"\d+(?:\.\d+)?", text.strip()):
        raise ValueError(
            f"{text.strip()!r} alone means minutes to Slurm and seconds to PBS: write 10m, 600s or 0:10:00"
        )
    whole = int(seconds(text))
    if not whole:
        raise ValueError(f"{text.strip()!r} is too short for a job: {_LIKE}")
    return whole


def job_id(environ: Mapping[str, str]) -> str:
    """The batch system's id of the job, or nothing."""
    array, element = environ.get("SLURM_ARRAY_JOB_ID", ""), environ.get("SLURM_ARRAY_TASK_ID", "")
    if array and element:
        return f"{array}_{element}"
    return environ.get("SLURM_JOB_ID", "") or environ.get("PBS_JOBID", "")


def exported(environ: Mapping[str, str], now: float) -> float | None:
    """Seconds left by what the job script or the batch system has exported; ``now`` is the unix time.

    An end that is past is not that of this job: somebody's shell has kept it.
    """
    for name in (JOB_END, "SLURM_JOB_END_TIME"):
        try:
            left = float(environ.get(name, "")) - now
        except ValueError:
            continue
        if 0 < left < 1e9:
            return left
    return None


def is_in_job(environ: Mapping[str, str]) -> bool:
    """Whether there is a batch system to ask."""
    return bool(environ.get("SLURM_JOB_ID") or environ.get("PBS_JOBID"))


def left() -> float | None:
    """For user code on engines: seconds until the job ends, None if that is not known.

    Clocks of nodes differ: let one rank look, and tell the others.
    """
    try:
        return max(0.0, float(os.environ[JOB_END]) - time.time())
    except (KeyError, ValueError):
        return None


def moment(when: float, now: float) -> str:
    """A time of day, with the date if it is not today, in this machine's zone."""
    that, today = time.localtime(when), time.localtime(now)
    return time.strftime("%H:%M" if that[:3] == today[:3] else "%Y-%m-%d %H:%M", that)


def duration(seconds: float) -> str:
    """Seconds in two words: ``2 h 10 min``."""
    whole = max(0, round(seconds))
    parts = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min"), (whole % 60, "s")]
    first = next((at for at, (number, _) in enumerate(parts) if number), 3)
    shown = parts[first : first + 2] if first < 2 or whole < 600 else parts[first : first + 1]
    return " ".join(f"{number} {unit}" for number, unit in shown if number) or "0 s"


def clock(seconds: int) -> str:
    """Seconds as hours, minutes and seconds: ``1:30:00``."""
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
