# ruff: noqa: ARG002 - stand-ins have the signatures of what they stand in for
"""The examples' numbers, without a cluster: one engine in this process, and MPI ranks that are threads."""

from __future__ import annotations

import io
import math
import queue
import re
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def examples() -> Iterator[SimpleNamespace]:
    """All example modules by their names; the folder is on sys.path only for as long as the tests run."""
    names = ["screen", "heat_engine", "heat", "options", "wordcount", "psum", "taskmap", "multienginemap", "demo"]
    before = dict(sys.modules)
    sys.path.insert(0, str(EXAMPLES))
    try:
        yield SimpleNamespace(**{name: __import__(name) for name in names})
    finally:
        sys.path.remove(str(EXAMPLES))
        for name in [*names, "helloworld"]:
            sys.modules.pop(name, None)
            if name in before:
                sys.modules[name] = before[name]


class OneEngine:
    """The part of the MultiEngineClient that the examples use, on a dictionary."""

    def __init__(self) -> None:
        self.ns: dict[str, Any] = {"mpi": None, "id": 0, "__name__": "engine"}

    def get_ids(self) -> list[int]:
        return [0]

    def execute(self, lines: str) -> None:
        exec(lines, self.ns)

    def run(self, filename: str) -> None:
        exec(compile(Path(filename).read_text(), filename, "exec"), self.ns)

    def push(self, namespace: dict[str, Any]) -> None:
        self.ns.update(namespace)

    def push_function(self, namespace: dict[str, Any]) -> None:
        # As the original did: the code alone travels, and its globals are the engine's namespace.
        for name, function in namespace.items():
            self.ns[name] = FunctionType(function.__code__, self.ns)

    def pull(self, key: str, targets: object = "all") -> list[Any]:
        return [self.ns[key]]

    def scatter(self, key: str, seq: Any) -> None:
        self.ns[key] = seq

    def gather(self, key: str, targets: object = "all") -> Any:
        return self.ns[key]

    def map(self, function: Callable[..., Any], *sequences: Sequence[Any]) -> list[Any]:
        return list(map(function, *sequences))

    def mapper(self, block: bool) -> SimpleNamespace:
        return SimpleNamespace(map=lambda f, *s: SimpleNamespace(r=self.map(f, *s)))

    def parallel(self) -> Callable[..., Any]:
        return lambda function: lambda *sequences: self.map(function, *sequences)


class OneFarm(OneEngine):
    """The part of the TaskClient that the examples use."""

    def mapper(self, block: bool) -> SimpleNamespace:
        def submit(function: Callable[..., Any], *sequences: Sequence[Any]) -> range:
            self.done = self.map(function, *sequences)
            return range(len(self.done))

        return SimpleNamespace(map=submit)

    def barrier(self, ids: object) -> None:
        pass

    def get_task_result(self, number: int, block: bool) -> Any:
        return self.done[number]


class Line:
    """A communicator whose ranks are threads, with what heat_engine.py needs of it."""

    def __init__(self, rank: int, size: int, posts: dict[tuple[int, int], queue.Queue[Any]]) -> None:
        self.rank, self.size, self.posts = rank, size, posts

    def Create_cart(self, dims: list[int]) -> Line:
        assert dims == [self.size]
        return self

    def Shift(self, direction: int, displacement: int) -> tuple[int, int]:
        return self.rank - 1, self.rank + 1 if self.rank + 1 < self.size else -1

    def Sendrecv(self, sendbuf: Any, dest: int, recvbuf: Any, source: int) -> None:
        assert sendbuf.flags.c_contiguous
        assert recvbuf.flags.c_contiguous
        if dest >= 0:
            self.posts[self.rank, dest].put(sendbuf.copy())
        if source >= 0:
            recvbuf[:] = self.posts[source, self.rank].get(timeout=10)


def silent(examples: SimpleNamespace) -> Any:
    return examples.screen.Screen(io.StringIO())


def heat_on_ranks(examples: SimpleNamespace, size: int, points: int, legs: list[tuple[float, int]]) -> Any:
    posts: dict[tuple[int, int], queue.Queue[Any]] = {
        (a, b): queue.Queue() for a in range(size) for b in range(size)
    }
    blocks: dict[int, Any] = {}

    def rank(number: int) -> None:
        plate = examples.heat_engine.Plate(Line(number, size, posts), points)
        for D, steps in legs:
            plate.advance(D, steps)
        blocks[number] = plate.block()

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return np.concatenate([blocks[number] for number in range(size)])


