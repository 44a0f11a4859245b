"""Handles of arrays of which each engine has a block, against NumPy on the whole array."""

from __future__ import annotations

import importlib.util
import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from array_engines import Engines
from hypothesis import given, settings, strategies as st

from ipmpi import communicator
from ipmpi.arrays import local, published
from ipmpi.client.engines import distributed
from ipmpi.errors import EngineLost, InvalidEngineID


def divided(length: int, cuts: Sequence[float]) -> list[int]:
    """Lengths that add up to ``length``."""
    ends = [0, *sorted(round(cut * length) for cut in cuts), length]
    return [end - begin for begin, end in itertools.pairwise(ends)]


@st.composite
def spread_arrays(draw: st.DrawFn) -> tuple[Engines, dict[str, Any], Any]:
    """A whole array, and engines with its blocks in a grid."""
    ndim = draw(st.integers(1, 3))
    shape = tuple(draw(st.integers(0, 7)) for _ in range(ndim))
    grid = tuple(draw(st.integers(1, 3)) for _ in range(ndim))
    dtype = np.dtype(draw(st.sampled_from(["f8", "f4", "i8", "u1", "?", ">f8", "f2", "i2"])))
    seed = draw(st.integers(0, 99))
    whole = np.random.default_rng(seed).integers(0, 9, shape).astype(dtype)
    if dtype.kind == "f" and draw(st.booleans()):
        whole[whole == 3] = np.nan
    halo = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in range(ndim))
    lengths = [divided(n, [draw(st.floats(0, 1)) for _ in range(k - 1)]) for n, k in zip(shape, grid, strict=True)]
    order = draw(st.sampled_from("CF"))
    spaces: dict[int, dict[str, Any]] = {}
    for number, place in enumerate(itertools.product(*map(range, grid))):
        starts = [sum(along[:at]) for along, at in zip(lengths, place, strict=True)]
        block = whole[tuple(slice(s, s + along[at]) for s, along, at in zip(starts, lengths, place, strict=True))]
        padded = np.asarray(np.pad(block, halo, constant_values=1), order=order)
        spaces[10 + number] = {"T": padded, "begin": np.array(starts)}
    way = draw(st.sampled_from(["grid", "offset"]))
    spread = {"halo": halo} | ({"grid": grid} if way == "grid" else {"offset": "begin", "shape": shape})
    return Engines(spaces), spread, whole


INDICES = st.one_of(
    st.builds(slice, *[st.one_of(st.none(), st.integers(-9, 9))] * 2, st.sampled_from([None, 1, 2, 3, -1, -2, 5])),
    st.integers(-7, 6),
)


@settings(max_examples=300, deadline=None)
@given(spread_arrays(), st.lists(INDICES, max_size=3), st.booleans())
def test_indices_select_what_they_select_of_the_whole_array(
    spread: tuple[Engines, dict[str, Any], Any], indices: list[Any], dots: bool
) -> None:
    engines, how, whole = spread
    array = engines.array(**how)
    assert (array.shape, array.dtype) == (whole.shape, whole.dtype)
    index = tuple([*indices[:1], ..., *indices[1:]] if dots else indices)
    try:
        expected = whole[index]
    except IndexError:
        with pytest.raises(IndexError):
            array[index]
        return
    found = array[index]
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_array_equal(found, expected)


@settings(max_examples=150, deadline=None)
@given(spread_arrays())
def test_reductions_are_those_of_the_whole_array(spread: tuple[Engines, dict[str, Any], Any]) -> None:
    engines, how, whole = spread
    array = engines.array(**how)
    stats = array.stats()
    good = whole[~np.isnan(whole)]
    numbers = good.astype("u1") if good.dtype == bool else good
    assert (stats.count, stats.nans) == (good.size, whole.size - good.size)
    counts, edges = array.hist(5)
    expected = np.histogram(numbers, 5)
    np.testing.assert_array_equal(counts, expected[0])
    np.testing.assert_array_equal(edges, expected[1])
    if not good.size:
        assert math.isnan(stats.mean)
        assert stats.min is None
        with pytest.raises(ValueError, match="no elements"):
            array.max()
        return
    precise = good.astype("f8")
    assert stats.mean == pytest.approx(precise.mean())
    assert stats.std == pytest.approx(precise.std(), abs=1e-12)
    for extreme, place in ((array.min(), np.nanargmin(whole)), (array.max(), np.nanargmax(whole))):
        assert extreme.position == np.unravel_index(place, whole.shape)
        assert extreme.value == whole.flat[place]
        assert extreme.engine in engines.spaces


