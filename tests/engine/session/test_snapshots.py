"""Snapshots of a namespace: what is saved, what is not and why, and what is there again."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from ipmpi import serialize
from ipmpi.engine.session.namespace import Namespace
from ipmpi.engine.session.snapshots import SnapshotContent, SnapshotPlace
from ipmpi.protocol import operations as o

PLACE = ("", "cluster")


class Store:
    """Keeps snapshots as a file would: as bytes."""

    def __init__(self) -> None:
        self.content: dict[str, SnapshotContent] = {}

    def save(self, place: SnapshotPlace, key: str, engine: int, content: SnapshotContent) -> dict[str, Any]:
        assert (place, engine) == (PLACE, 3)
        self.content[key] = content._replace(segments=[bytearray(each) for each in content.segments])
        return {"folder": "/f", "bytes": 1}

    def saved(self, place: SnapshotPlace, engine: int) -> list[tuple[str, float]]:
        assert (place, engine) == (PLACE, 3)
        return [(key, 1.0) for key in self.content]

    def load(self, place: SnapshotPlace, key: str, engine: int) -> SnapshotContent:
        assert (place, engine) == (PLACE, 3)
        return self.content[key]

    def drop_others(self, place: SnapshotPlace, key: str, engine: int) -> None:
        assert (place, engine) == (PLACE, 3)
        self.content = {key: self.content[key]}


class Engine:
    def __init__(self, store: Store) -> None:
        self.namespace = Namespace(3, mpi="the mpi")
        self.namespace.snapshots = store
        self.namespace.install_as_main()

    def value(self, operation: o.Operation) -> Any:
        answer = self.namespace.run("snapshot", o.encode(operation), [])
        assert answer.ok, o.decode_outcome(answer.outcome)
        return serialize.loads(answer.body) if answer.body else None

    def execute(self, source: str) -> None:
        answer = self.namespace.run("execute", o.encode(o.Execute(source)), [])
        assert answer.ok, o.decode_outcome(answer.outcome)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    monkeypatch.setattr(sys, "argv", sys.argv)
    return Store()


SOURCE = """
import math
import numpy as np

class Part:
    def __init__(self, data):
        self.data = data

def area(r):
    return scale * math.pi * r

scale = 2
data = np.arange(10_000.0)
part = Part(data)
everything = [part, data]
"""


def test_a_new_engine_goes_on_where_the_old_one_was(store: Store) -> None:
    old = Engine(store)
    old.execute(SOURCE)
    told = old.value(o.TakeSnapshot(*PLACE, "k"))
    names = ["math", "np", "Part", "area", "scale", "data", "part", "everything"]
    assert (sorted(told["names"]), told["left_out"]) == (sorted(names), {})
    old.execute("data[0] = 99")  # after the snapshot
    new = Engine(store)
    assert sorted(new.value(o.RestoreSnapshot(*PLACE, "k"))["names"]) == sorted(names)
    found = new.namespace.names
    assert found["everything"][0] is found["part"]
    assert found["everything"][1] is found["part"].data is found["data"], "what was one object is one"
    assert type(found["part"]) is found["Part"]
    assert np.array_equal(found["data"], np.arange(10_000.0))
    found["data"][0] = 7.0
    found["scale"] = 10
    assert found["area"](1) == pytest.approx(31.4159265), "functions see the new namespace"
    assert (found["id"], found["mpi"]) == (3, "the mpi"), "what is ipmpi's own comes from the new engine"


def test_what_cannot_be_saved_is_named_with_the_reason_and_the_rest_is_saved(store: Store) -> None:
    engine = Engine(store)
    engine.execute("numbers = (i for i in range(3)); good = 1; nested = {'a': [numbers]}")
    told = engine.value(o.TakeSnapshot(*PLACE, "k"))
    assert told["names"] == ["good"]
    assert told["left_out"] == {
        "numbers": "a generator object cannot be pickled",
        "nested": "item 0 of 'a' of 'nested': a generator object cannot be pickled",
    }
    assert engine.value(o.RestoreSnapshot(*PLACE, "k"))["left_out"] == told["left_out"]


def test_some_names_only(store: Store) -> None:
    engine = Engine(store)
    engine.execute("a, b = 1, 2")
    told = engine.value(o.TakeSnapshot(*PLACE, "k", ["b", "c"]))
    assert (told["names"], told["left_out"]) == (["b"], {"c": "there is no such name"})
    engine.execute("a, b = 5, 6")
    engine.value(o.RestoreSnapshot(*PLACE, "k"))
    assert (engine.namespace.names["a"], engine.namespace.names["b"]) == (5, 2), "other names stay"


def test_one_is_taken_before_the_end_of_the_job(store: Store) -> None:
    engine = Engine(store)
    engine.value(o.BeforeWalltime(b"before", 60.0, "snapshot", o.TakeSnapshot(*PLACE, "k")))
    engine.execute("step = 812")
    assert not store.content
    engine.value(o.EndComes(b"before"))
    assert store.content["k"].names == ["step"], "as it is then"
    engine.value(o.EndComes(b"before"))


def test_older_ones_are_found_and_dropped(store: Store) -> None:
    engine = Engine(store)
    for key in ("k", "l"):
        engine.value(o.TakeSnapshot(*PLACE, key))
    assert engine.value(o.FindSnapshots(*PLACE)) == [("k", 1.0), ("l", 1.0)]
    engine.value(o.DropSnapshots(*PLACE, "l"))
    assert engine.value(o.FindSnapshots(*PLACE)) == [("l", 1.0)]


def test_without_a_place_it_is_refused() -> None:
    answer = Namespace(0).run("snapshot", o.encode(o.TakeSnapshot(*PLACE, "k")), [])
    failure = o.decode_outcome(answer.outcome)
    assert isinstance(failure, o.Failed)
    assert failure.text == "there is no place for snapshots here"
