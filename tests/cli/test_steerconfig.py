"""What `ipmpi-steer-config` prints: paths that exist, on one line, fit for a shell."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ipmpi.cli import steerconfig


def answer(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert steerconfig.main(options) == 0
    out, _ = capsys.readouterr()
    assert out.count("\n") == 1
    return out.strip()


def test_files_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--sources", "--fortran-sources", "--includedir", "--cmakedir", "--python"):
        assert Path(answer(capsys, option)).exists()
    assert (Path(answer(capsys, "--includedir")) / "ipmpi_steer.h").is_file()


def test_answers_stand_in_the_order_of_the_questions(capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "--sources", "--libs").split()[1:] == ["-ldl", "-lm", "-lpthread"]
    assert answer(capsys, "--libs", "--python").endswith(sys.executable)


def test_the_library_is_that_of_this_python(
    capsys: pytest.CaptureFixture[str], need: Callable[[str, object], None]
) -> None:
    path = answer(capsys, "--libpython")
    need(f"{sys.executable} has no shared library", path)
    code = "import ctypes, sys; api = ctypes.PyDLL(sys.argv[1]); api.Py_GetVersion.restype = ctypes.c_char_p"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print(api.Py_GetVersion().decode())", path],
        capture_output=True,
        text=True,
    )
    assert done.stdout.split()[0] == sys.version.split()[0]
    assert shlex.split(answer(capsys, "--cflags"))[1:] == [
        f"-DIPMPI_PYTHON={sys.executable}", f"-DIPMPI_LIBPYTHON={path}",
    ]  # fmt: skip


def test_a_python_without_a_shared_library_is_said_to_be_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steerconfig, "libpython", lambda: None)
    assert steerconfig.main(["--cflags"]) == 0
    out, said = capsys.readouterr()
    assert out == f"-I{steerconfig.FOLDER}\n"
    assert "was built without a shared library, so programs in C cannot load it" in said
    assert "--enable-shared" in said
    steerconfig.main(["--libs"])
    assert not capsys.readouterr().err, "this has nothing to do with Python"


def test_a_path_that_compilers_misread_is_left_to_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steerconfig, "libpython", lambda: Path("/my pythons/libpython3.so"))
    steerconfig.main(["--cflags"])
    out, said = capsys.readouterr()
    assert "my pythons" not in out
    assert "set IPMPI_LIBPYTHON to it when the program runs" in said


def test_asking_for_nothing_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        steerconfig.main([])
    assert "ask for something: --cflags, --libs, --sources" in capsys.readouterr().err
