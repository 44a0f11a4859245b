from __future__ import annotations

import pytest

from ipmpi.failuretext import Failure, everything, grouped, in_short, story

CELL = """Traceback (most recent call last):
  File "<ipmpi 3>", line 2, in <module>
    solve(0)
  File "/home/u/heat.py", line 41, in solve
    return 1 / dt
           ~~^~~~
ZeroDivisionError: division by zero
"""


def failure(
    engine: int, text: str = "division by zero", traceback: str = CELL, kind: str = "ZeroDivisionError"
) -> Failure:
    return Failure(engine, "execute", kind, text, traceback)


def shown(*failures: Failure, finished: tuple[int, ...] = ()) -> list[str]:
    return story(grouped(failures), "it failed", finished, "see {rank}", False)


def test_ranks_that_fail_alike_are_one_block_with_the_users_frames() -> None:
    assert shown(*(failure(rank) for rank in range(64)), finished=tuple(range(64, 128))) == [
        "it failed",
        "[0-63] Traceback (most recent call last):",
        '         File "<ipmpi 3>", line 2, in <module>',
        "           solve(0)",
        '         File "/home/u/heat.py", line 41, in solve',
        "           return 1 / dt",
        "                  ~~^~~~",
        "       ZeroDivisionError: division by zero",
        "[64-127] finished",
    ]


def test_numbers_in_messages_and_of_cells_do_not_keep_ranks_apart() -> None:
    failures = [failure(rank, f"dt of rank {rank} is 0", CELL.replace("3>", f"{rank}>")) for rank in range(64)]
    lines = shown(*failures)
    assert lines[-2:] == ["       ZeroDivisionError: dt of rank 0 .. 63 is 0", "see 0"]
    assert len(lines) < 15


def test_other_failures_stand_apart_and_consequences_last() -> None:
    lines = shown(
        failure(0, "another rank has failed", kind="PeerError"),
        failure(1),
        failure(2, "'x'", kind="KeyError", traceback=CELL.replace("41", "7")),
    )
    assert [line for line in lines if line.startswith("[")] == [
        "[1] Traceback (most recent call last):",
        "[2] Traceback (most recent call last):",
        "[0] Traceback (most recent call last):",
    ]
    assert lines[-1] == "see 1"
    assert len(lines) <= 17


def test_many_kinds_of_failures_are_counted() -> None:
    failures = [
        failure(rank, "x", f'Traceback (most recent call last):\n  File "{"ab" * rank}", line 1, in f\nE: x\n')
        for rank in range(64)
    ]
    lines = shown(*failures)
    assert lines[-2] == "[5-63] 59 other failures: ZeroDivisionError"
    assert len(lines) < 25
    assert in_short(grouped(failures), [64])[-2:] == [
        "[12-63] 52 other failures: ZeroDivisionError",
        "[64] finished",
    ]


def frame(name: str, line: int = 1) -> str:
    return f'  File "{name}", line {line}, in f\n    call()\n'


def test_frames_of_libraries_are_left_out_but_for_where_it_went_wrong() -> None:
    traceback = (
        "Traceback (most recent call last):\n"
        + frame("<ipmpi 1>")
        + frame("/work/ipmpi/engine/mpi/comm.py")
        + frame("/v/lib/python3.11/site-packages/numpy/linalg.py", 7)
        + "ValueError: bad\n"
    )
    assert shown(failure(3, "bad", traceback, "ValueError"))[1:] == [
        "[3] Traceback (most recent call last):",
        '      File "<ipmpi 1>", line 1, in f',
        "        call()",
        '        ... in "/v/lib/python3.11/site-packages/numpy/linalg.py", line 7, in f',
        "    ValueError: bad",
        "see 3",
    ]


@pytest.mark.parametrize(("others", "kept"), [(0, ["a", "... 18 more", "y", "z"]), (1, ["a", "... 19 more", "z"])])
def test_a_deep_recursion_shows_its_ends(others: int, kept: list[str]) -> None:
    names = ["a", *"bcdefghijklmnopqrs", "y", "z"]
    traceback = "Traceback (most recent call last):\n" + "".join(map(frame, names)) + "RecursionError: deep\n"
    lines = shown(failure(0, "deep", traceback, "RecursionError"), *(failure(1) for _ in range(others)))
    text = "\n".join(lines[: 3 + 3 * len(kept)])
    positions = [text.index(f'File "{name}"' if len(name) == 1 else name) for name in kept]
    assert positions == sorted(positions)
    assert lines[-1] == "see 0"


def test_one_that_came_of_another_names_it() -> None:
    traceback = (
        "Traceback (most recent call last):\n" + frame("a.py") + "KeyError: 'dt'\n\n"
        "During handling of the above exception, another exception occurred:\n\n" + CELL
    )
    assert shown(failure(0, traceback=traceback))[1:3] == [
        "[0] after KeyError: 'dt'",
        "    Traceback (most recent call last):",
    ]


@pytest.mark.parametrize(
    ("traceback", "frames"),
    [
        ("", []),
        (
            '  File "<ipmpi 1>", line 1\n    a b\n      ^\nSyntaxError: invalid syntax\n',
            ['[0]   File "<ipmpi 1>", line 1'],
        ),
        ("EngineLost: gone\n", []),
    ],
)
def test_failures_without_frames(traceback: str, frames: list[str]) -> None:
    lines = shown(failure(0, "gone", traceback, "EngineLost"))
    assert lines[1 : 1 + len(frames)] == frames
    assert lines[-1].endswith("EngineLost: gone")


def test_long_messages_are_cut() -> None:
    lines = shown(failure(0, "\n".join(map(str, range(1000)))))
    assert len(lines) < 15
    assert "    ... 997 more lines" in lines


def test_everything_shows_whole_tracebacks_once_for_ranks_alike() -> None:
    lines = everything(grouped([failure(0), failure(1), failure(2, traceback="")]), colours=False)
    assert len([line for line in lines if "heat.py" in line]) == 1
    assert lines[-1] == "[2] ZeroDivisionError: division by zero"


def test_colours_mark_ranks_and_messages() -> None:
    lines = story(grouped([failure(0)]), "it failed", [1], "", True)
    assert lines[1].startswith("\033[0;32m[0]\033[0m Traceback")
    assert lines[-2] == "    \033[0;31mZeroDivisionError: division by zero\033[0m"
