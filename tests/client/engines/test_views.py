"""A client as a collection of engines: what Python's own protocols get of it, and that they ask nobody."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy
import pytest

from ipmpi.client import EngineView, MultiEngineClient, TaskClient
from ipmpi.errors import SerializationError
from tests.in_process import InProcess, in_process, wait_until

if TYPE_CHECKING:
    from conftest import FakeSession
    from fake_farm import FakeFarm


class TestTheCollection:
    def test_engines_and_views_of_them_are_in_it(self, mec: MultiEngineClient, session: FakeSession) -> None:
        assert 0 in mec
        assert numpy.int64(3) in mec
        assert 4 not in mec
        assert -1 not in mec
        assert None not in mec
        assert 1.0 not in mec
        assert all(view in mec for view in mec)
        assert mec[1:3] in mec
        assert mec not in mec[1:3]
        assert 1 in mec[1:3]
        assert 0 not in mec[1:3]
        session.engines.pop(3)
        assert mec[3] not in mec
        assert MultiEngineClient(session=session)[0] not in mec  # of another client
        assert not session.sent
        assert not session.requests

    def test_a_name_is_in_it_where_all_engines_have_it(self, mec: MultiEngineClient) -> None:
        assert "x" not in mec
        mec.push({"x": 1}, targets=[0, 1])
        assert "x" not in mec
        assert "x" in mec[0:2]
        mec.targets = [0, 1]
        assert "x" in mec
        mec.block = False
        assert "x" in mec
        assert "y" not in mec
        assert "id" in mec

    def test_it_is_no_mapping(self, mec: MultiEngineClient) -> None:
        mec["x"] = 1
        for wrong in (lambda: dict(mec), lambda: {**mec}, lambda: mec[["x", "y"]], lambda: dict(mec[0])):
            with pytest.raises(TypeError, match=r"pull\(names\) .*is not a mapping.* dict\(mec\) is not possible"):
                wrong()

    def test_len_and_iteration_agree(self, mec: MultiEngineClient, session: FakeSession) -> None:
        assert [view.get_ids() for view in mec] == [[0], [1], [2], [3]]
        assert len(list(mec)) == len(mec) == 4
        session.engines.pop(0)
        assert [view.get_ids() for view in mec] == [[1], [2], [3]]
        assert mec[-1].get_ids() == [3]
        assert mec[:2].get_ids() == [1, 2]


LOOKS: dict[str, Callable[[Any], object]] = {
    "repr": repr,
    "str": str,
    "bool": bool,
    "dir": dir,
    "hash": hash,
    "copy": copy.copy,
    "equality": lambda thing: thing == 3,
    "len": lambda thing: len(thing) if hasattr(thing, "__len__") else None,
    "iteration": lambda thing: list(thing) if isinstance(thing, EngineView) else None,
    "every attribute": lambda thing: [hasattr(thing, name) for name in dir(thing) if name not in WAIT],
    "attributes that others look for": lambda thing: [
        hasattr(thing, name)
        for name in ("_repr_html_", "_repr_pretty_", "_ipython_display_", "__array__", "__wrapped__", "shape")
    ],
}
UNCOPIED = (SerializationError, NotImplementedError)
WAIT = {"r"}
"""The attribute of the original that waits for a result."""


class TestNobodyIsAsked:
    @pytest.mark.parametrize("look", LOOKS)
    def test_by_looking_at_clients_and_what_they_make(
        self, mec: MultiEngineClient, session: FakeSession, tc: TaskClient, farm: FakeFarm, look: str
    ) -> None:
        session.held = farm.held = True
        things = [
            mec, mec[0], mec[1:3], mec.with_options(block=False), mec.execute("1", block=False), mec.mapper(),
            mec.reserve(), tc, tc.options(retries=1), tc.submit(abs, -1), tc.imap(abs, [1]), tc.mapper(),
            tc.pool(), tc.executor(),
        ]  # fmt: skip
        before = len(session.sent), len(session.requests), len(farm.sent)
        for thing in things:
            # Not all can be copied.
            with contextlib.suppress(*UNCOPIED if look == "copy" else ()):
                LOOKS[look](thing)
        assert (len(session.sent), len(session.requests), len(farm.sent)) == before

    def test_ipythons_printer_and_completer_see_no_collection(self, mec: MultiEngineClient) -> None:
        pretty = pytest.importorskip("IPython.lib.pretty")
        session: Any = mec._calls.session
        assert pretty.pretty(mec) == repr(mec)
        assert pretty.pretty([mec[0]]) == "[<EngineView of engines [0], block=True>]"
        assert not session.sent
        assert not session.requests


@pytest.fixture(scope="module")
def cluster() -> Iterator[InProcess]:
    with in_process(2) as running:
        yield running


class TestWithAController:
    def test_a_client_knows_the_engines_from_the_start_and_hears_of_others(self, cluster: InProcess) -> None:
        with cluster.mec() as mec, cluster.tc() as tc:
            assert len(mec) == 2
            assert tc.engines == [0, 1]
            assert tc.pool().size == 2
            mec.kill(targets=[1])
            assert mec.get_ids() == [0]
            assert len(mec) == 1  # whoever has asked knows no more than whoever has not
            assert 1 not in mec
            wait_until(lambda: tc.engines == [0], "the other client's news")
        with cluster.mec() as mec:
            assert [view.get_ids() for view in mec] == [[0]]
