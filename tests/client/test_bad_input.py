"""Every argument of every public call of the clients, at its extremes: see ``bad_values.py`` for the table.

What is wrong is refused here, by a clear error, before anything is sent, and the next call of the same client
works.
The calls are found by introspection, so one without a row fails.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from bad_values import CALLBACKS, KINDS, NOT_FOR_USERS, OPTIONS, PARAMETERS, SPECIAL
from fake_farm import FakeFarm

from ipmpi.client import MapTask, Monitor, MultiEngineClient, ProgramMonitor, Reference, StringTask, TaskClient
from ipmpi.client.engines.mapper import MultiEngineMapper
from ipmpi.client.pools.executor import Executor
from ipmpi.client.pools.pool import AsyncResult, IMapIterator, Pool
from ipmpi.client.session.calls import Calls
from ipmpi.client.session.results import PendingResult
from ipmpi.client.tasks.futures import TaskFuture
from ipmpi.client.tasks.mapresults import MapResults
from ipmpi.client.tasks.tasktypes import BaseTask
from ipmpi.client.tasks.taskview import TaskView
from ipmpi.errors import ClientError, CompositeError, KernelError, NoEnginesRegistered
from ipmpi.protocol import messages as m

if TYPE_CHECKING:
    from conftest import FakeSession

CLASSES: list[type] = [
    MultiEngineClient, TaskClient, StringTask, MapTask, Executor, Pool, AsyncResult, IMapIterator, PendingResult,
    MapResults, TaskFuture, TaskView, MultiEngineMapper, Reference, Monitor, ProgramMonitor,
]  # fmt: skip
CLEAR = (TypeError, ValueError, LookupError, AssertionError, OSError, SyntaxError, KernelError)
"""What may be raised; AssertionError for what is no task, as in the original."""

ENDS = {
    "MultiEngineClient.close",
    "TaskClient.close",
    "Monitor.close",
    "ProgramMonitor.close",
    "Pool.close",
    "Pool.join",
    "Pool.terminate",
}
"""After these no call works."""


def surface() -> Iterator[tuple[str, Callable[..., Any]]]:
    """The public methods and constructors, by ``Class.method``, as they are written in the classes of ipmpi."""
    for kind in CLASSES:
        for name in sorted(dir(kind)):
            static = inspect.getattr_static(kind, name)
            function = getattr(static, "__func__", static)
            public = not name.startswith("_") or name in ("__init__", "__getitem__", "__setitem__")
            if public and inspect.isfunction(function) and function.__module__.startswith("ipmpi."):
                yield f"{kind.__name__}.{name}", function


SURFACE = dict(surface())
TASK_OPTIONS = inspect.getfullargspec(BaseTask.__init__).kwonlyargs


def parameters(call: str) -> list[str]:
    """Names of the parameters of a call, and of its options."""
    if call in NOT_FOR_USERS | CALLBACKS:
        return []
    names = []
    for name, each in list(inspect.signature(SURFACE[call]).parameters.items())[1:]:
        if each.kind is inspect.Parameter.VAR_KEYWORD:
            task = call.removesuffix(".__init__") in ("StringTask", "MapTask")
            names += (TASK_OPTIONS if task else list(OPTIONS)) if name == "options" else []
        elif each.kind is not inspect.Parameter.VAR_POSITIONAL or name != "args":
            names.append(name)
    return names


def kind_of(call: str, name: str) -> str:
    """The row for a parameter."""
    short = call.removesuffix(".__init__")
    kind = SPECIAL.get(f"{short}.{name}") or SPECIAL.get(f"{call}.{name}") or PARAMETERS.get(name)
    assert kind is not None, (
        f"{call} has a parameter {name!r} without a row in tests/client/bad_values.py: add its name to PARAMETERS "
        f"(or {short}.{name} to SPECIAL) with a kind of KINDS, or a new kind with the values that are to be "
        "refused; a method by which the parts of ipmpi call each other goes into NOT_FOR_USERS"
    )
    return kind


class World:
    """A client for engines, one for tasks, and an object of each class."""

    def __init__(self, session: FakeSession, farm: FakeFarm) -> None:
        self.session, self.farm = session, farm
        session.answers = {
            m.QueueStatus: [], m.Kill: [], m.Restart: [0], m.Interrupt: [[], []], m.AskAgents: [[], []],
            m.GiveFurl: ["7ab3", "ipmpi://x"], m.ListFurls: [], m.EndFurls: [], m.ReplaceSecrets: [],
            m.AdmitSets: [], m.OnLoss: [], m.Reserve: [0], m.Release: None,
            m.ClusterInfo: {"engines": [{"id": n, "rank": n, "set": "s", "time_left": None} for n in range(4)]},
        }  # fmt: skip
        self.mec = MultiEngineClient(session=session)  # type: ignore[arg-type]
        self.tc = TaskClient(session=farm)  # type: ignore[arg-type]
        self.mec.push({"a": 1, "b": 2, "T": np.zeros(3)})
        self.mec.execute("def f(): pass")
        self.tc.run(StringTask("1"))

    def sent(self) -> int:
        """How many messages went out that do something."""
        asked = [each for each in self.session.requests if not isinstance(each, m.GetIds)]
        told = [each for each in self.farm.sent if not isinstance(each, m.GetIds | m.DefineFunction)]
        return len(self.session.sent) + len(asked) + len(told)

    def bound(self, call: str) -> Callable[..., Any]:
        """The call, of an object that is ready for it."""
        kind, method = call.split(".")
        if method == "__init__":
            return self.constructor(kind)
        made: dict[str, Callable[[], Any]] = {
            "MultiEngineClient": lambda: self.mec,
            "TaskClient": lambda: self.tc,
            "Executor": self.tc.executor,
            "Pool": self.tc.pool,
            "AsyncResult": lambda: self.tc.pool().apply_async(abs, (1,)),
            "IMapIterator": lambda: self.tc.pool().imap(abs, [1, 2]),
            "PendingResult": lambda: self.mec.execute("1", block=False),
            "MapResults": lambda: self.tc.imap(abs, [1, 2]),
            "TaskFuture": lambda: self.tc.submit(abs, 1),
            "MultiEngineMapper": self.mec.mapper,
            "TaskView": lambda: self.tc.options(retries=1),
            "Monitor": lambda: Monitor(session=self.session),
            "ProgramMonitor": self.program_monitor,
        }
        return getattr(made[kind](), method)  # type: ignore[no-any-return]

    def program_monitor(self) -> ProgramMonitor:
        """One that has found its program."""
        made = ProgramMonitor.__new__(ProgramMonitor)
        made._session, made._calls = self.session, Calls(self.session)  # type: ignore[arg-type, assignment]
        made.program, made._ids = "flow", [0, 1]
        return made

    def constructor(self, kind: str) -> Callable[..., Any]:
        """What makes an object of a class, and uses it."""
        made: dict[str, Callable[..., Any]] = {
            "MultiEngineMapper": lambda **given: MultiEngineMapper(**{**given, "multiengine": self.mec}).map(
                abs, [1]
            ),
            "Executor": functools.partial(Executor, client=self.tc),
            "Pool": functools.partial(Pool, client=self.tc),
            "StringTask": lambda **given: self.tc.run(StringTask(**given)),
            "MapTask": lambda **given: self.tc.run(MapTask(**given)),
            "Reference": lambda **given: self.mec.apply(abs, Reference(**given)),
            "MultiEngineClient": MultiEngineClient,
            "Monitor": Monitor,
            "ProgramMonitor": ProgramMonitor,
            "TaskClient": TaskClient,
        }
        return made[kind]

    def works(self) -> None:
        """The next calls of both clients."""
        self.mec.push({"kept": 1})
        assert self.mec.pull("kept") == [1] * 4
        assert self.tc.submit(abs, -3).result() == 3


@pytest.fixture
def world(session: FakeSession, farm: FakeFarm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))  # where no furl file is
    return World(session, farm)


def attempt(call: Callable[..., Any], function: Callable[..., Any], given: dict[str, Any]) -> Any:
    """Make a call with arguments by name, also those that have none."""
    positional, named = [], {}
    for name, each in list(inspect.signature(function).parameters.items())[1:]:
        if each.kind is inspect.Parameter.POSITIONAL_ONLY and name in given:
            positional.append(given.pop(name))
        elif each.kind is inspect.Parameter.VAR_POSITIONAL and name in ("sequences", "iterables"):
            first = inspect.signature(call).parameters
            positional += [given.pop(key) for key in list(first) if key in given and key in ("func", "fn", "f")]
            positional.append(given.pop(name, [1]))
    named.update(given)
    return call(*positional, **named)


def usual(call: str, but: str) -> dict[str, Any]:
    """Right arguments for all parameters that need one, or whose default takes long, but one."""
    found = {}
    for name, each in list(inspect.signature(SURFACE[call]).parameters.items())[1:]:
        if name == but or name not in parameters(call):
            continue
        kind = kind_of(call, name)
        if each.default is inspect.Parameter.empty or kind == "profile seconds":
            value = KINDS[kind].usual
            found[name] = [1, 2] if name in ("sequences", "iterables") else value
    return found


ROWS = [(call, name) for call in SURFACE for name in parameters(call)]


def test_all_of_the_surface_has_rows() -> None:
    for call, name in ROWS:
        kind_of(call, name)
    known = {f"{call.removesuffix('.__init__')}.{name}" for call, name in ROWS} | {f"{c}.{n}" for c, n in ROWS}
    assert set(SPECIAL) <= known, "rows of parameters that are no more"
    assert set(SURFACE) >= NOT_FOR_USERS | CALLBACKS | ENDS, "rows of methods that are no more"


@pytest.mark.parametrize("call", dict.fromkeys(call for call, _ in ROWS))
def test_what_is_wrong_is_refused_before_anything_is_sent(world: World, call: str) -> None:
    for name in parameters(call):
        for value in KINDS[kind_of(call, name)].wrong:
            refused(world, call, name, value)
        world.works()


def refused(world: World, call: str, name: str, value: Any) -> None:
    """Make a call with a wrong value, and see that it is refused as users deserve it."""
    shown = repr(value)[:60].encode("ascii", "backslashreplace").decode()
    function = world.bound(call)
    before, begin = world.sent(), time.perf_counter()
    try:
        attempt(function, SURFACE[call], {**usual(call, name), name: value})
    except CLEAR as error:
        text, kind = str(error), type(error).__name__
    else:
        pytest.fail(f"{call}({name}={shown}) was taken")
    assert text, f"{name}={shown} raised {kind} without a word"
    assert len(text) < 2000, f"{name}={shown}: an error of {len(text)} characters"
    text.encode()  # can be printed
    assert world.sent() == before, f"{name}={shown}: something was sent"
    assert time.perf_counter() - begin < 5, f"{name}={shown}"


@pytest.mark.parametrize("call", dict.fromkeys(call for call, _ in ROWS if call not in ENDS))
def test_extremes_that_are_right_are_taken(world: World, call: str) -> None:
    for name in parameters(call):
        for value in KINDS[kind_of(call, name)].taken:
            function = world.bound(call)
            # What engines make of it is theirs.
            with contextlib.suppress(CompositeError, NoEnginesRegistered, TimeoutError):
                try:
                    attempt(function, SURFACE[call], {**usual(call, name), name: value})
                except ClientError as error:
                    if "engines do this by MPI, and these share no communicator" not in str(error):
                        raise
        world.works()


@pytest.mark.parametrize("kind", [MultiEngineClient, TaskClient])
@pytest.mark.parametrize("name", [3, b"two", Path("two")])
def test_the_name_of_a_cluster_is_a_str(kind: Callable[..., Any], name: Any) -> None:
    with pytest.raises(TypeError, match=r"name=, the name of a cluster, must be a str, not "):
        kind(name=name)
