"""The example notebooks, run by Jupyter's own client on a real cluster."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ipmpi.launch.processes.mpi import find_mpi

DOCS = Path(__file__).resolve().parents[2] / "docs"
NAMES = ("farm", "heat", "plate", "spmd", "steering")
SECONDS = 60
"""For one notebook, on a machine that is busy with other tests; alone it takes less than 10 s."""


@pytest.fixture(scope="module")
def building(need: Callable[[str, object], None]) -> Iterator[Any]:
    """The modules that run the notebooks when the pages are built."""
    for name in ("nbclient", "ipykernel", "matplotlib"):
        need(f"no {name}; 'make docs' installs it", importlib.util.find_spec(name))
    before = dict(sys.modules)
    sys.path.insert(0, str(DOCS))
    try:
        import fourranks
        import notebookruns

        yield SimpleNamespace(fourranks=fourranks, notebookruns=notebookruns)
    finally:
        sys.path.remove(str(DOCS))
        for name in ("fourranks", "notebookruns"):
            sys.modules.pop(name, None)
            if name in before:
                sys.modules[name] = before[name]


@pytest.fixture(scope="module")
def four_ranks(building: Any, need: Callable[[str, object], None]) -> Iterator[Path]:
    need("no mpiexec", find_mpi())
    with building.fourranks.cluster() as folder:
        yield folder


@pytest.fixture(scope="module")
def run(building: Any, four_ranks: Path) -> Callable[[str], list[Any]]:
    """Run a notebook; the outputs of its cells of code. A cell that fails fails the test."""

    def run(name: str) -> list[Any]:
        notebook = building.notebookruns.run(DOCS / "notebooks" / f"{name}.ipynb", four_ranks)
        return [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]

    return run


def text(outputs: list[list[Any]]) -> str:
    """All that stands below the cells, without colours."""
    found = []
    for output in (output for cell in outputs for output in cell):
        if output.output_type == "stream":
            found.append(output.text)
        elif output.output_type == "error":
            found.append("\n".join(output.traceback))
        else:
            found.append(output.data.get("text/plain", ""))
    return re.sub("\x1b\\[[0-9;]*m", "", "\n".join(found))


def ranks_that_said(said: str, shown: str) -> set[int]:
    """On a busy machine equal lines of ranks may come too far apart to be shown as one."""
    labels = re.findall(rf"^\[([\d, -]+)\] .*{re.escape(said)}", shown, re.MULTILINE)
    spans = [part.split("-") for each in labels for part in each.split(", ")]
    return {rank for span in spans for rank in range(int(span[0]), int(span[-1]) + 1)}


def pictures(outputs: list[list[Any]]) -> int:
    shown = [output for cell in outputs for output in cell if output.output_type == "display_data"]
    return sum("image/png" in output.data for output in shown)


@pytest.mark.slow
@pytest.mark.mpi
@pytest.mark.timeout(SECONDS)
def test_one_program_on_all_ranks(run: Callable[[str], list[Any]]) -> None:
    outputs = run("spmd")
    shown = text(outputs)
    assert "Out[0-3]: 4\n" in shown
    assert ranks_that_said("is loaded", shown) == {0, 1, 2, 3}
    assert "[0] this is printed by one rank only\n" in shown
    assert "Out[0-3]: 3.141592654\n" in shown
    assert ranks_that_said("sum of the block = ", shown) == {0, 1, 2, 3}
    assert "ZeroDivisionError" in shown
    assert "[2-3] finished" in shown
    assert "Text(" not in shown
    assert pictures(outputs) == 2, "the histogram of rank 0, and of two figures that of rank 3"


@pytest.mark.slow
@pytest.mark.mpi
@pytest.mark.timeout(SECONDS)
def test_a_task_farm(run: Callable[[str], list[Any]]) -> None:
    outputs = run("farm")
    shown = text(outputs)
    assert "damping 1.0: amplitude 1.00\n" in shown
    assert "ValueError('the frequency is -1.0, and must not be negative')" in shown
    assert "succeeded at attempt 3" in shown
    assert "TaskTimeout" in shown
    assert "in checked\nValueError: the frequency is -2.0" in shown, "the traceback of the rank"
    assert "IProgress" not in shown, "what tqdm says of a package that is not needed"
    assert pictures(outputs) == 1


@pytest.mark.slow
@pytest.mark.mpi
@pytest.mark.timeout(SECONDS)
def test_a_heat_equation_is_steered(run: Callable[[str], list[Any]]) -> None:
    outputs = run("heat")  # which compares the field with that of one process
    shown = text(outputs)
    for step, hottest in ((50, 98.52), (100, 88.67), (150, 77.09), (200, 67.18)):
        assert ranks_that_said(f"step {step}: hottest {hottest}\n", shown) == {0, 1, 2, 3}
    assert "300 steps: 52.7\n" in shown
    assert ranks_that_said("mean temperature of my rows: ", shown) == {0, 1, 2, 3}
    assert pictures(outputs) == 1


@pytest.mark.slow
@pytest.mark.mpi
@pytest.mark.timeout(SECONDS)
def test_a_program_is_steered(run: Callable[[str], list[Any]]) -> None:
    outputs = run("steering")  # which looks at fields and energy itself
    shown = text(outputs)
    assert re.search(r"\('set', \d+\)", shown), "the drag is in the record"
    assert pictures(outputs) == 1


@pytest.mark.slow
@pytest.mark.mpi
@pytest.mark.timeout(SECONDS)
def test_a_plate_is_heated(run: Callable[[str], list[Any]]) -> None:
    outputs = run("plate")  # which compares the plate with that of one process
    shown = text(outputs)
    assert "('heat.py', 4, 1.0)" in shown
    assert "((64, 64), dtype('float64'))" in shown
    assert "['execute', 'execute', 'set']" in shown
    assert pictures(outputs) == 1


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_are_kept_without_outputs(name: str) -> None:
    """Those that are shown come from the run, and a change of a cell is what a diff shows."""
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(DOCS / "notebooks" / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert cells
    assert not [cell for cell in cells if cell.outputs or cell.execution_count]


def test_all_notebooks_are_run() -> None:
    assert tuple(sorted(path.stem for path in (DOCS / "notebooks").glob("*.ipynb"))) == NAMES
