"""Files in the current folder that are called as modules which ipmpi needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import ipmpi

NEEDS = ("cloudpickle", "cryptography", "jinja2", "mpi4py", "msgspec", "numpy", "OpenSSL", "psutil")
STARTS = "import runpy, pkgutil, sys, __future__; print(*{name.partition('.')[0] for name in sys.modules})"
"""What Python itself loads for ``-m``, before it looks for any module of ours."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file for each module of the standard library, none of which may be run."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    before = subprocess.run([sys.executable, "-c", STARTS], capture_output=True, text=True, check=True, cwd="/")
    for name in {*sys.stdlib_module_names, *NEEDS} - set(before.stdout.split()):
        (here / f"{name}.py").write_text(f"print('RUN: {name}')\nraise SystemExit('this is {name}.py')\n")
    (here / "mine.py").write_text("def double(x):\n    return 2 * x\n")
    return here


def test_controller_and_engines_do_not_run_them_and_find_the_users_modules(folder: Path) -> None:
    with ipmpi.Cluster("local", n=1, mpi="none", echo=None) as cluster:
        mec = cluster.multiengine()
        assert mec.apply(lambda: __import__("mine").double(4)) == [8]
        assert mec.apply(lambda: __import__("colorsys").__file__ != "colorsys.py") == [True]
    logs = folder.parent / "ipython" / "log"
    assert not [path for path in logs.rglob("*.log") if "RUN:" in path.read_text()]


@pytest.mark.parametrize("module", ["ipmpi.cli.ipcluster", "ipmpi.cli.ipcontroller", "ipmpi.cli.ipengine"])
def test_no_command_runs_them(folder: Path, module: str) -> None:
    words = ["--help"] if module.endswith("ipcluster") else ["--version"]
    done = subprocess.run([sys.executable, "-m", module, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "RUN:" not in done.stdout


def test_programs_that_are_not_ours_keep_their_folder(tmp_path: Path) -> None:
    """Also where ``import ipmpi`` comes while Python still looks for the program."""
    package = tmp_path / "prog"
    package.mkdir()
    (tmp_path / "mine.py").write_text("")
    (package / "__init__.py").write_text("import ipmpi\n")
    (package / "run.py").write_text("import mine\n")
    done = subprocess.run(
        [sys.executable, "-m", "prog.run"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
