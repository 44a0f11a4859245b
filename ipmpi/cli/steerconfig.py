"""``ipmpi-steer-config``: what compilers need for a program in C, C++ or Fortran that is steered."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from .. import __version__
from . import argtypes

FOLDER: Final = Path(__file__).resolve().parent.parent / "native"
_SPOILS_FLAGS: Final = set(" \t\"'\\$`;&|<>()")
"""Characters in a path that shells or compilers read as something else."""


def libpython() -> Path | None:
    """The shared library of this interpreter, if there is one."""
    folders = [sysconfig.get_config_var("LIBDIR"), os.path.join(sys.base_prefix, "lib")]
    folders += [os.path.join(folder, sysconfig.get_config_var("MULTIARCH") or "") for folder in folders if folder]
    name = f"libpython{sysconfig.get_config_var('LDVERSION')}.so"
    names = (sysconfig.get_config_var("INSTSONAME"), f"{name}.1.0", name)
    paths = [Path(folder, each) for folder in folders if folder for each in names if each and ".so" in each]
    return next((path for path in paths if path.is_file()), None)


def cflags() -> str:
    """Where the header is, and which Python a program loads."""
    words = [f"-I{FOLDER}"]
    library = libpython()
    for macro, path in (("IPMPI_PYTHON", sys.executable), ("IPMPI_LIBPYTHON", library)):
        if library is not None and not _SPOILS_FLAGS & set(str(path)):
            words.append(f"-D{macro}={path}")
        elif library is not None:
            _warn(f"{path} has characters that compilers misread: set {macro} to it when the program runs")
    return " ".join(words)


ANSWERS: Final[dict[str, tuple[Callable[[], object], str]]] = {
    "cflags": (cflags, "options to compile ipmpi_steer.c and your own files"),
    "libs": (lambda: "-ldl -lm -lpthread", "options to link the program"),
    "sources": (lambda: FOLDER / "ipmpi_steer.c", "the file in C to compile with the program"),
    "fortran-sources": (
        lambda: FOLDER / "ipmpi_steer.f90",
        "the module for Fortran to compile before the program",
    ),
    "includedir": (lambda: FOLDER, "the folder of ipmpi_steer.h"),
    "cmakedir": (lambda: FOLDER, "the folder of the package for CMake, for -Dipmpi_steer_DIR="),
    "python": (lambda: sys.executable, "the interpreter whose packages the program uses, for IPMPI_PYTHON"),
    "libpython": (lambda: libpython() or "", "the library of that interpreter, for IPMPI_LIBPYTHON"),
}


def parser() -> argtypes.Parser:
    """The command line."""
    p = argtypes.Parser(
        prog="ipmpi-steer-config",
        description="Print what compilers need for a program in C, C++ or Fortran that can be steered.",
        epilog="mpicc $(ipmpi-steer-config --cflags) program.c $(ipmpi-steer-config --sources --libs) -o program",
    )
    for name, (_, meaning) in ANSWERS.items():
        p.add_argument(f"--{name}", dest="asked", action="append_const", const=name, help=meaning)
    p.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return p


def _warn(sentence: str) -> None:
    print(f"ipmpi-steer-config: {sentence}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Answer on one line, in the order in which is asked."""
    p = parser()
    asked = p.parse_args(argv).asked
    if not asked:
        p.error(f"ask for something: --{', --'.join(ANSWERS)}")
    if libpython() is None and {"cflags", "libpython"} & set(asked):
        _warn(
            f"{sys.executable} was built without a shared library, so programs in C cannot load it and cannot be "
            "steered. Use another Python: Debian's with python3-dev, one of conda or uv, or one built with "
            "--enable-shared"
        )
    print(*(ANSWERS[name][0]() for name in asked))
    return 0


if __name__ == "__main__":
    sys.exit(main())
