"""Calls whose results are kept: none is made twice, whoever asks, with or without engines."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_farm import FakeFarm
from thread_farm import ThreadFarm

from ipmpi.client import TaskClient
from ipmpi.client.cache.resultcache import ResultCache
from ipmpi.client.cache.store import FILE
from ipmpi.client.session.opening import EVERYTHING
from ipmpi.client.tasks.cachedcalls import KeptResults
from ipmpi.errors import ClientError, SecurityError

LARGE = 100_000


@pytest.fixture
def calls() -> list[Any]:
    """What engines, which are in this process, were called with."""
    import builtins

    builtins.calls_of_test = []  # type: ignore[attr-defined]
    found: list[Any] = builtins.calls_of_test  # type: ignore[attr-defined]
    return found


def double(x: Any, *, plus: int = 0) -> Any:
    import builtins

    builtins.calls_of_test.append(x)  # type: ignore[attr-defined]
    return x * 2 + plus if plus else x * 2


def fails_once(x: int) -> int:
    import builtins

    builtins.calls_of_test.append(x)  # type: ignore[attr-defined]
    if builtins.calls_of_test.count(x) == 1:  # type: ignore[attr-defined]
        raise ValueError(f"no {x}")
    return x


@pytest.fixture
def client(tmp_path: Path) -> Callable[..., TaskClient]:
    """Makes clients, each with a controller of its own, as in another job."""

    def make(farm: Any = None, **options: Any) -> TaskClient:
        return TaskClient(session=farm or FakeFarm(), cache_folder=tmp_path / "cache", **options)

    return make


Make = Callable[..., TaskClient]


def test_a_sweep_that_is_run_again_does_the_missing_part_only(client: Make, calls: list[Any]) -> None:
    assert client().map(double, range(5), cache=True) == [0, 2, 4, 6, 8]
    assert calls == [0, 1, 2, 3, 4]
    tc = client()
    assert tc.map(double, [7, 3, 5, 0], cache=True) == [14, 6, 10, 0]
    assert calls[5:] == [7, 5]
    assert tc.map(double, range(8), cache=True) == list(range(0, 16, 2))
    assert calls[7:] == [6]
    info = tc.cache_info()
    assert (info.hits, info.misses, info.entries) == (2 + 7, 2 + 1, 8)


class Marks:
    """Calls a function when it is opened."""

    def __reduce__(self) -> Any:
        return abs, (-1,)


def bad(x: int) -> Any:
    import builtins

    builtins.calls_of_test.append(x)  # type: ignore[attr-defined]
    return Marks()


def test_what_a_safe_client_has_refused_is_found_by_no_other_client(client: Make, calls: list[Any]) -> None:
    """The folder is for all clusters: one that is not trusted must not reach whoever trusts another."""
    for call in (lambda tc: tc.submit(bad, 1, cache=True).result(), lambda tc: tc.map(bad, [2, 3], cache=True)):
        with pytest.raises(SecurityError, match="opens plain data only"):
            call(client(unpickle="safe"))
        assert client().cache_info().entries == 0
    assert calls == [1, 2, 3]
    assert client().submit(bad, 1, cache=True).result() == 1
    assert client().map(bad, [2, 3], cache=True) == [1, 1]
    assert calls[3:] == [1, 2, 3], "an engine of this client was asked"


def test_safe_clients_find_what_safe_clients_have_kept(client: Make, calls: list[Any]) -> None:
    for _ in range(2):
        assert client(unpickle="safe").map(double, range(3), cache=True) == [0, 2, 4]
        assert client(unpickle="safe").submit(double, 7, cache=True).result() == 14
    assert calls == [0, 1, 2, 7]


def test_a_call_with_a_result_needs_no_engine(client: Make, calls: list[Any]) -> None:
    tc = client()
    assert tc.submit(double, 4, cache=True).result() == 8
    farm = FakeFarm(0)
    farm.held = True
    tc = client(farm)
    future = tc.submit(double, 4, cache=True)
    assert future.done()
    assert future.result(timeout=0) == 8
    assert (future.engine, future.metadata["status"]) == (None, "ok")
    assert tc.map(double, [4, 4], cache=True) == [8, 8]
    assert calls == [4]
    assert not farm.sent


def test_by_name_and_by_place_are_two_calls(client: Make, calls: list[Any]) -> None:
    tc = client()
    assert tc.submit(double, 4, plus=1, cache=True).result() == 9
    assert tc.submit(double, x=4, plus=1, cache=True).result() == 9
    assert tc.submit(double, 4, plus=1, cache=True).result() == 9
    assert len(calls) == 2


def test_without_cache_every_call_is_made(client: Make, calls: list[Any]) -> None:
    tc = client()
    for _ in range(2):
        assert tc.submit(double, 4).result() == 8
        assert tc.map(double, [4]) == [8]
        assert tc.submit(double, 4, cache=False).result() == 8
    assert len(calls) == 6


def test_equal_calls_of_one_map_are_made_once_and_have_results_of_their_own(
    client: Make, calls: list[Any]
) -> None:
    first, other, third = client().map(double, [[1], [2], [1]], cache=True)
    assert (first, other, third) == ([1, 1], [2, 2], [1, 1])
    assert first is not third
    assert calls == [[1], [2]]
    one, two = client().map(double, [[1], [1]], cache=True)
    assert one is not two


@pytest.mark.parametrize("size", [10, LARGE])
def test_arrays_are_kept_as_they_were(client: Make, calls: list[Any], size: int) -> None:
    """Whatever is done to the arrays that were returned: they may share memory with what came."""
    array = np.arange(float(size))
    expected = array * 2
    for tc in (client(), client()):
        for found in (
            tc.map(double, [array], cache=True)[0],
            tc.submit(double, np.asfortranarray(array), cache=True).result(),
        ):
            np.testing.assert_array_equal(found, expected)
            found[:] = -1
    assert len(calls) == 1


def test_a_large_result_is_kept_as_it_came(tmp_path: Path) -> None:
    """The user's array uses the memory in which it came, and may change before it is written."""
    cache = ResultCache(tmp_path / "cache")
    key = bytes(20)
    came = [bytearray(b"stream"), memoryview(bytearray(b"elements"))]
    goes_on = threading.Event()
    cache.keep(1, lambda: iter(() if goes_on.wait(60) else [(key, b"")]))
    KeptResults(cache, [key], frozenset(), EVERYTHING).large(0, came)  # type: ignore[arg-type]
    for segment in came:
        segment[:] = bytes(len(segment))
    goes_on.set()
    cache.flush()
    assert cache.find([key]) == {key: [b"stream", b"elements"]}


