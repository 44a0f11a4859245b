"""Types of options for argparse, and a parser with short error messages.

Values are checked before anything is started, written or sent. An empty value is treated as a missing option, as
in a shell script with an unset variable; it is refused if a value is required. A thousand ranks import this
module: what few options need is imported where it is used.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn, TypeVar

from .. import folders, limits
from ..environment import gpus as gpu_numbers, walltime as times
from ..errors import KernelError

T = TypeVar("T")
Number = TypeVar("Number", int, float)

_MESSAGE: Final = 700
"""Most characters of an error message, since words of a command line may be of any length."""
_PATH_BYTES: Final = 4095
_FILE_NAME_BYTES: Final = 255
_ADDRESS: Final = re.compile(r"[A-Za-z0-9_.:%\[\]][A-Za-z0-9_.:%\[\]-]*", re.ASCII)
_MODULE: Final = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"


class Parser(argparse.ArgumentParser):
    """An argument parser whose error messages are short, whatever was typed."""

    def error(self, message: str) -> NoReturn:
        """Print the message, and exit with code 2."""
        half = _MESSAGE // 2
        super().error(message if len(message) <= _MESSAGE else f"{message[:half]} ... {message[-half:]}")

    def add_cluster_name(self, help: str = "which cluster, if there are several") -> None:
        """Add the name of a cluster, which may be left out."""
        self.add_argument("name", nargs="?", type=cluster_name, default="", metavar="NAME", help=help)


def checked(name: str, parse: Callable[[str], T]) -> Callable[[str], T]:
    """Return a type that calls ``parse`` on a line; its ValueError or KernelError is the error message."""

    def parsed(text: str) -> T:
        try:
            return parse(line(text))
        except (ValueError, KernelError) as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    parsed.__name__ = name
    return parsed


def digits(text: str) -> int:
    """Parse a whole number without sign, blanks or underscores, which ``int`` accepts.

    Raises:
        ValueError: it is not a whole number.
    """
    if not text.isdigit():
        raise ValueError(text)
    return int(text)


def number(
    name: str, what: str, read: Callable[[str], Number], least: Number, most: Number
) -> Callable[[str], Number]:
    """Return a type of numbers from ``least`` to ``most``; ``what`` describes them in messages."""

    def parsed(text: str) -> Number:
        with contextlib.suppress(ValueError):
            found = read(text)
            if least <= found <= most:
                return found
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not {what}")

    parsed.__name__ = name
    return parsed


_LONG: Final = math.nextafter(1e6, 0)
engine_number: Final = number(
    "engine_number", f"a number of engines (1 to {limits.MAX_ENGINES})", int, 1, limits.MAX_ENGINES
)
count: Final = number("count", "a number of times", digits, 1, 999_999)
count_or_none: Final = number("count_or_none", "a number of times", digits, 0, 999_999)
lines: Final = number("lines", "a number of lines", digits, 0, 9_999_999)
seconds: Final = number("seconds", "a time in seconds", float, math.ulp(0.0), _LONG)
seconds_or_none: Final = number("seconds_or_none", "a time in seconds, 0 or more", float, 0.0, limits.LONGEST)
whole_seconds: Final = number("whole_seconds", "a whole number of seconds", digits, 0, 999_999)
walltime: Final = checked("walltime", times.seconds)
job_walltime: Final = checked("walltime", times.job_seconds)
gpus: Final = checked("gpus", gpu_numbers.parse)


_UNITS_OF_TIME: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_UNITS_OF_SIZE: Final = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def duration(text: str) -> float:
    """Parse a time as ``7d``, ``12h`` or ``90s``; return seconds."""
    found = re.fullmatch(r"([0-9]{1,9})([smhdw])", text, re.ASCII)
    if found is None or not 0 < (length := int(found[1]) * _UNITS_OF_TIME[found[2]]) <= limits.LONGEST:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a time such as 7d, 12h, 30m or 90s")
    return float(length)


def size(text: str) -> int:
    """Parse a number of bytes as ``10G``, ``500M`` or ``1048576``."""
    found = re.fullmatch(r"([0-9]{1,15})([kKmMgGtT]?)", text, re.ASCII)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number of bytes such as 10G or 500M")
    return int(found[1]) * _UNITS_OF_SIZE[found[2].lower()]


def line(text: str) -> str:
    """Text of one line."""
    if len(text) > limits.LINE:
        raise argparse.ArgumentTypeError(f"{text[:40]!r}... has {len(text)} characters, of at most {limits.LINE}")
    if re.search(r"[\r\n\0]", text):
        raise argparse.ArgumentTypeError(f"there is a line break or a NUL character in {text!r}")
    if not text.isascii() and re.search("[\ud800-\udfff]", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no text in UTF-8")
    return text


def some_line(text: str) -> str:
    """Non-empty text of one line."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"there is nothing in {text!r}")
    return line(text)


