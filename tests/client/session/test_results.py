from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import weakref
from concurrent.futures import Future
from typing import Any

import pytest

from ipmpi.client.session.results import PendingResult, PendingResults, ResultList, barrier
from ipmpi.errors import InvalidDeferredID, NotAPendingResult, ResultNotCompleted


def command(engine: int, **more: Any) -> dict[str, Any]:
    return {"input": {"translated": "x", "raw": "x"}, "number": 3, "id": engine, "stdout": "", **more}


def pending(finish: Any = lambda value: value) -> tuple[PendingResult, Future[Any]]:
    future: Future[Any] = Future()
    return PendingResult(None, future, finish, "execute"), future


def test_a_results_list_shows_input_output_and_errors() -> None:
    results = ResultList([command(0), command(1, stdout="out\n"), command(2, stderr="bad\n"), command(3)])
    assert repr(results) == (
        "<Results List>\n"
        "[0] In [3]: x\n"
        "[1] In [3]: x\n[1] Out[3]: out\n\n"
        "[2] In [3]: x\n[2] Err[3]:\n bad\n"
        "[3] In [3]: x\n"
    )
    assert repr(ResultList()) == "<Results List>\n"


def test_entries_without_input_and_failures_are_shown() -> None:
    results = ResultList([{"id": 0, "number": 1}, ValueError("no")])
    assert repr(results) == "<Results List>\n[0] In [1]: No Input\nno"


def test_colours_are_the_originals() -> None:
    text = ResultList([command(0, stdout="5\n", stderr="e")]).render(colours=True)
    assert text == (
        "<Results List>\n\033[0;32m[0]\033[0;34m In [3]:\033[0m x\n"
        "\033[0;32m[0]\033[0;31m Out[3]:\033[0m 5\n\n"
        "\033[0;32m[0]\033[0;31m Err[3]:\n\033[0m e"
    )


def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert "\033[" in repr(ResultList([command(0)]))
    monkeypatch.setattr("sys.platform", "win32")
    assert "\033[" not in repr(ResultList([command(0)]))


def test_a_result_is_retrieved_once_and_kept() -> None:
    calls: list[int] = []
    result, future = pending(lambda value: calls.append(value) or [value])
    assert result.get_result(default="later", block=False) == "later"
    assert (result.called, result.raised) == (False, False)
    future.set_result(7)
    assert result.r == [7]
    assert result.r is result.get_result()
    assert calls == [7]
    assert (result.called, result.raised) == (True, False)


def test_an_exception_is_raised_by_every_retrieval() -> None:
    result, future = pending()
    future.set_exception(ZeroDivisionError("no"))
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            result.get_result()
    assert (result.called, result.raised) == (True, True)


def test_callbacks_are_chained_and_applied_once() -> None:
    result, future = pending()
    result.add_callback(lambda value, more: value + more, 1)
    result.add_callback(lambda value, factor: value * factor, factor=10)
    future.set_result(4)
    assert result.r == 50
    assert result.r == 50
    result.add_callback(str)
    assert result.r == "50"
    with pytest.raises(TypeError, match=r"callable"):
        result.add_callback(3)  # type: ignore[arg-type]


