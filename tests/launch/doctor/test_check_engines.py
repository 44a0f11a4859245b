"""What is said of engines: versions, threads, files, and who does not answer."""

from __future__ import annotations

from typing import Any

import pytest

from ipmpi.launch.doctor.check_engines import (
    check_engine_machines,
    check_libraries,
    check_own_threads,
    check_presence,
    check_shared_files,
    check_threads,
    check_versions,
    check_writing,
    clocks_by_host,
)
from ipmpi.launch.doctor.diagnostics import Diagnostic, Level
from ipmpi.launch.doctor.facts import Clock, EngineFacts, Limits, Machine, Scratch, Versions

HERE = Versions("3.11.7", "0.1.0", "4.1.2", "2.4.6", "3.1.3")
LIMITS = Limits(4096, 4096, None, None, 0)


def machine(host: str = "n1", cores: int = 4, all_cores: int = 4, threads: str = "1", **more: Any) -> Machine:
    known = {"limits": LIMITS, "scratch": Scratch("/tmp", 1 << 30), **more}
    return Machine(host, cores, all_cores, threads, **known)


def engine(id: int, where: Machine | None = None, versions: Versions = HERE, **more: Any) -> EngineFacts:
    known = {"clock": Clock("x", 0, 0, 1), "token": "t", "folder": "/home/u/.ipython", **more}
    return EngineFacts(id, where or machine(), versions, "/venv/bin/python", **known)


def told(diagnostics: list[Diagnostic]) -> dict[str, Level]:
    return {diagnostic.check: diagnostic.level for diagnostic in diagnostics}


# --- versions ----------------------------------------------------------------------------------------------


def test_equal_versions_are_one_line() -> None:
    (diagnostic,) = check_versions(HERE, "0.1.0", [engine(0), engine(1)])
    assert diagnostic.level is Level.OK
    assert diagnostic.text.endswith("Python 3.11.7, ipmpi 0.1.0, mpi4py 4.1.2, numpy 2.4.6, cloudpickle 3.1.3.")


@pytest.mark.parametrize(
    ("other", "check", "level", "text", "fix"),
    [
        (
            {"python": "3.9.18"},
            "version-python",
            Level.PROBLEM,
            "Engines 1-2 have Python 3.9.18",
            "Use Python 3.11",
        ),
        ({"python": "3.11.2"}, "version-python", Level.NOTE, "Engines 1-2 have Python 3.11.2", ""),
        (
            {"ipmpi": "0.0.9"},
            "version-ipmpi",
            Level.WARNING,
            "have ipmpi 0.0.9, this client has 0.1.0",
            "'ipmpi==0.1.0'",
        ),
        (
            {"numpy": "1.26.4"},
            "version-numpy",
            Level.WARNING,
            "numpy 1.26.4, this client has 2.4.6",
            "'numpy==2.*'",
        ),
        ({"numpy": "2.1.0"}, "version-numpy", Level.NOTE, "numpy 2.1.0", ""),
        (
            {"numpy": ""},
            "version-numpy",
            Level.PROBLEM,
            "have no numpy: arrays cannot be sent",
            "pip install numpy",
        ),
        (
            {"cloudpickle": ""},
            "version-cloudpickle",
            Level.PROBLEM,
            "functions cannot be sent",
            "pip install cloud",
        ),
        (
            {"cloudpickle": "2.0"},
            "version-cloudpickle",
            Level.WARNING,
            "the other may be unable",
            "'cloudpickle==3.*'",
        ),
    ],
)
def test_each_difference(other: dict[str, str], check: str, level: Level, text: str, fix: str) -> None:
    old = HERE._replace(**other)
    (diagnostic,) = check_versions(HERE, "0.1.0", [engine(0), engine(1, versions=old), engine(2, versions=old)])
    assert (diagnostic.check, diagnostic.level) == (check, level)
    assert text in diagnostic.text
    assert fix in diagnostic.fix


def test_mpi4py_may_differ_or_be_missing() -> None:
    assert told(check_versions(HERE, "0.1.0", [engine(0, versions=HERE._replace(mpi4py=""))])) == {
        "version": Level.OK
    }


def test_an_older_controller_does_not_tell_its_release() -> None:
    (diagnostic,) = check_versions(HERE, "", [])
    assert diagnostic.level is Level.WARNING
    assert diagnostic.text == "The controller has ipmpi of an older release, this client has 0.1.0."


# --- threads -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ranks", "cores", "threads", "level", "words"),
    [
        (4, 4, "", Level.WARNING, "may start 16 threads"),
        (4, 1, "", Level.OK, "unset"),  # each is bound to a core of its own
        (4, 4, "1", Level.OK, "4 engines on 4 cores"),
        (2, 4, "4", Level.WARNING, "may start 8 threads"),
        (2, 4, "2", Level.OK, "OMP_NUM_THREADS is 2"),
        (8, 4, "1", Level.NOTE, "more engines than cores"),
        (1, 4, "1", Level.NOTE, "1 of the 4 cores are used"),
        (2, 4, "2,1", Level.OK, "OMP_NUM_THREADS is 2,1"),
    ],
)
def test_threads_against_cores(ranks: int, cores: int, threads: str, level: Level, words: str) -> None:
    (diagnostic,) = check_threads([engine(i, machine(cores=cores, threads=threads)) for i in range(ranks)])
    assert diagnostic.level is level, diagnostic
    assert words in diagnostic.text


