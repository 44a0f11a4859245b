from __future__ import annotations

import asyncio
import io
import threading
from typing import Any

import pytest

from ipmpi.client import MultiEngineClient
from ipmpi.client.display.blocks import Block
from ipmpi.client.session.commandoutput import CommandOutput
from ipmpi.client.session.enginereply import EngineReply
from ipmpi.client.session.partial import CommandFuture, SoFar
from ipmpi.errors import CompositeError
from ipmpi.protocol.messages import STDERR, STDOUT, OutputBlock
from ipmpi.protocol.operations import Executed, Failed


class PrintingSession:
    """A session whose engines print and answer when a test says so."""

    role = "mec"

    def __init__(self) -> None:
        self.output = CommandOutput()
        self.future = CommandFuture([SoFar(range(8))], [self.output])
        self.sent = threading.Event()

    def post(self, call: object) -> None:
        """Nothing is done later."""

    def command(self, _submission: object) -> CommandFuture:
        self.sent.set()
        return self.future

    def prints(self, engines: range, text: str, kind: int = STDOUT) -> None:
        self.output.add([OutputBlock(kind, 0, list(engines), text.encode())])

    def answers(self, fails: bool = False) -> None:
        printed = self.output.by_engine()
        failed = Failed("ZeroDivisionError", "x", "tb", Executed(1))
        outcomes = [failed if fails and rank == 3 else Executed(1, "5", "5") for rank in range(8)]
        self.future.set_result(
            [
                EngineReply(rank, not isinstance(outcome, Failed), outcome, [], None, printed[rank])
                for rank, outcome in enumerate(outcomes)
            ]
        )

    def close(self) -> None: ...


@pytest.fixture
def session() -> PrintingSession:
    return PrintingSession()


@pytest.fixture
def mec(session: PrintingSession) -> MultiEngineClient:
    return MultiEngineClient(session=session)  # type: ignore[arg-type]