@pytest.mark.parametrize("size", [1, 2, 3, 5, 17])
def test_the_heat_field_is_exact_on_any_number_of_ranks(examples: SimpleNamespace, size: int) -> None:
    legs = [(1.0, 40), (0.25, 30)]
    field = heat_on_ranks(examples, size, 17, legs)
    assert field.shape == (17, 17)
    assert np.abs(field - examples.heat.discrete_solution(17, legs)).max() < 1e-12


def test_ranks_that_exchange_no_rows_give_another_field(examples: SimpleNamespace) -> None:
    engine = examples.heat_engine
    plate = engine.Plate(engine.Alone(), 16)
    plate.advance(1.0, 50)
    legs = [(1.0, 50)]
    # the check in heat.py must be sharp enough to see one wrong diffusivity or one step too many
    assert np.abs(plate.block() - examples.heat.discrete_solution(16, [(1.0, 51)])).max() > 1e-4
    assert np.abs(plate.block() - examples.heat.discrete_solution(16, legs)).max() < 1e-12

    posts = {(a, b): queue.Queue() for a in range(2) for b in range(2)}  # type: ignore[var-annotated]
    lonely = engine.Plate(Line(0, 2, posts), 16)
    lonely.exchange = lambda: None
    lonely.advance(1.0, 50)
    assert np.abs(lonely.block() - plate.block()[:8]).max() > 1e-3


def test_the_finer_the_grid_the_closer_to_the_differential_equation(examples: SimpleNamespace) -> None:
    def error(points: int) -> float:
        steps = 10 * (points + 1) ** 2 // 100  # the same time on every grid
        legs = [(1.0, steps)]
        difference = examples.heat.discrete_solution(points, legs) - examples.heat.continuous_solution(
            points, legs
        )
        return float(np.abs(difference).max())

    assert error(19) / error(39) == pytest.approx(4, rel=0.15)


def test_too_large_a_diffusivity_is_refused(examples: SimpleNamespace) -> None:
    plate = examples.heat_engine.Plate(examples.heat_engine.Alone(), 8)
    with pytest.raises(ValueError, match=r"D = 2\.0 is outside 0 \.\.\. 1\.25, where this scheme is stable"):
        plate.advance(2.0, 1)


def test_more_ranks_than_rows_are_refused(examples: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="4 rows cannot be shared by 5 ranks: ask for more points"):
        examples.heat_engine.Plate(Line(0, 5, {}), 4)


def test_the_closed_form_gives_the_known_prices(examples: SimpleNamespace) -> None:
    call, put = examples.options.black_scholes(100.0, 0.25)
    assert (round(call, 4), round(put, 4)) == (12.3360, 7.4589)
    call, put = examples.options.black_scholes(100.0, 0.0)
    assert round(call, 3) == 4.877
    assert put == 0


def test_a_price_without_volatility_is_exact(examples: SimpleNamespace) -> None:
    pricer = examples.options.make_pricer(10)
    call, put = examples.options.merge([pricer(100.0, 0.0, 1), pricer(100.0, 0.0, 2)])
    assert call == pytest.approx((100 - 100 * math.exp(-0.05), 0.0), abs=1e-6)
    assert put == (0.0, 0.0)


def test_simulated_prices_come_within_their_standard_errors(examples: SimpleNamespace) -> None:
    options = examples.options
    pricer = options.make_pricer(100_000)
    prices = options.merge(pricer(100.0, 0.25, seed) for seed in (1, 2))
    for price, exact in zip(prices, options.black_scholes(100.0, 0.25), strict=True):
        assert 0.005 < price[1] < 0.05
        assert abs(price[0] - exact) < 4 * price[1]


def test_the_standard_error_is_that_of_the_mean(examples: SimpleNamespace) -> None:
    values = np.random.default_rng(0).normal(3, 2, 1000)
    mean, error = examples.options.mean_and_error(1000, values.sum(), (values**2).sum())
    assert mean == pytest.approx(values.mean())
    assert error == pytest.approx(values.std(ddof=1) / math.sqrt(1000))


@pytest.mark.parametrize(
    ("value", "error", "right"),
    [(10.0, 0.01, True), (10.03, 0.01, True), (10.045, 0.01, False), (10.06, 0.1, False), (10.0, 0.0, True)],
)
def test_a_price_is_right_within_four_errors_and_five_cents(
    examples: SimpleNamespace, value: float, error: float, right: bool
) -> None:
    assert examples.options.is_right((value, error), 10.0) is right


def test_the_pricer_needs_nothing_of_its_module(examples: SimpleNamespace) -> None:
    """On an engine there is no module `options`: code and captured values must be all there is to it."""
    price = examples.options.make_pricer(1000)
    assert set(price.__code__.co_freevars) == {"pairs", "spot", "rate", "years"}
    bare = FunctionType(price.__code__, {"__builtins__": __builtins__}, closure=price.__closure__)
    assert bare(100.0, 0.25, 1) == price(100.0, 0.25, 1)