def test_what_to_export() -> None:
    (diagnostic,) = check_threads([engine(i, machine(all_cores=8, cores=8, threads="")) for i in range(2)])
    assert diagnostic.fix == "export OMP_NUM_THREADS=4 before the engines start"


def test_a_thousand_equal_nodes_are_one_finding() -> None:
    engines = [engine(i, machine(host=f"n{i // 4}", threads="")) for i in range(40)]
    assert len(check_threads(engines)) == 1


def test_before_engines_run() -> None:
    assert told(check_own_threads(machine(threads=""))) == {"threads": Level.NOTE}
    assert check_own_threads(machine(threads="1")) == []


# --- the rest ----------------------------------------------------------------------------------------------


def test_shared_files() -> None:
    (diagnostic,) = check_shared_files("t", "/home/u/.ipython", [engine(0), engine(1)])
    assert diagnostic.level is Level.OK
    (diagnostic,) = check_shared_files(
        "t", "/home/u/.ipython", [engine(0), engine(1, token="", folder="/scratch/ipy")]
    )
    assert diagnostic.level is Level.NOTE
    assert diagnostic.text == "Engine 1 does not see /home/u/.ipython of this machine (there: /scratch/ipy)."
    assert "ipcontroller-engine.furl" in diagnostic.fix
    assert check_shared_files("", "/x", [engine(0)]) == []


def test_engines_that_are_busy_are_said_to_be() -> None:
    found = check_presence([0, 1, 2, 3], [0, 1], {2: "execute('work()')", 3: ""})
    assert [diagnostic.level for diagnostic in found] == [Level.OK, Level.NOTE, Level.NOTE]
    assert found[0].text == "4 engines registered, 2 answered."
    assert found[1].text.startswith("Engine 2 did not answer in time: busy with execute('work()').")
    assert found[2].text.startswith("Engine 3 did not answer in time: busy, or cannot be reached.")
    assert "--timeout" in found[2].fix


def test_no_engine_yet() -> None:
    (diagnostic,) = check_presence([], [], {})
    assert diagnostic.level is Level.NOTE
    assert "ipcluster explain" in diagnostic.fix


def test_limits_of_many_engines_are_said_once() -> None:
    few = machine(host="n2", limits=LIMITS._replace(files=64))
    (diagnostic,) = check_engine_machines([engine(0), *(engine(i, few) for i in (1, 2, 3))])
    assert diagnostic.level is Level.PROBLEM
    assert diagnostic.text.startswith("Each of engines 1-3 on n2 may have 64 open files")
    (diagnostic,) = check_engine_machines([engine(0), engine(1)])
    assert (diagnostic.level, diagnostic.text[:12]) == (Level.OK, "Engines 0-1:")
    long = machine(scratch=Scratch("/v/" + "x" * 90, 1 << 30))
    (diagnostic,) = check_engine_machines([engine(5, long)])
    assert diagnostic.text.startswith("TMPDIR of engine 5 on n1 has 93 characters")


def test_libraries_of_engines() -> None:
    a, b = "Open MPI v5.0.11", "MPICH 5.0.2"
    found = check_libraries([engine(0, library=a, thread_level="multiple"), engine(1)])
    assert [diagnostic.text for diagnostic in found] == ["Engine 0: Open MPI v5.0.11."]
    low = [engine(i, library=a, thread_level="funneled") for i in (0, 1)]
    assert told(check_libraries(low))["thread-level"] is Level.NOTE
    two = [engine(0, library=a, thread_level="multiple"), engine(1, library=b, thread_level="multiple")]
    assert told(check_libraries(two))["engines-mpi-differ"] is Level.NOTE


def test_one_clock_for_each_machine() -> None:
    quick, slow = Clock("engine 1 on n1", 0, 0.5, 0.6), Clock("engine 0 on n1", 0, 5, 9)
    other = Clock("engine 2 on n2", 0, 1, 1)
    engines = [engine(0, clock=slow), engine(1, clock=quick), engine(2, machine(host="n2"), clock=other)]
    assert clocks_by_host(engines) == [quick, other]


# --- writing -----------------------------------------------------------------------------------------------


def test_where_engines_can_write() -> None:
    (diagnostic,) = check_writing([engine(0), engine(1)])
    assert (diagnostic.check, diagnostic.level) == ("writable", Level.OK)
    assert check_writing([]) == []
    read_only = {"/home/u/.ipython/log": "Read-only file system"}
    (diagnostic,) = check_writing([engine(0, unwritable=read_only), engine(1, unwritable=read_only)])
    assert diagnostic.level is Level.WARNING
    assert diagnostic.text == "Engines 0-1 cannot write in /home/u/.ipython/log: Read-only file system."
    assert "IPYTHONDIR" in diagnostic.fix
    assert "--logdir" in diagnostic.fix