def test_only_engines_that_have_something_are_asked() -> None:
    engines = Engines({n: {"T": np.full((2, 3), n)} for n in range(4)})
    array = engines.array()
    engines.asked.clear()
    np.testing.assert_array_equal(array[3:5, 0], [1, 2])
    assert engines.asked == [[1, 2]]
    engines.asked.clear()
    assert array[3:3].shape == (0, 3)
    assert engines.asked == []


def test_blocks_follow_each_other_along_a_dimension() -> None:
    parts = [np.arange(6).reshape(2, 3), np.arange(4).reshape(2, 2)]
    engines = Engines({n: {"T": part} for n, part in enumerate(parts)})
    for axis in (1, -1):
        np.testing.assert_array_equal(engines.array(axis=axis)[...], np.concatenate(parts, 1))
    with pytest.raises(ValueError, match=r"engines 0 and 1 .* along dimension 1 they have 3 and 2 elements"):
        engines.array()
    with pytest.raises(ValueError, match="axis=2 is none of the 2 dimensions"):
        engines.array(axis=2)


class Cart:
    """What a Cartesian communicator says."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def Get_rank(self) -> int:
        return self.rank

    def Get_coords(self, rank: int) -> list[int]:
        return [rank % 2, rank // 2]  # ranks may be reordered

    def Get_topo(self) -> tuple[list[int], list[int], list[int]]:
        return [2, 2], [0, 0], [0, 0]


def test_a_cartesian_communicator_says_where_blocks_are() -> None:
    whole = np.arange(16).reshape(4, 4)
    spaces = {n: {"T": whole[n % 2 * 2 :][:2, n // 2 * 2 :][:, :2], "cart": Cart(n)} for n in range(4)}
    np.testing.assert_array_equal(Engines(spaces).array(comm="cart").gather(), whole)
    spaces[1]["cart"] = object()
    with pytest.raises(TypeError, match="made by Create_cart, and on this engine it is a object"):
        Engines(spaces).array(comm="cart")


class Told:
    """What a program says when it publishes an array."""

    def __init__(self, offset: Any = None, shape: Any = None, halo: Any = 0) -> None:
        self.offset, self.shape, self.halo = offset, shape, halo


def programs(
    monkeypatch: pytest.MonkeyPatch, blocks: list[Any], told: list[Told | None], carts: Any = None
) -> Engines:
    """Engines that are ranks of a program, which has published their blocks so."""
    engines = Engines({n: {"T": block} for n, block in enumerate(blocks)})

    def program() -> published.Program:
        each = told[engines.current]
        return published.Program({} if each is None else {"T": each}, lambda: 7)

    def joined() -> communicator.Shared:
        return communicator.Shared(None, None, None if carts is None else carts[engines.current])

    monkeypatch.setattr(published, "program", program)
    monkeypatch.setattr(local, "shared", joined)
    return engines


def test_a_program_says_where_its_blocks_are(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.arange(36).reshape(6, 6)
    starts = [(0, 3), (0, 0), (3, 0), (3, 3)]
    padded = np.pad(whole, 1, constant_values=-1)
    blocks = [padded[i : i + 5, j : j + 5] for i, j in starts]
    engines = programs(monkeypatch, blocks, [Told(np.array(at), (6, 6), 1) for at in starts])
    found = engines.array()
    np.testing.assert_array_equal(found.gather(), whole)
    assert found.blocks[0].offset == (0, 3)
    # What the client says goes before.
    assert engines.array(axis=1, halo=1).shape == (3, 12)
    # A halo alone says that there are ghost cells.
    assert programs(monkeypatch, blocks, [Told(halo=(1, 1))] * 4).array().shape == (12, 3)


def test_a_program_that_was_attached_with_a_cartesian_communicator_needs_no_offsets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = np.arange(16).reshape(4, 4)
    blocks = [whole[n % 2 * 2 :][:2, n // 2 * 2 :][:, :2] for n in range(4)]
    carts = [Cart(n) for n in range(4)]
    np.testing.assert_array_equal(programs(monkeypatch, blocks, [Told()] * 4, carts).array().gather(), whole)
    np.testing.assert_array_equal(programs(monkeypatch, blocks, [None] * 4, carts).array().gather(), whole)
    starts = [Told((4 * n,)) for n in range(4)]
    rows = programs(monkeypatch, [np.full(4, n) for n in range(4)], [*reversed(starts)], carts).array()
    np.testing.assert_array_equal(rows[::4], [3, 2, 1, 0])


@pytest.mark.parametrize(
    ("told", "text"),
    [
        (
            [Told((0,)), Told()],
            "T with offset=.0,., shape=None, halo=0 on engine 0, and with offset=None",
        ),
        ([Told((0,), (4,)), Told((2,), (5,))], r"shape=\(4,\), halo=0 on engine 0, and with .* shape=\(5,\)"),
        ([Told((0,), halo=1), Told((2,))], "must be the same on all ranks"),
        (
            [Told((0,)), Told("x")],
            r"publish\(offset=...\) of T must be a sequence of integers; on this .* 'x'",
        ),
        ([Told((0,), 1.5)] * 2, r"publish\(shape=...\) of T must be a sequence of integers"),
        ([Told(halo="x")] * 2, "halo must be a number of ghost cells"),
        ([Told((0,)), Told((1,))], "the blocks of engines 0 and 1 overlap"),
    ],
)
def test_what_a_program_says_wrongly_is_said(
    monkeypatch: pytest.MonkeyPatch, told: list[Told | None], text: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=text):
        programs(monkeypatch, [np.zeros(2)] * 2, told).array()


def two(first: Any, second: Any, **more: Any) -> Engines:
    return Engines(
        {
            0: {"T": first} | {k: v[0] for k, v in more.items()},
            1: {"T": second} | {k: v[1] for k, v in more.items()},
        }
    )


@pytest.mark.parametrize(
    ("engines", "spread", "text"),
    [
        (two(np.zeros(2), [1, 2]), {}, "T is a list on engine 1, and not a NumPy array of numbers"),
        (two(np.zeros(2), np.array(["a"])), {}, "T is an array of <U1 on engine 1"),
        (two(np.zeros(2), np.zeros(2, "f4")), {}, "dtype <f8 and shape .2,. on engine 0, and dtype <f4"),
        (two(np.zeros(2), np.zeros((2, 2))), {}, "they are not parts of one array"),
        (two(np.zeros(()), np.ones(())), {}, "it is one number on each engine"),
        (two(np.zeros(2), np.zeros(2)), {"grid": (3,)}, "a grid of .3,. has 3 places, and there are 2 engines"),
        (two(np.zeros(2), np.zeros(2)), {"grid": (1, 2)}, "cannot divide an array of 1 dimensions"),
        (two(np.zeros(2), np.zeros(2)), {"grid": (2,), "axis": 0}, "axis= and grid= both say how"),
        (two(np.zeros(2), np.zeros(2)), {"shape": (4,)}, "shape= is for blocks with offset="),
        (two(np.zeros(2), np.zeros(2)), {"halo": 2}, r"on engine 0: that is less than its ghost cells"),
        (two(np.zeros(2), np.zeros(2)), {"halo": -1}, "halo must be a number of ghost cells; .*: -1"),
        (two(np.zeros(2), np.zeros(2)), {"halo": (1, 1)}, "halo= is for 2 dimensions, and the array has 1"),
        (two(np.zeros(2), np.zeros(2)), {"halo": True}, "halo must be a number of ghost cells; .*True"),
        (two(np.zeros(2), np.zeros(2), at=(0, 1)), {"offset": "at"}, "blocks of engines 0 and 1 overlap"),
        (two(np.zeros(2), np.zeros(2), at=(0, 3)), {"offset": "at"}, "have 4 elements together, and an array of"),
        (two(np.zeros(2), np.zeros(2), at=(0, -2)), {"offset": "at"}, "does not lie within the whole array"),
        (two(np.zeros(2), np.zeros(2), at=(0, (2, 0))), {"offset": "at"}, "and the array has 1 dimensions"),
        (two(np.zeros(2), np.zeros(2), at=(0, "x")), {"offset": "at"}, "a sequence of integers; on this engine"),
        (two(np.zeros(2), np.zeros(2), at=(0, 2)), {"offset": "at", "shape": (2, 2)}, "has 2 dimensions, and the"),
        (Engines({}), {}, "no engines among these targets"),
    ],
)  # fmt: skip
def test_what_makes_up_no_array_is_said(engines: Engines, spread: dict[str, Any], text: str) -> None:
    with pytest.raises((TypeError, ValueError), match=text):
        engines.array(**spread)


def test_an_array_that_has_changed_is_refused() -> None:
    engines = two(np.zeros(2), np.zeros(2))
    array = engines.array()
    engines.spaces[1]["T"] = np.ones(2)
    np.testing.assert_array_equal(array[...], [0, 0, 1, 1])
    engines.spaces[1]["T"] = np.ones(3)
    for ask in (array.gather, array.stats):
        with pytest.raises(ValueError, match=r"shape \(3,\) on this engine now.*call array\(\) again"):
            ask()
    engines.spaces[1]["T"] = "text"
    with pytest.raises(ValueError, match="it is a str on this engine now"):
        array.stats()


@pytest.mark.parametrize("index", [[0], np.zeros(4, bool), None, True, 1.0, (0, None)])
def test_other_indices_are_refused(index: Any) -> None:
    array = Engines({0: {"T": np.zeros((4, 4))}}).array()
    with pytest.raises(TypeError, match=r"for others, index what gather\(\) returns"):
        array[index]


def test_a_sample_has_at_most_so_many_bytes() -> None:
    array = Engines({n: {"T": np.arange(1000.0).reshape(100, 10)} for n in range(3)}).array()
    for size in (8, 100, 1000, 10_000, 100_000):
        sample = array.sample(size)
        assert sample.nbytes <= size
        step = array.step_for(size // 8)
        np.testing.assert_array_equal(sample, array[::step, ::step])
        assert step == 1 or array[:: step - 1, :: step - 1].nbytes > size
    with pytest.raises(ValueError, match="an element has 8 bytes"):
        array.sample(7)
    with pytest.raises(TypeError, match="a number of bytes"):
        array.sample(True)


def test_numpy_takes_it_as_an_array(monkeypatch: pytest.MonkeyPatch) -> None:
    array = Engines({n: {"T": np.arange(3) + n} for n in range(2)}).array()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(np.asarray(array), [0, 1, 2, 1, 2, 3])
        assert np.asarray(array, "f4").dtype == "f4"
    monkeypatch.setattr(distributed, "MUCH", 40)
    with pytest.warns(UserWarning, match=r"all of T, 48 bytes, comes from the engines"):
        np.asarray(array)
    with pytest.raises(TypeError, match=r"use T\.gather\(\)"):
        list(array)
    assert len(array) == 6
    assert repr(array) == "<DistributedArray 'T': int64 (6,) on engines [0-1]>"


def test_what_does_not_fit_into_memory_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    engines = Engines({n: {"T": np.zeros(1000)} for n in range(2)})
    array = engines.array()
    monkeypatch.setattr(distributed, "available_bytes", lambda: 20_000)
    engines.asked.clear()
    with pytest.raises(MemoryError, match=r"16,000 bytes, .*T\.sample\(\) for instance"):
        array.gather()
    assert engines.asked == []
    assert array[::2].shape == (1000,)


def test_complex_numbers_have_no_extremes() -> None:
    array = Engines({0: {"T": np.zeros(3, complex)}}).array()
    assert array[1] == 0
    with pytest.raises(TypeError, match=r"mec.execute\('size = abs\(T\)'\)"):
        array.stats()


def test_stats_say_where_extremes_are() -> None:
    engines = Engines({n: {"T": np.array([[n, 2.5 * n], [np.nan, 1]])} for n in range(3)})
    stats = engines.array().stats()
    assert repr(stats) == "min 0 at (0, 0) [0], max 5 at (4, 1) [2], mean 1.5, std 1.45297, 3 NaN"


def test_digits_are_not_lost() -> None:
    engines = Engines({n: {"T": 1e9 + np.arange(4.0) + 4 * n} for n in range(8)})
    assert engines.array().stats().std == pytest.approx(np.arange(32).std(), rel=1e-9)


# --- Pictures --------------------------------------------------------------------------------------------------


@pytest.fixture
def axes(need: Callable[[str, object], None]) -> Any:
    need("no matplotlib here", importlib.util.find_spec("matplotlib"))
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 4), dpi=100)
    FigureCanvasAgg(figure)
    return figure.add_axes((0, 0, 1, 1))


def test_a_picture_needs_no_more_elements_than_it_has_pixels(axes: Any) -> None:
    whole = np.arange(2000.0 * 1000).reshape(2000, 1000)
    engines = Engines({n: {"T": whole[n // 2 * 1000 :][:1000, n % 2 * 500 :][:, :500]} for n in range(4)})
    array = engines.array(grid=(2, 2))
    assert array.plot(axes, ranks=True) is axes
    [image] = axes.images
    np.testing.assert_array_equal(image.get_array(), whole[::5, ::3])
    assert list(image.get_extent()) == [-0.5, 1001.5, 1999.5, -0.5]
    assert (axes.get_xlim(), axes.get_ylim()) == ((-0.5, 999.5), (1999.5, -0.5))
    assert [(text.get_text(), text.get_position()) for text in axes.texts][3] == ("3", (749.5, 1499.5))
    assert len(axes.lines) == 4


def test_a_million_points_of_64_ranks_are_those_of_one_array(axes: Any) -> None:
    """Blocks in a grid of 8 times 8, with what belongs to neighbours at their sides."""
    whole = np.random.default_rng(1).random((1000, 1000))
    padded = np.pad(whole, 1)
    blocks = itertools.product(range(0, 1000, 125), repeat=2)
    engines = Engines({n: {"T": padded[row : row + 127, col : col + 127]} for n, (row, col) in enumerate(blocks)})
    array = engines.array(grid=(8, 8), halo=1)
    stats, largest = array.stats(), array.max()
    assert (stats.count, stats.mean) == (1_000_000, pytest.approx(whole.mean()))
    assert largest.position == np.unravel_index(whole.argmax(), whole.shape)
    assert largest.value == whole.max()
    row, col = largest.position
    assert largest.engine == row // 125 * 8 + col // 125
    np.testing.assert_array_equal(array[100:900:7, -3::-125], whole[100:900:7, -3::-125])
    array.plot(axes)
    [image] = axes.images
    np.testing.assert_array_equal(image.get_array(), whole[::3, ::3])


def test_lines_and_slices_are_drawn(axes: Any) -> None:
    Engines({n: {"T": np.arange(300.0)} for n in range(4)}).array().plot(axes, ranks=True)
    line, *borders = axes.lines
    np.testing.assert_array_equal(line.get_xdata(), np.arange(0, 1200, 3))
    np.testing.assert_array_equal(line.get_ydata(), np.tile(np.arange(0, 300.0, 3), 4))
    assert len(borders) == 4
    axes.clear()
    cube = Engines({n: {"T": np.full((4, 3, 2), n)} for n in range(2)}).array()
    cube.plot(axes, at=1, ranks=True)
    assert axes.images[0].get_array().tolist() == [[0, 0]] * 3
    assert axes.get_title() == "T[1]"
    assert [text.get_text() for text in axes.texts] == ["0"]
    axes.clear()
    cube.plot(axes)
    assert axes.get_title() == "T[4]"


def test_what_cannot_be_drawn_is_said(axes: Any) -> None:
    with pytest.raises(TypeError, match="complex"):
        Engines({0: {"T": np.zeros(3, complex)}}).array().plot(axes)
    for shape in ((0,), (1, 1, 1, 1)):
        with pytest.raises(ValueError, match="1 to 3 dimensions, none empty"):
            Engines({0: {"T": np.zeros(shape)}}).array().plot(axes)
    with pytest.raises(ValueError, match="at= chooses a slice of 3 dimensions"):
        Engines({0: {"T": np.zeros(3)}}).array().plot(axes, at=1)
    with pytest.raises(IndexError):
        Engines({0: {"T": np.zeros((2, 2, 2))}}).array().plot(axes, at=2)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"every": 0}, "every must be a number of seconds above 0"),
        ({"every": "1"}, "every must be a number of seconds above 0"),
        ({"every": None}, "every must be a number of seconds above 0, not None"),
        ({"every": float("nan")}, "every must be a number of seconds above 0"),
        ({"file": 5}, "file must be a str"),
        ({"file": ""}, "file must be the name of a file"),
        ({"at": 1}, "at= chooses a slice of 3 dimensions"),
    ],
)
def test_a_picture_that_cannot_be_drawn_again_and_again_is_refused(
    axes: Any, tmp_path: Path, given: dict[str, Any], text: str
) -> None:
    engines = Engines({0: {"T": np.zeros(3)}})
    array = engines.array()
    engines.asked.clear()
    with pytest.raises((TypeError, ValueError), match=text):
        array.plot_live(**{"file": str(tmp_path / "T.png"), **given})
    assert engines.asked == []


def test_a_picture_ends_with_the_engines_and_names_what_goes_wrong(axes: Any, tmp_path: Path) -> None:
    engines = Engines({0: {"T": np.zeros(3)}})
    for error, ended in (
        (EngineLost("engine 0 has ended"), "engine 0 has ended"),
        (InvalidEngineID("engine with id 0 does not exist"), "engine with id 0 does not exist"),
        (RuntimeError("no"), "RuntimeError: no"),
    ):
        live = engines.array().plot_live(0.001, file=str(tmp_path / "T.png"))

        def fail(*_: Any, error: Exception = error, **__: Any) -> Any:
            raise error

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engines, "run", fail)
            assert live.wait(20)
        assert live.ended == ended