def test_a_failure_is_not_kept(client: Make, calls: list[Any]) -> None:
    with pytest.raises(ValueError, match="no 1"):
        client().submit(fails_once, 1, cache=True).result()
    assert client().submit(fails_once, 1, cache=True).result() == 1
    got = client().map(fails_once, [1, 2, 3], cache=True, return_exceptions=True)
    assert [str(each) for each in got] == ["1", "no 2", "no 3"]
    with pytest.raises(ValueError, match="no 4"):
        client().map(fails_once, [1, 4, 5], cache=True)
    assert client().map(fails_once, [1, 2, 3, 4], cache=True) == [1, 2, 3, 4]
    assert calls.count(1) == 2


def test_results_before_a_failure_are_kept(client: Make, calls: list[Any]) -> None:
    with pytest.raises(ValueError, match="no 9"):
        client().map(fails_once, [9], cache=True)
    calls.clear()
    calls += [1, 2, 3]
    with pytest.raises(ValueError, match="no 9"):
        client().map(fails_once, [1, 2, 9, 3], cache=True)
    tc = client()
    calls.clear()
    assert tc.map(fails_once, [1, 2], cache=True) == [1, 2]
    assert calls == []


def test_a_changed_function_is_called_again(client: Make, calls: list[Any]) -> None:
    def made(a: int) -> Callable[[int], int]:
        def f(x: int) -> int:
            return double(x) + a

        return f

    tc = client()
    assert tc.map(made(1), [1], cache=True) == [3]
    assert tc.map(made(2), [1], cache=True) == [4]
    assert tc.map(made(1), [1], cache=True) == [3]
    assert len(calls) == 2


def test_a_result_that_is_none(client: Make, calls: list[Any]) -> None:
    tc = client()
    for _ in range(2):
        assert tc.map(recall := (lambda x: double([x]) and None), [1], cache=True) == [None]
        assert tc.submit(recall, 1, cache=True).result() is None
    assert len(calls) == 1


def test_arguments_that_are_futures_count_by_their_results(client: Make, calls: list[Any]) -> None:
    tc = client()
    first = tc.submit(double, 1)
    assert tc.submit(double, first, cache=True).result() == 4
    assert calls == [1, 2]
    assert tc.submit(double, 2, cache=True).result() == 4
    assert tc.submit(double, tc.submit(double, 1), plus=first, cache=True).result() == 6
    assert tc.submit(double, 2, plus=2, cache=True).result() == 6
    assert calls == [1, 2, 1, 2]