def test_words_are_runs_of_letters_in_any_case(examples: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"The cat's 2 caf\xc3\xa9s, the\xff_end")
    (tmp_path / "b.py").write_bytes(b"THE = 1")
    counts = examples.wordcount.count_words([str(tmp_path / "a.txt"), str(tmp_path / "b.py")])
    assert counts == Counter({"the": 3, "s": 2, "cat": 1, "caf": 1, "end": 1})


def test_text_files_are_sorted_and_limited(examples: SimpleNamespace, tmp_path: Path) -> None:
    for name in ("b.py", "a.txt", "c.py", "picture.png", "site-packages/d.py", "sub/a.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    found = [str(Path(path).relative_to(tmp_path)) for path in examples.wordcount.text_files(str(tmp_path))]
    assert found == ["a.txt", "b.py", "c.py", "sub/a.py"]
    assert len(examples.wordcount.text_files(str(tmp_path), limit=2)) == 2


@pytest.mark.parametrize("name", ["heat", "wordcount", "psum", "multienginemap"])
def test_a_multiengine_example_passes_on_one_engine(
    examples: SimpleNamespace, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "wordcount":
        files = [str(path) for path in sorted(EXAMPLES.glob("*.py"))]
        monkeypatch.setattr(examples.wordcount, "text_files", lambda: files)
    screen = silent(examples)
    assert getattr(examples, name).main(OneEngine(), None, screen) is True
    assert "passed" in screen.stream.getvalue()
    assert screen.figure


@pytest.mark.parametrize("name", ["options", "taskmap"])
def test_a_task_example_passes_on_one_engine(
    examples: SimpleNamespace, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examples.options, "PAIRS", 20_000)
    monkeypatch.setattr(examples.options, "SEEDS", (1, 2))
    # With so few draws five cents is too strict a limit; four standard errors stay.
    monkeypatch.setattr(examples.options, "is_right", lambda price, exact: abs(price[0] - exact) < 4 * price[1])
    assert getattr(examples, name).main(None, OneFarm(), silent(examples)) is True


def test_a_wrong_field_fails_the_heat_check(examples: SimpleNamespace) -> None:
    class Careless(OneEngine):
        def gather(self, key: str, targets: object = "all") -> Any:
            return self.ns[key] + 1e-8

    screen = silent(examples)
    assert examples.heat.main(Careless(), None, screen) is False
    assert "FAILED" in screen.stream.getvalue()


def test_engines_without_a_common_communicator_are_told_how_to_get_one(examples: SimpleNamespace) -> None:
    class Strangers(OneEngine):
        def get_ids(self) -> list[int]:
            return [0, 1]

        def pull(self, key: str, targets: object = "all") -> list[Any]:
            return [(0, 1), (0, 1)]

    with pytest.raises(
        RuntimeError, match=r"share one MPI communicator.*2 engines here.*ipcluster -n 4 --mpi=mpi4py"
    ):
        examples.screen.ranks_in_order(Strangers())


def test_engine_ids_come_in_the_order_of_the_ranks(examples: SimpleNamespace) -> None:
    class Shuffled(OneEngine):
        def get_ids(self) -> list[int]:
            return [3, 4, 7]

        def pull(self, key: str, targets: object = "all") -> list[Any]:
            return [(2, 3), (0, 3), (1, 3)]

    assert examples.screen.ranks_in_order(Shuffled()) == [4, 7, 3]


def test_output_through_a_pipe_is_plain(examples: SimpleNamespace) -> None:
    screen = silent(examples)
    screen.heading("A")
    screen.typed("mec.get_ids()")
    screen.result("fine", True)
    assert screen.stream.getvalue() == "\nA\n  >>> mec.get_ids()\n  passed: fine\n"


def test_output_on_a_terminal_is_coloured(examples: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    screen = examples.screen.Screen(Terminal())
    screen.result("fine", False)
    assert re.search("\033\\[0;31mFAILED\033\\[0m: fine", screen.stream.getvalue())
    monkeypatch.setenv("NO_COLOR", "1")
    assert examples.screen.Screen(Terminal()).colours is False


def test_every_example_says_what_it_shows(examples: SimpleNamespace) -> None:
    for name in ("heat", "options", "wordcount", "psum", "taskmap", "multienginemap", "demo"):
        module: ModuleType = getattr(examples, name)
        assert module.__doc__
        assert "python examples/" + name in module.__doc__
