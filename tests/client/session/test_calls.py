from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from ipmpi.client import MultiEngineClient, TaskClient
from ipmpi.errors import SerializationError


class Study:
    def __init__(self, client: object) -> None:
        self.client = client

    def run(self, x: int) -> int:
        return x


class TestWhatBelongsToThisProcess:
    """Objects of ipmpi that get into what is sent, by an attribute, a variable or a list, are named."""

    @pytest.fixture
    def things(self, mec: MultiEngineClient, tc: TaskClient) -> dict[str, Any]:
        return {
            "MultiEngineClient": mec,
            "EngineView": mec[0],
            "TaskClient": tc,
            "TaskFuture": tc.submit(abs, -1),
            "MapResults": tc.imap(abs, [-1]),
            "PendingResult": mec.execute("1", block=False),
        }

    NAMES = ("MultiEngineClient", "EngineView", "TaskClient", "TaskFuture", "MapResults", "PendingResult")

    @pytest.mark.parametrize("name", NAMES)
    def test_it_is_named_wherever_it_is(self, things: dict[str, Any], tc: TaskClient, name: str) -> None:
        thing = things[name]
        sentence = f"an? {name} cannot be sent or pickled: [a-z]"
        for call, where in (
            (
                lambda: tc.submit(len, [1, {"a": thing}]),
                "cannot send 'a' of item 1 of item 0 of the arguments of len",
            ),
            (lambda: tc.submit(lambda: thing), "cannot send variable 'thing' of the function"),
            (
                lambda: tc.map(Study(thing).run, range(3)),
                "cannot send attribute 'client' of the object of the func",
            ),
            (lambda: things["MultiEngineClient"].push({"x": thing}), "cannot send 'x' of the namespace"),
            (lambda: pickle.dumps(thing), ""),
            (lambda: copy.deepcopy(thing), ""),
        ):
            with pytest.raises(SerializationError, match=f"{where}.*{sentence}" if where else f"^{sentence}"):
                call()

    @pytest.mark.parametrize("name", ["executor", "pool", "mapper", "options"])
    def test_what_holds_a_client_leads_to_it(self, tc: TaskClient, name: str) -> None:
        with pytest.raises(SerializationError, match=r"a TaskClient cannot be sent or pickled"):
            tc.submit(len, [getattr(tc, name)()])

    def test_a_copy_of_a_client_works_on_the_same_link(self, mec: MultiEngineClient) -> None:
        other = copy.copy(mec)
        other.block = False
        assert type(other) is MultiEngineClient
        assert other.get_ids() == mec.get_ids()
        assert mec.block