def word(text: str) -> str:
    """A word for a batch system."""
    if re.search(r"\s", line(text)):
        raise argparse.ArgumentTypeError(f"there is a blank in {text!r}")
    return text


def path_name(text: str) -> str:
    """The name of a file or folder, or a prefix of such names; a leading dash gets ``./``."""
    try:
        encoded = os.fsencode(text)
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{text!r} has a character that no file name has") from None
    if re.search(rb"[\r\n\0]", encoded):
        raise argparse.ArgumentTypeError(f"there is a line break or a NUL character in the file name {text!r}")
    if len(encoded) > _PATH_BYTES or max(map(len, encoded.split(b"/"))) > _FILE_NAME_BYTES:
        raise argparse.ArgumentTypeError(
            f"the file name {text[:40]!r}... is too long: it may have {_FILE_NAME_BYTES} bytes from one / to the "
            f"next, and {_PATH_BYTES} in all"
        )
    try:
        Path(text).expanduser()
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"{text!r}: there is no such user, or no home folder") from None
    return f"./{text}" if text.startswith("-") else text


def path(text: str) -> Path | None:
    """A file or folder; None for an empty text, which would be the current folder."""
    return Path(path_name(text)) if text else None


def some_path(text: str) -> Path:
    """A file or folder; an empty text is refused."""
    return Path(path_name(some_line(text)))


def furl_or_path(text: str) -> str:
    """A furl, which is parsed later, or the name of a file with one, or ``-``."""
    if "://" in text:
        return line(text)
    return text if text == "-" else path_name(text)


def cluster_name(text: str) -> str:
    """The name of a cluster."""
    if not text:
        return text
    if folders.CLUSTER_NAME.fullmatch(text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be the name of a cluster: {folders.NAME_RULE}")
    return text


def new_cluster_name(text: str) -> str:
    """The name of a new cluster."""
    if "+" in cluster_name(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is a name for engines that are added to a cluster: leave out '+'"
        )
    return text


def host(text: str) -> str:
    """The name or address of a machine."""
    labels = [] if ":" in text else text.removesuffix(".").split(".")
    if text and (
        not _ADDRESS.fullmatch(text) or len(text) > 253 or not all(1 <= len(label) <= 63 for label in labels)
    ):
        raise argparse.ArgumentTypeError(f"{text!r} is not a host name or address")
    return text


def hosts(text: str) -> str:
    """Names or addresses of one machine."""
    named = [part.strip() for part in line(text).split(",") if part.strip()]
    if not named:
        return ""
    from .. import furl

    if len(named) > furl.HINTS:
        raise argparse.ArgumentTypeError(f"{text!r} are {len(named)} addresses, of at most {furl.HINTS}")
    return ",".join(map(host, named))


def command(text: str) -> str:
    """A command line for a shell."""
    words = _words(text)
    if text and (not words or words[0].startswith("-")):
        raise argparse.ArgumentTypeError(f"{text!r} is no command")
    return text


def _words(text: str) -> list[str]:
    try:
        return shlex.split(line(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None


def port(text: str) -> int:
    """A port number."""
    try:
        number = int(text) if len(text) < 20 else -1
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not the number of a port") from None
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"port {text} is not between 1 and 65535 (0 or no option: a free one)")
    return number


def url(text: str) -> str:
    """A URL of a proxy, or ``none``; a password is detected where it is used."""
    if text.startswith("-") or re.search(r"\s", line(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no proxy: write it like http://host:port")
    return text


def proxy(text: str) -> str:
    """As :func:`url`, but refuses a password in favour of ~/.netrc."""
    if "@" in url(text):
        raise argparse.ArgumentTypeError(
            "a password does not belong into a command line, which everybody on this machine can read. Leave it "
            "out, write `machine PROXYHOST login USER password PASSWORD` into ~/.netrc, and run "
            "`chmod 600 ~/.netrc`"
        )
    return text


def scheduler(text: str) -> str:
    """An order of tasks: a name, or a class."""
    if line(text) and not re.fullmatch(rf"{_MODULE}(?::[^\W\d]\w*)?", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no order of tasks: write fifo, lifo, priority or MODULE:CLASS"
        )
    return text


def admission(text: str) -> str:
    """Which engines are let in."""
    if text not in ("all", "ask"):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is neither 'all' nor 'ask'")
    return text


def plug_in(text: str) -> str:
    """A plug-in: MODULE:NAME."""
    if not re.fullmatch(rf"{_MODULE}:[^\W\d]\w*", line(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no plug-in: it is written MODULE:NAME")
    return text


def launcher_option(text: str) -> str:
    """An option for a launcher, with its value if it has one."""
    if not _words(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no option of a launcher")
    return text


def gpu_order(text: str) -> str:
    """A list of GPU numbers."""
    try:
        order = gpu_numbers.parse(text) if "," in text else []
    except ValueError:
        order = []
    if not order:
        raise argparse.ArgumentTypeError(f"{text!r} is no order of GPUs: give their numbers, as in 3,2,1,0")
    return ",".join(order)