class Watched(io.StringIO):
    """A stream that tells when something was written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = threading.Event()

    def write(self, text: str) -> int:
        super().write(text)
        self.written.set()
        return len(text)


def run(session: PrintingSession, fails: bool = False) -> threading.Thread:
    def engines() -> None:
        session.sent.wait()
        session.prints(range(4), "hello\n")
        session.prints(range(4, 8), "hello\n")
        session.answers(fails)

    thread = threading.Thread(target=engines, daemon=True)
    thread.start()
    return thread


def test_a_stream_gets_output_while_the_code_runs_and_the_call_returns_the_result(
    session: PrintingSession, mec: MultiEngineClient
) -> None:
    stream = Watched()
    pending = mec.execute("x", block=False, stream=stream)
    session.prints(range(8), "hello\n")
    assert stream.written.wait(10)
    assert stream.getvalue() == "[0-7] hello\n"
    assert not pending.done()
    session.prints(range(1), "no newline")
    session.answers()
    assert pending.r.stdout == ["hello\nno newline", *["hello\n"] * 7]


def test_a_call_that_waits_has_shown_all_when_it_returns(session: PrintingSession, mec: MultiEngineClient) -> None:
    stream = io.StringIO()
    thread = run(session)
    result = mec.execute("x", stream=stream)
    assert stream.getvalue() == "[0-7] hello\n"
    assert result.values == ["5"] * 8
    thread.join()


def test_a_call_that_fails_has_shown_all_when_it_raises(session: PrintingSession, mec: MultiEngineClient) -> None:
    stream = io.StringIO()
    thread = run(session, fails=True)
    with pytest.raises(CompositeError) as info:
        mec.execute("x", stream=stream)
    assert stream.getvalue() == "[0-7] hello\n"
    assert info.value.finished == [0, 1, 2, 4, 5, 6, 7]
    thread.join()


def test_numbers_fold_in_a_stream_if_asked(session: PrintingSession, mec: MultiEngineClient) -> None:
    stream = io.StringIO()
    pending = mec.execute("x", block=False, stream=stream, fold="numeric")
    for rank in range(8):
        session.prints(range(rank, rank + 1), f"rank {rank}\n")
    session.answers()
    pending.wait()
    for thread in threading.enumerate():
        if thread.name == "ipmpi-output":
            thread.join(10)
    assert stream.getvalue() == "[0-7] rank 0 .. 7\n"


@pytest.mark.parametrize(
    ("option", "error", "text"),
    [
        ({"stream": "out.txt"}, TypeError, "stream must be a file that is open for text"),
        ({"on_output": 3}, TypeError, "on_output must be a function"),
        ({"stream": io.StringIO(), "fold": "all"}, ValueError, "fold must be 'exact', 'numeric' or 'off'"),
        ({"fold": "all"}, ValueError, "fold must be 'exact', 'numeric' or 'off'"),
    ],
)
def test_bad_options_are_refused_before_anything_is_sent(
    session: PrintingSession, mec: MultiEngineClient, option: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        mec.execute("x", **option)
    assert not session.sent.is_set()


def test_a_stream_that_fails_ends_the_showing_only(
    session: PrintingSession, mec: MultiEngineClient, capsys: pytest.CaptureFixture[str]
) -> None:
    class Full(io.StringIO):
        def write(self, _text: str) -> int:
            raise OSError("no space left")

    thread = run(session)
    assert len(mec.execute("x", stream=Full())) == 8
    assert "the output of a command is no longer shown: OSError: no space left" in capsys.readouterr().err
    thread.join()


def test_a_callback_gets_each_block(session: PrintingSession, mec: MultiEngineClient) -> None:
    came: list[Block] = []
    pending = mec.execute("x", block=False, on_output=came.append)
    session.prints(range(8), "a\n")
    session.prints(range(1), "b\n", STDERR)
    assert [(block.kind, block.engines, block.text) for block in came] == [
        (STDOUT, tuple(range(8)), "a\n"),
        (STDERR, (0,), "b\n"),
    ]
    session.answers()
    assert len(pending.r) == 8


def test_a_callback_that_raises_is_not_called_again_and_it_is_told(
    session: PrintingSession, mec: MultiEngineClient, capsys: pytest.CaptureFixture[str]
) -> None:
    came: list[Block] = []

    def on_output(block: Block) -> None:
        came.append(block)
        raise SystemExit(3)

    pending = mec.execute("x", block=False, on_output=on_output)
    session.prints(range(8), "a\n")
    session.prints(range(8), "b\n")
    session.answers()
    assert len(pending.r) == 8
    assert len(came) == 1
    assert "on_output raised SystemExit: 3. It is not called again" in capsys.readouterr().err


def test_output_so_far_is_had_before_the_end(session: PrintingSession, mec: MultiEngineClient) -> None:
    pending = mec.execute("x", block=False)
    assert pending.stdout == [""] * 8
    session.prints(range(7), "a\n")
    assert pending.stdout == ["a\n"] * 7 + [""]
    assert list(map(str, pending.groups)) == ["[0-6]", "[7]"]
    assert pending.values == [None] * 8
    session.prints(range(8), "e\n", STDERR)
    session.answers()
    assert pending.values == ["5"] * 8
    assert pending.stderr == ["e\n"] * 8
    stream = io.StringIO()
    pending.display(stream=stream)
    assert stream.getvalue() == "[0-6] a\n[0-7 stderr] e\nOut[0-7]: 5\n"


def test_a_failed_call_shows_what_was_printed_and_raises(session: PrintingSession, mec: MultiEngineClient) -> None:
    pending = mec.execute("x", block=False)
    session.prints(range(8), "a\n")
    session.answers(fails=True)
    stream = io.StringIO()
    with pytest.raises(CompositeError):
        pending.display(stream=stream)
    assert stream.getvalue() == "[0-7] a\nOut[0-2, 4-7]: 5\n"


def test_loops_go_through_output_as_it_comes(session: PrintingSession, mec: MultiEngineClient) -> None:
    pending = mec.execute("x", block=False)
    thread = run(session)
    assert "".join(block.text for block in pending.output_stream()) == "hello\nhello\n"
    assert pending.done()
    assert len(list(pending.output_stream())) == 2
    thread.join()


def test_coroutines_go_through_output_as_it_comes(session: PrintingSession, mec: MultiEngineClient) -> None:
    pending = mec.execute("x", block=False)

    async def main() -> list[str]:
        stream = pending.output_stream()
        session.prints(range(8), "first\n")
        came = [(await anext(stream)).text]
        loop = asyncio.get_running_loop()
        loop.call_soon(session.prints, range(8), "second\n")
        came.append((await anext(stream)).text)
        loop.call_soon(session.answers)
        came += [block.text async for block in stream]
        result = await pending
        assert result.values == ["5"] * 8
        return came

    assert asyncio.run(main()) == ["first\n", "second\n"]
