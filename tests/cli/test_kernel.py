"""``ipcluster kernel``: what Jupyter is told."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ipmpi.cli import ipcluster
from ipmpi.cli.kernel import kernel_name, kernel_spec


@pytest.fixture(autouse=True)
def jupyter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, need: Callable[[str, object], None]) -> Path:
    """The folder of the user's kernels."""
    need("no ipykernel; 'make test' installs it", importlib.util.find_spec("ipykernel"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("JUPYTER_PATH", raising=False)
    return tmp_path / "data" / "kernels"


def test_a_kernel_is_installed_listed_and_removed(jupyter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ipcluster.main(["kernel", "list"]) == 0
    assert capsys.readouterr().out.endswith("Add one with: ipcluster kernel install NAME\n")
    assert ipcluster.main(["kernel", "install", "Heat2"]) == 0
    told = capsys.readouterr().out
    assert f"'ipmpi: Heat2' now, from {jupyter / 'ipmpi-heat2'}.\n" in told
    assert told.endswith("To remove it: ipcluster kernel remove Heat2\n")
    spec = json.loads((jupyter / "ipmpi-heat2" / "kernel.json").read_text())
    assert spec["display_name"] == "ipmpi: Heat2"
    assert spec["argv"] == [
        sys.executable, "-m", "ipmpi.ipython.kernel", "-f", "{connection_file}", "--cluster", "Heat2",
    ]  # fmt: skip
    assert ipcluster.main(["kernel", "list"]) == 0
    assert capsys.readouterr().out == f"ipmpi-heat2  {jupyter / 'ipmpi-heat2'}\n"
    assert ipcluster.main(["kernel", "remove", "Heat2"]) == 0
    assert not (jupyter / "ipmpi-heat2").exists()


def test_options_are_in_the_spec(tmp_path: Path) -> None:
    words = [
        "kernel",
        "install",
        "--prefix",
        str(tmp_path / "env"),
        "--ssh",
        "me@login",
        "--display-name",
        "Ranks",
    ]
    assert ipcluster.main(words) == 0
    spec = json.loads((tmp_path / "env/share/jupyter/kernels/ipmpi/kernel.json").read_text())
    assert spec["display_name"] == "Ranks"
    assert spec["argv"][-2:] == ["--ssh", "me@login"]


def test_the_kernel_looks_for_the_cluster_where_the_command_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", "/some/where")
    assert kernel_spec("a")["env"] == {"IPYTHONDIR": "/some/where"}
    monkeypatch.delenv("IPYTHONDIR")
    assert kernel_spec("a")["env"] == {}


def test_names_are_such_that_jupyter_takes_them() -> None:
    assert kernel_name("") == "ipmpi"
    assert kernel_name("My_Run 3 (é)") == "ipmpi-my_run-3"


def test_what_is_not_there_cannot_be_removed(capsys: pytest.CaptureFixture[str]) -> None:
    assert ipcluster.main(["kernel", "remove", "none"]) == 1
    told = "ipcluster: Jupyter has no kernel 'ipmpi-none' that could be removed; see: ipcluster kernel list\n"
    assert capsys.readouterr().err == told


def test_without_ipykernel_it_is_said_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel", None)
    assert ipcluster.main(["kernel", "install"]) == 1
    assert capsys.readouterr().err.endswith("pip install 'ipmpi[notebook]'\n")


def test_other_kernels_are_not_listed(jupyter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, text in {"other": '{"argv": ["python", "-m", "x"]}', "broken": "{"}.items():
        (jupyter / name).mkdir(parents=True)
        (jupyter / name / "kernel.json").write_text(text)
    assert ipcluster.main(["kernel", "list"]) == 0
    assert capsys.readouterr().out.startswith("Jupyter has no kernel of ipmpi.")


def test_the_kernel_has_the_options_of_the_spec() -> None:
    module: Any = importlib.import_module("ipmpi.ipython.kernel")
    app = module.RanksKernelApp()
    app.parse_command_line(["--cluster", "heat", "--ssh", "me@login", "-f", "file"])
    assert (app.cluster, app.ssh, app.connection_file) == ("heat", "me@login", "file")
