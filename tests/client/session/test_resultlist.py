from __future__ import annotations

import io
from typing import Any

import pytest

from ipmpi.client.display.blocks import Output
from ipmpi.client.display.ranksets import RankSet
from ipmpi.client.session.enginereply import EngineReply
from ipmpi.client.session.replies import executed
from ipmpi.client.session.resultlist import ResultList, RunResults
from ipmpi.errors import CompositeError
from ipmpi.protocol.operations import Display, Executed, Failed


def reply(engine: int, stdout: str = "", value: str | None = None, **more: Any) -> EngineReply:
    return EngineReply(engine, True, Executed(1, value, value, **more), [], printed=Output(stdout))


def results(*replies: EngineReply) -> ResultList:
    return executed(replies, "execute", ("x",), "x")


def shown(result: ResultList, *args: Any, **options: Any) -> str:
    stream = io.StringIO()
    result.display(*args, stream=stream, **options)
    return stream.getvalue()


def test_up_to_four_engines_are_shown_to_the_letter_and_more_are_folded() -> None:
    few = [reply(rank, "hello\n", "5") for rank in range(4)]
    assert repr(results(*few)) == "<Results List>\n" + "".join(
        f"[{rank}] In [1]: x\n[{rank}] Out[1]: hello\n\n" for rank in range(4)
    )
    many = [reply(rank, "hello\n" if rank else "root\n", "5") for rank in range(64)]
    assert repr(results(*many)) == ("<Results List>\n[0-63] In [1]: x\n[0] root\n[1-63] hello\nOut[0-63]: 5\n")
    assert repr(RunResults("a.py", results(*many))).startswith("<Results List>\n[0-63] In [1]: run('a.py')\n")


def test_its_parts_are_had_by_engine_and_by_rank_set() -> None:
    result = results(reply(0, "a\n", "1"), reply(1, "b\n"), reply(2, "a\n", "1"))
    assert result.stdout == ["a\n", "b\n", "a\n"]
    assert result.stderr == ["", "", ""]
    assert result.values == ["1", None, "1"]
    assert result[2]["stdout"] == "a\n"
    assert list(map(str, result.groups)) == ["[0, 2]", "[1]"]
    assert result.groups[RankSet([0, 2])].stdout == "a\n"
    assert ResultList().groups == {}


def test_it_can_be_shown_folded_with_options() -> None:
    result = results(*(reply(rank, f"rank {rank}\n", str(rank * 2)) for rank in range(8)))
    assert shown(result, "numeric") == (
        "[0-7] rank 0 .. 7\nOut[0-7]: 0 .. 14 (mean 7, min: rank 0, max: rank 7)\n"
    )
    assert shown(result, fold="off", printed=False).splitlines()[1] == "Out[1]: 2"
    assert shown(result, group_outputs="engine").splitlines()[:2] == ["[0] rank 0", "Out[0]: 0"]
    long = results(reply(0, "line\n" * 100))
    assert "91 lines left out: result.display(max_lines=None) shows all" in shown(long, max_lines=10)
    assert len(shown(long, max_lines=None).splitlines()) == 100
    with pytest.raises(ValueError, match=r"fold must be 'exact', 'numeric' or 'off', not 'all'"):
        shown(result, "all")


def test_displays_and_rich_values_are_kept() -> None:
    figure = {"image/png": b"x", "text/plain": "<Figure>"}
    came = EngineReply(0, True, Executed(1), [], printed=Output("out\n", "err\n", (figure,)))
    rich = reply(1, "old\n", "<Table>", display_rich=Display({"text/html": "<table>"}))
    result = results(came, rich)
    assert result[0] == {
        "input": {"translated": "x", "raw": "x"},
        "number": 1,
        "id": 0,
        "stdout": "out\n",
        "stderr": "err\n",
        "displays": [figure],
    }
    assert result[1]["display"] == {"pprint": "<Table>", "repr": "<Table>", "rich": {"text/html": "<table>"}}
    assert result.groups[RankSet([1])].formats == {"text/html": "<table>"}
    assert result.groups[RankSet([0])].displays == (figure,)
    text = shown(result)
    assert text.startswith("[0] out\n[1] old\n[0 stderr] err\n[0] figure: ")
    assert "Out[1]: <Table>\n" in text


def test_a_failure_keeps_what_all_engines_have_printed() -> None:
    failed = Failed("ZeroDivisionError", "x", "tb", Executed(1))
    with pytest.raises(CompositeError) as info:
        results(reply(0, "fine\n", "5"), EngineReply(1, False, failed, [], printed=Output("before\n")))
    assert info.value.finished == [0]
    assert [each["stdout"] for each in info.value.results] == ["fine\n", "before\n"]
    assert isinstance(info.value.results, ResultList)