def test_a_result_does_not_wait_for_tasks_before_it(client: Make, calls: list[Any]) -> None:
    client().submit(double, 1, cache=True).result()
    farm = FakeFarm()
    tc = client(farm)
    farm.held = True
    before = tc.submit(double, 5)
    assert tc.submit(double, 1, after=before, cache=True).result(timeout=0) == 2
    waits = tc.submit(double, 2, after=before, cache=True)
    assert not waits.done()
    farm.work()
    assert waits.result() == 4
    assert client().submit(double, 2, cache=True).result() == 4
    assert calls == [1, 5, 2]


def test_arguments_that_change_before_they_are_sent_count_as_sent(client: Make, calls: list[Any]) -> None:
    farm = FakeFarm()
    tc = client(farm)
    farm.held = True
    argument = [1]
    waits = tc.submit(double, argument, after=tc.submit(double, tc.submit(double, 3)), cache=True)
    argument.append(2)
    farm.work()
    found = waits.result()
    assert client().submit(double, found[: len(found) // 2], cache=True).result() == found


def test_engines_are_not_part_of_the_call(client: Make, calls: list[Any]) -> None:
    tc = client()
    tc.submit(double, 1, cache=True).result()
    assert tc.submit(double, 1, priority=5, retries=1, depend=lambda properties: True, cache=True).done()
    assert tc.options(cache=True, timeout=60).submit(double, 1).done()
    assert len(calls) == 1


def test_ranks_are_part_of_the_call(client: Make, calls: list[Any]) -> None:
    farm = FakeFarm()
    tc = client(farm)
    tc.submit(double, 1, cache=True).result()
    farm.held = True
    assert not tc.submit(double, 1, ranks=2, cache=True).done()


def test_what_cannot_be_compared_is_refused_before_anything_is_sent(client: Make) -> None:
    farm = FakeFarm()
    tc = client(farm)
    for call in (
        lambda: tc.submit(double, threading.Lock(), cache=True),
        lambda: tc.map(double, [1, threading.Lock()], cache=True),
        lambda: tc.cached(double)(threading.Lock()),
    ):
        with pytest.raises(TypeError, match=r"argument 1 is a _thread.lock object.*leave cache=True out"):
            call()
    assert not farm.sent


def test_names_that_were_put_on_engines_do_not_change_a_result(client: Make) -> None:
    """The key has the globals of this program, so the call has to use them."""
    space: dict[str, Any] = {"__name__": "__main__"}
    exec("K = 2\ndef f(x): return K * x", space)
    farm = FakeFarm()
    for runner in farm.runners:
        runner._namespace.merge({"K": 100})
    tc = client(farm)
    assert tc.submit(space["f"], 1).result() == 100
    assert tc.submit(space["f"], 1, cache=True).result() == 2
    assert tc.map(space["f"], [1, 2], cache=True) == [2, 4]


# --- decorated functions ----------------------------------------------------------------------------------------


def test_a_cached_function(client: Make, calls: list[Any]) -> None:
    tc = client()

    @tc.cached
    def f(x: int, plus: int = 0) -> int:
        """What it does."""
        return int(double(x, plus=plus))

    assert (f(1), f(1), f(1, plus=1)) == (2, 2, 3)
    assert f.map([1, 2], [0, 0]) == [2, 4]
    assert f.map([1, 2], [0, 0]) == [2, 4]
    assert f.submit(1).done()
    assert tc.map(f, [1, 3]) == tc.map(f, [1, 3]) == [2, 6]
    assert tc.submit(f, 3).done()
    assert tc.submit(f.function, 3, cache=True).done()
    assert len(calls) == 5
    assert (f.__name__, f.__doc__) == ("f", "What it does.")


def test_a_cached_function_with_options(client: Make) -> None:
    farm = FakeFarm()
    tc = client(farm)
    f = tc.cached(retries=2, priority=3)(double)
    farm.held = True
    f.submit(1)
    options = farm.sent[-1].options  # type: ignore[union-attr]
    assert (options.retries, options.priority) == (2, 3)
    with pytest.raises(TypeError, match="'nothing' is not an option"):
        tc.cached(nothing=1)(double)
    with pytest.raises(TypeError, match="a cached function must be a function"):
        tc.cached(5)  # type: ignore[call-overload]


def test_a_cached_function_that_calls_itself_runs_on_the_engine(client: Make, calls: list[Any]) -> None:
    tc = client()
    space: dict[str, Any] = {"__name__": "__main__", "tc": tc}
    exec("@tc.cached\ndef f(n): return n * f(n - 1) if n else 1", space)
    assert space["f"](5) == 120
    assert space["f"](5) == 120


# --- who shares -------------------------------------------------------------------------------------------------


def test_two_maps_at_once_that_need_the_same_may_both_compute_it(client: Make, calls: list[Any]) -> None:
    clients = [client(ThreadFarm()) for _ in range(3)]
    with ThreadPoolExecutor(3) as threads:
        got = list(threads.map(lambda tc: tc.map(double, range(50), cache=True), clients))
    assert got == [list(range(0, 100, 2))] * 3
    assert 50 <= len(calls) <= 150
    calls.clear()
    assert client().map(double, range(50), cache=True) == got[0]
    assert calls == []
    for tc in clients:
        tc.close()


def test_clearing_forgets_everything(client: Make, calls: list[Any]) -> None:
    tc = client()
    tc.map(double, range(3), cache=True)
    assert client().cache_clear() == 3
    assert tc.cache_info().entries == 0
    tc.map(double, range(3), cache=True)
    assert len(calls) == 6


def test_a_damaged_result_is_computed_again(
    client: Make, calls: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tc = client()
    tc.map(double, ["abc", "def"], cache=True)
    tc.close()
    file = tmp_path / "cache" / FILE
    file.write_bytes(file.read_bytes().replace(b"abcabc", b"abXabc"))
    assert client().map(double, ["abc", "def"], cache=True) == ["abcabc", "defdef"]
    assert calls == ["abc", "def", "abc"]
    assert "were damaged, and are computed again" in capsys.readouterr().err
    assert client().map(double, ["abc", "def"], cache=True) == ["abcabc", "defdef"]
    assert len(calls) == 3


def test_a_result_that_cannot_be_opened_any_more_is_computed_again(
    client: Make, calls: list[Any], tmp_path: Path
) -> None:
    tc = client()
    tc.submit(double, "abc", cache=True).result()
    tc.close()
    with sqlite3.connect(tmp_path / "cache" / FILE) as connection:
        (key,) = connection.execute("SELECT key FROM entries").fetchone()
    tc._cache.opened().remove([key])
    tc._cache.opened().keep(1, lambda: [(key, b"cnothing_of_test\nNothing\n.")])
    tc._cache.opened().flush()
    assert client().submit(double, "abc", cache=True).result() == "abcabc"
    assert client().submit(double, "abc", cache=True).result() == "abcabc"
    assert len(calls) == 2


def test_the_folder_is_that_of_the_user_if_none_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[Any]
) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    tc = TaskClient(session=FakeFarm())  # type: ignore[arg-type]
    assert not (tmp_path / "ipython").exists()
    tc.submit(double, 1, cache=True).result()
    assert tc.cache_info().folder == tmp_path / "ipython" / "cache"
    assert (tmp_path / "ipython" / "cache" / FILE).exists()


def test_a_folder_that_others_can_write_to_is_refused_before_anything_is_sent(
    client: Make, tmp_path: Path
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    farm = FakeFarm()
    tc = client(farm)
    for call in (lambda: tc.submit(double, 1, cache=True), lambda: tc.map(double, [1], cache=True), tc.cache_info):
        with pytest.raises(SecurityError, match="others can write to"):
            call()
    assert not farm.sent
    with pytest.raises(ClientError, match="cannot be used"):
        TaskClient(session=farm, cache_folder="/proc/nothing/here").cache_clear()  # type: ignore[arg-type]


def test_imap_does_not_look_for_results(client: Make) -> None:
    with pytest.raises(TypeError, match="cache=True is an option of submit and map"):
        client().options(cache=True).imap(double, [1])


def test_a_parameter_called_cache_is_the_functions(client: Make) -> None:
    def f(x: int, cache: bool = False) -> tuple[int, bool]:
        return x, cache

    tc = client()
    with pytest.raises(TypeError, match="has a parameter 'cache' of its own"):
        tc.submit(f, 1, cache=True)
    assert tc.options().submit(f, 1, cache=True).result() == (1, True)
    assert tc.options(cache=True).submit(f, 1, cache=False).result() == (1, False)


def test_a_map_of_many_known_results_takes_about_a_second(client: Make) -> None:
    """Measured against the same number of calls of the function here, since machines differ and are loaded."""
    number = 20_000
    tc = client()
    expected = tc.map(abs, range(number), cache=True)
    tc = client()
    tc.map(abs, [1], cache=True)
    begun = time.process_time()
    assert tc.map(abs, range(number), cache=True) == expected
    took = time.process_time() - begun
    begun = time.process_time()
    for value in range(number):
        assert eval(compile(f"abs({value})", "", "eval")) == value
    assert took < 4 * (time.process_time() - begun)