def test_a_callback_that_raises_makes_the_result_an_exception() -> None:
    result, future = pending()
    result.add_callback(lambda value: 1 // value)
    future.set_result(0)
    with pytest.raises(ZeroDivisionError):
        _ = result.r
    assert result.raised


def test_callbacks_are_not_applied_to_exceptions() -> None:
    result, future = pending()
    result.add_callback(lambda value: "handled")
    future.set_exception(KeyError("a"))
    with pytest.raises(KeyError):
        _ = result.r


def test_waiting_ends_after_the_timeout() -> None:
    result, future = pending()
    assert not result.wait(0)
    with pytest.raises(ResultNotCompleted, match=r"execute.*no result after 0 s. It continues"):
        result.get_result(timeout=0)
    with pytest.raises(TimeoutError):
        result.get_result(timeout=0)
    future.set_result(1)
    assert result.wait()
    assert result.get_result(timeout=0) == 1


def test_a_wait_ends_when_the_result_comes_from_another_thread() -> None:
    result, future = pending()
    thread = threading.Thread(target=future.set_result, args=(3,))
    thread.start()
    assert result.r == 3
    thread.join()


def test_a_cancelled_future_does_not_hang() -> None:
    result, future = pending()
    future.cancel()
    assert result.wait()


def test_results_compare_by_the_order_they_were_made() -> None:
    first, _ = pending()
    second, _ = pending()
    assert sorted([second, first]) == [first, second]
    assert len(first.result_id) == 40
    assert first.result_id != second.result_id
    with pytest.raises(TypeError):
        sorted([first, 3])  # type: ignore[type-var]


def test_a_result_can_be_awaited() -> None:
    result, future = pending(lambda value: value + 1)

    async def main() -> Any:
        asyncio.get_running_loop().call_soon(future.set_result, 1)
        return await result, await result

    assert asyncio.run(main()) == (2, 2)


def test_awaiting_raises_what_the_engines_raised() -> None:
    result, future = pending()
    future.set_exception(ValueError("engine"))

    async def main() -> Any:
        return await result

    with pytest.raises(ValueError, match=r"engine"):
        asyncio.run(main())


def test_flushed_results_are_gone_however_many_there_are() -> None:
    kept = PendingResults()
    results = [kept.add(pending()[0]) for _ in range(5)]
    done, future = pending()
    kept.add(done)
    future.set_result(1)
    assert kept.get(done.result_id).r == 1
    kept.flush()
    for result in results:
        with pytest.raises(InvalidDeferredID, match=r"was flushed"):
            _ = result.r
        with pytest.raises(InvalidDeferredID, match=r"no result is pending"):
            kept.get(result.result_id)
    assert done.r == 1


def test_a_barrier_waits_and_leaves_failures_in_the_results() -> None:
    good, first = pending()
    bad, second = pending()
    first.set_result(1)
    second.set_exception(ValueError("in the result"))
    barrier([bad, good])
    assert good.called
    assert bad.called
    with pytest.raises(ValueError, match=r"in the result"):
        _ = bad.r
    barrier(good)


def test_a_barrier_refuses_what_it_cannot_wait_for() -> None:
    with pytest.raises(NotAPendingResult, match=r"not 3"):
        barrier([3])  # type: ignore[list-item]
    kept = PendingResults()
    flushed = kept.add(pending()[0])
    kept.flush()
    with pytest.raises(InvalidDeferredID):
        barrier([flushed])


def test_repr_tells_the_state() -> None:
    result, future = pending()
    assert repr(result) == "<PendingResult of execute: not done yet>"
    future.set_result(1)
    assert repr(result) == "<PendingResult of execute: done>"
    _ = result.r
    assert repr(result) == "<PendingResult of execute: retrieved>"


# --- as a future of concurrent.futures ---------------------------------------------------------------------------


def test_pythons_own_functions_for_futures_take_it() -> None:
    first, soon = pending(lambda value: value + 1)
    second, late = pending()
    assert isinstance(first, Future)
    assert (first.done(), first.running(), first.cancelled()) == (False, True, False)
    soon.set_result(1)
    done, waiting = concurrent.futures.wait([first, second], return_when=concurrent.futures.FIRST_COMPLETED)
    assert (done, waiting) == ({first}, {second})
    with pytest.raises(concurrent.futures.TimeoutError):
        second.result(timeout=0)
    late.set_exception(ValueError("engine"))
    assert set(concurrent.futures.as_completed([first, second])) == {first, second}
    assert not first.called  # nobody has asked for it so far
    assert (first.result(), first.exception()) == (2, None)
    assert str(second.exception()) == "engine"
    assert (second.called, second.raised) == (True, True)
    with pytest.raises(ValueError, match=r"engine"):
        second.result()


def test_waiting_for_the_first_exception_ends_with_failed_answers() -> None:
    future: Future[Any] = Future()
    failing = PendingResult(None, future, sum, has_failed=lambda answers: None in answers)
    waiting, _ = pending()
    future.set_result([1, None])
    done, _ = concurrent.futures.wait([failing, waiting], 10, concurrent.futures.FIRST_EXCEPTION)
    assert done == {failing}
    assert isinstance(failing.exception(), TypeError)


def test_done_callbacks_are_told_and_a_dropped_result_still_tells() -> None:
    told: list[Any] = []
    result, future = pending()
    result.add_done_callback(lambda done: told.append(done.result()))
    del result
    future.set_result(5)
    assert told == [5]


def test_answers_are_freed_with_a_result_that_nobody_asked_for() -> None:
    class Answers:
        pass

    answers = Answers()
    seen = weakref.ref(answers)
    result, future = pending()
    future.set_result(answers)
    del answers, future, result
    assert seen() is None


def test_a_command_is_not_cancelled_by_its_future() -> None:
    result, future = pending()
    assert not result.cancel()

    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.wrap_future(result), 0.01)

    asyncio.run(main())
    future.set_result(3)
    assert result.r == 3


def test_asyncio_wraps_it() -> None:
    good, first = pending(lambda value: value + 1)
    bad, second = pending()

    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        loop.call_soon(first.set_result, 1)
        loop.call_soon(second.set_exception, KeyError("a"))
        wrapped = [asyncio.wrap_future(good), asyncio.wrap_future(bad)]
        return await asyncio.gather(*wrapped, return_exceptions=True)

    value, error = asyncio.run(main())
    assert value == 2
    assert isinstance(error, KeyError)


def test_whoever_waits_for_a_result_that_is_flushed_hears_of_it() -> None:
    kept = PendingResults()
    result, future = pending()
    kept.add(result)
    errors: list[BaseException | None] = []
    waiting = threading.Thread(target=lambda: errors.append(result.exception()))
    waiting.start()
    kept.flush()
    waiting.join(10)
    assert isinstance(errors[0], InvalidDeferredID)
    future.set_result(1)  # too late
    assert isinstance(result.exception(), InvalidDeferredID)


def test_a_callback_of_a_retrieval_may_look_at_the_result_from_another_thread() -> None:
    result, future = pending()
    seen: list[bool] = []

    def look(value: Any) -> Any:
        # Somebody who waits for the first exception holds the lock of the future meanwhile.
        with result._condition:
            other = threading.Thread(target=lambda: seen.append(result.done()))
            other.start()
            other.join(10)
        return value

    result.add_callback(look)
    future.set_result(1)
    assert result.r == 1
    assert seen == [True]


def test_control_sequences_of_ranks_are_shown_escaped_in_a_result_list() -> None:
    command = {
        "id": 0,
        "number": 1,
        "input": {"translated": "f()"},
        "stdout": "\x1b[2J\x1b]0;title\x07\x1b[31mred",
    }
    text = ResultList([command]).render()
    assert "\x1b[2J" not in text
    assert "\x1b]" not in text
    assert "\x1b[31mred" in text
