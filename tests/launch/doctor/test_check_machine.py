"""What is said of limits, temporary files and clocks."""

from __future__ import annotations

import pytest

from ipmpi.launch.doctor.check_machine import check_clocks, check_limits, check_scratch, skew
from ipmpi.launch.doctor.diagnostics import Diagnostic, Level, exit_code, render, size
from ipmpi.launch.doctor.facts import Clock, Limits, Machine, Scratch
from ipmpi.ranges import ranges

GOOD = Limits(files=4096, files_hard=8192, locked=8 << 20, processes=30_000, core=0)


def machine(limits: Limits = GOOD, scratch: Scratch | None = None, **more: str) -> Machine:
    return Machine("n1", 4, 4, "1", limits, scratch or Scratch("/tmp", 1 << 30, "", 1 << 30), **more)


def told(diagnostics: list[Diagnostic]) -> dict[str, Level]:
    return {diagnostic.check: diagnostic.level for diagnostic in diagnostics}


def test_good_limits_are_one_line() -> None:
    assert told(check_limits("This process", machine())) == {"ulimit": Level.OK}


@pytest.mark.parametrize(
    ("limits", "network", "check", "level", "fix"),
    [
        (GOOD._replace(files=64), "", "ulimit-files", Level.PROBLEM, "ulimit -n 4096 before it is started"),
        (GOOD._replace(files=512), "", "ulimit-files", Level.WARNING, "ulimit -n 4096 before it is started"),
        (GOOD._replace(files=512, files_hard=512), "", "ulimit-files", Level.WARNING, "Ask the administrators."),
        (GOOD, "InfiniBand (mlx5_0)", "ulimit-locked", Level.WARNING, "ulimit -l unlimited"),
        (GOOD._replace(processes=100), "", "ulimit-processes", Level.WARNING, "ulimit -u 4096"),
        (GOOD._replace(core=None), "", "ulimit-core", Level.NOTE, "ulimit -c 0"),
    ],
)
def test_each_limit_has_its_fix(limits: Limits, network: str, check: str, level: Level, fix: str) -> None:
    (diagnostic,) = check_limits("Engine 3", machine(limits, fast_network=network))
    assert (diagnostic.check, diagnostic.level) == (check, level)
    assert diagnostic.text.startswith("Engine 3 ")
    assert diagnostic.fix.startswith(fix)


def test_unlimited_is_enough() -> None:
    limits = Limits(files=None, locked=None, processes=None, core=0)
    assert told(check_limits("x", machine(limits, fast_network="Slingshot (cxi0)"))) == {"ulimit": Level.OK}


@pytest.mark.parametrize(
    ("scratch", "check", "level", "words"),
    [
        (
            Scratch("/nowhere", error="No such file or directory"),
            "tmpdir",
            Level.PROBLEM,
            "cannot write in /nowhere",
        ),
        (Scratch("/var/" + "x" * 80, 1 << 30), "tmpdir-length", Level.WARNING, "longer than the 108"),
        (Scratch("/tmp", 1 << 20), "tmpdir-space", Level.WARNING, "1 MiB left"),
        (Scratch("/tmp", 1 << 30, "", 1 << 20), "shared-memory", Level.WARNING, "/dev/shm"),
    ],
)
def test_temporary_files(scratch: Scratch, check: str, level: Level, words: str) -> None:
    (diagnostic,) = check_scratch("This machine", machine(scratch=scratch))
    assert (diagnostic.check, diagnostic.level) == (check, level)
    assert words in diagnostic.text
    assert diagnostic.fix


def test_a_length_that_fits_exactly_is_fine() -> None:
    assert told(check_scratch("x", machine(scratch=Scratch("/" + "x" * 69, 1 << 30)))) == {"tmpdir": Level.OK}
    assert "tmpdir-length" in told(check_scratch("x", machine(scratch=Scratch("/" + "x" * 70, 1 << 30))))


@pytest.mark.parametrize(
    ("reading", "ahead"), [(100.0, 0.0), (104.9, 0.0), (106.0, 1.0), (99.0, -1.0), (3705.0, 3600.0)]
)
def test_an_answer_that_took_long_says_less(reading: float, ahead: float) -> None:
    assert skew(Clock("engine 0", 100.0, reading, 105.0)) == ahead


def test_clocks() -> None:
    right = Clock("the controller", 100.0, 100.5, 101.0)
    assert told(check_clocks([right])) == {"clock": Level.OK}
    (diagnostic,) = check_clocks([right, Clock("engine 3 on n2", 100.0, 10.0, 101.0)])
    assert diagnostic.level is Level.WARNING
    assert diagnostic.text.startswith("The clock of engine 3 on n2 is 90 s behind this machine's")
    assert "NTP" in diagnostic.fix
    assert check_clocks([]) == []


def test_what_is_printed() -> None:
    found = [
        Diagnostic("Clocks", "clock", Level.OK, "Clocks agree."),
        Diagnostic("MPI", "match", Level.PROBLEM, "Word " * 20, "Use the launcher /a-very/long-path/bin/mpiexec"),
        Diagnostic("Clocks", "other", Level.NOTE, "Second."),
    ]
    lines = render(found, 50).split("\n")
    assert lines[:3] == ["Clocks", "  ok       Clocks agree.", "  note     Second."]
    assert lines[4] == "MPI"
    assert lines[5].startswith("  problem  Word Word")
    assert lines[-2:] == ["           -> Use the launcher", "              /a-very/long-path/bin/mpiexec"]
    assert exit_code(found) == 1
    assert exit_code(found[::2]) == 0
    assert found[1].as_dict()["level"] == "problem"


def test_at_a_terminal_levels_are_coloured() -> None:
    found = [
        Diagnostic("MPI", "match", Level.PROBLEM, "A problem is here. " + "Word " * 20, "Mend it"),
        Diagnostic("MPI", "other", Level.OK, "It is ok."),
    ]
    plain, coloured = render(found, 50).split("\n"), render(found, 50, colours=True).split("\n")
    assert coloured[0] == "\x1b[1mMPI\x1b[0m"
    assert coloured[1] == plain[1].replace("problem ", "\x1b[31mproblem\x1b[0m ", 1)
    assert coloured[-1] == "  \x1b[32mok\x1b[0m       It is ok."
    assert coloured[2:-1] == plain[2:-1]


def test_numbers_and_sizes_are_short() -> None:
    assert ranges([7, 0, 1, 2, 3]) == "0-3, 7"
    assert ranges([5]) == "5"
    assert ranges([]) == ""
    assert [size(n) for n in (5, 2048, 1 << 20, 3 << 29)] == ["5 bytes", "2 KiB", "1 MiB", "1.5 GiB"]
