"""Steering a program that has a loop of its own: a handle of all its ranks."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping
from types import TracebackType
from typing import Any, Final

from ... import parameters, serialize
from ...errors import ClientError, CompositeError, EngineLost, InvalidEngineID, KernelError
from ...ids import Ids
from ...parameters import Declared
from ...protocol import inquiries, messages, operations
from ...protocol.inquiries import RankStep
from ...protocol.steering import MOST_STEPS
from ...ranges import engines_named
from ...record import Record
from ...transport.ssh.ssh import SshSession
from ..display.liveplot import LivePlot
from ..session import given
from ..session.calls import Calls
from ..session.connecting import close_when_unreferenced, connect
from ..session.notices import say
from ..session.ownframes import all_raise_at_call
from ..session.session import Session
from . import programs
from .views import EngineView
from .watching import Watch, checked, open_watch

TELL_AFTER: Final = 2.0
"""Seconds after which a call says for which ranks it waits."""
_SOONEST, _LATEST = 0.005, 0.25
"""Seconds between two looks whether a program has got to a step."""


@all_raise_at_call
class Simulation:
    """A handle of a program that is steered, made by :meth:`MultiEngineClient.simulation` or by itself.

    Its parameters are its attributes: ``sim.dt`` asks for the value, ``sim.dt = 5e-4`` changes it. Each call is
    performed by all ranks of the program at one step, between two steps, and the program goes on after it, unless
    it is paused. Every change is recorded with its step: see :meth:`record`.

    Args:
        furl_or_file, name, session, ssh, proxy: as of :class:`MultiEngineClient`.
        program: the name of the program, if there are several.
        timeout: seconds to wait for it, if it is not there yet.

    Attributes:
        program: the name of the program.
        engines: a view of its ranks, with everything that engines have: ``execute``, ``pull``, ``where``.

    Thread-safety: all methods may be called from any thread.

    Raises:
        ClientError: no such program is attached to the controller, or several are.
    """

    program: str
    engines: EngineView

    def __init__(
        self,
        furl_or_file: str | os.PathLike[str] = "",
        *,
        name: str = "",
        session: Session | None = None,
        ssh: str | SshSession | None = None,
        proxy: str | None = None,
        program: str = "",
        timeout: float | None = None,
    ) -> None:
        given.text(program, "program=, the name of a program,", 255)
        limit = given.seconds(timeout, "timeout")
        opened = connect(furl_or_file, "mec", name=name, ssh=ssh, proxy=proxy) if session is None else session
        client = EngineView(Calls(opened))
        own = self.__dict__
        own["_session"] = opened
        try:
            own["program"], ids = programs.find(client, program, time.monotonic() + (limit or 0.0))
        except BaseException:
            if session is None:
                opened.close()
            raise
        own["engines"] = client[ids]
        if session is None:
            close_when_unreferenced(client._calls, opened)
        own["_declared"] = {}
        own["_unequal"] = {}
        own["_ranks"] = 0
        self._ask("state")

    # --- its loop ----------------------------------------------------------------------------------------------

    def pause(self) -> int:
        """Hold all ranks at one step, until :meth:`resume`; return the number of the step that comes next."""
        return int(self._ask("pause")["step"])

    def resume(self) -> int:
        """Let the program go on; return the number of the step that comes next."""
        return int(self._ask("resume")["step"])

    def step(self, n: int = 1, timeout: float | None = None) -> int:
        """Let the program make ``n`` steps, and pause it then; return the number of the step that comes next.

        Raises:
            TimeoutError: it has not made them in ``timeout`` seconds; it goes on with them.
            EngineLost: it has ended before.
        """
        count = given.whole_number(n, "n, the number of steps,", 1, MOST_STEPS)
        limit = given.seconds(timeout, "timeout")
        told = self._ask("step", count)
        wanted, deadline = told["tick"] + count, None if limit is None else time.monotonic() + limit
        pause = _SOONEST
        while True:
            places = self._places()
            if not places:
                raise EngineLost(f"the program {self.program} has ended before step {told['step'] + count}")
            if all(place.is_paused and place.tick == wanted for place in places.values()):
                return next(iter(places.values())).step
            if all(place.is_paused or place.tick > wanted for place in places.values()):
                raise ClientError(f"another client has paused or resumed the program {self.program} meanwhile")
            if deadline is not None and time.monotonic() > deadline:
                last = min(place.step for place in places.values())
                raise TimeoutError(f"after {timeout:g} s, {self.program} is at step {last}, and goes on")
            time.sleep(pause)
            pause = min(2 * pause, _LATEST)

    def stop(self) -> int:
        """End its loop before the next step, as if that had been the last one; return the number of that step."""
        self._need_all("the end of its loop")
        return int(self._ask("stop")["step"])

    @property
    def step_number(self) -> int:
        """The number of the step that comes next, of the slowest rank. The program does not notice this."""
        return min((place.step for place in self._alive().values()), default=-1)

    @property
    def is_paused(self) -> bool:
        """Whether all its ranks hold because somebody has paused it."""
        return all(place.is_paused for place in self._alive().values())

    @property
    def has_ended(self) -> bool:
        """Whether it is not steered any more: its loop has ended, or its processes."""
        return not self._places()

    def __len__(self) -> int:
        """Return how many ranks are left."""
        return len(self._places())

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        places = self._places()
        if not places:
            return f"<simulation {self.program}: ended>"
        steps = sorted({place.step for place in places.values()})
        where = f"step {steps[0]:,}" if len(steps) == 1 else f"steps {steps[0]:,} to {steps[-1]:,}"
        state = "paused at" if all(place.is_paused for place in places.values()) else "running,"
        names = ", ".join(f"{name}: {kind}" for name, kind in self._declared.items())
        count = f"{len(places)} rank{'s' * (len(places) != 1)}"
        return f"<simulation {self.program}: {count}, {state} {where}{'; ' * bool(names)}{names}>"

    # --- its parameters ----------------------------------------------------------------------------------------

    @property
    def params(self) -> SteeredParameters:
        """Its parameters, as a mapping; ``sim.params.update(dt=1e-4, nu=0.2)`` changes several at one step."""
        return SteeredParameters(self)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or "_declared" not in self.__dict__:
            raise AttributeError(name)
        if name in self._declared:
            return self.params[name]
        raise AttributeError(parameters.unknown(name, self._declared))

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._declared:
            self.change({name: value})
        elif hasattr(type(self), name) or name in self.__dict__:
            names = ", ".join(self._declared) or "none"
            raise AttributeError(f"{name!r} of a simulation cannot be assigned: only its parameters ({names}) can")
        else:
            raise AttributeError(parameters.unknown(name, self._declared))

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._declared]

    def change(self, values: dict[str, Any]) -> int:
        """Change parameters, all of them at one step on all ranks; return the number of the first step with them.

        Raises:
            AttributeError: the program has no parameter of such a name. Nothing is changed then.
            TypeError, ValueError: a value is of another type or shape. Nothing is changed then.
            ClientError: the ranks have declared it with different types or shapes. Nothing is changed then.
        """
        for name, value in values.items():
            if name not in self._declared:
                raise AttributeError(parameters.unknown(name, self._declared))
            if name in self._unequal:
                raise ClientError(self._unequal[name])
            parameters.checked(name, self._declared[name], value)
        self._need_all("a change")
        body = serialize.dumps(dict(values), what="the new values")
        return int(self._ask("set", body=body, shown=(", ".join(values),))["step"])

    # --- what it does between steps ----------------------------------------------------------------------------

    def call(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> list[Any]:
        """Call ``f(*args, **kwargs)`` on all ranks at one step; return what they return.

        ``f`` sees the names that the program publishes as its globals, and may use MPI: ``comm`` is the
        communicator of all ranks. The call is a part of the record.
        """
        if not callable(f):
            raise TypeError(f"call takes something to call, not {given.shown(f)}")
        return self._values("call", body=serialize.dumps((f, args, kwargs), what="the call"), shown=(f,))

    def checkpoint(self) -> list[Any]:
        """Have all ranks write a checkpoint at one step, as the program has registered; return what they return.

        Raises:
            ClientError: the program has registered nothing by ``s.on_checkpoint(function)``.
        """
        self._need_all("a checkpoint")
        return self._values("checkpoint")

    def record(self) -> Record:
        """Return every change so far, and its step.

        ``sim.record().save('run.record')`` writes it to a file, from which ``attach(replay='run.record')`` repeats
        the run.
        """
        return Record.of_all([Record.loads(each) for each in self._values("record")])

    # --- watching ----------------------------------------------------------------------------------------------

    def watch(self, name: str, every: int = 1, reduce: str | None = None) -> Watch:
        """Watch a published value while the program runs.

        Args:
            name: its name.
            every: in how many steps it is told once.
            reduce: ``'max'``, ``'min'``, ``'sum'`` or ``'mean'`` of all elements on all ranks, found by MPI; None
                for the value of rank 0, which is a number then.

        Returns:
            A :class:`Watch`. Values may be missing if the network or this program is slow: the simulation never
            waits.

        Raises:
            ClientError: the program has published no such value on all ranks, or it is no number.
        """
        asked = checked(name, every, reduce)
        self._need_all("a watch")
        calls, ids = self.engines._calls, self.engines.get_ids()
        watch = open_watch(calls.session, name, ids if reduce else ids[:1])
        subscribe = functools.partial(messages.Subscribe, watch=watch.number)
        calls.request(self.engines, subscribe, lambda reply: reply, True, "watch")
        try:
            self._values("watch", watch.number, shown=(name,), watch=asked)
        except BaseException:
            watch.stop()
            raise
        return watch

    def plot(
        self, name: str, every: float = 1.0, *, ranks: bool = False, at: int | None = None, file: str | None = None
    ) -> LivePlot:
        """Draw an array that the program publishes again and again, while it runs.

        It is ``sim.engines.array(name).plot_live(...)``, which describes the arguments. Titles say before which
        step that was.

        Raises:
            ValueError, TypeError, CompositeError: the ranks have no such array, or an argument is not possible.
            ClientError: there is no matplotlib here.
        """
        return self.engines.array(name).plot_live(every, ranks=ranks, at=at, file=file)

    # --- asking ------------------------------------------------------------------------------------------------

    def _ask(
        self, action: str, number: int = 0, body: list[serialize.Buffer] | None = None, shown: tuple[Any, ...] = ()
    ) -> dict[str, Any]:
        states = self._values(action, number, body, shown)
        self._learn(states)
        return dict(states[0])

    def _learn(self, states: list[dict[str, Any]]) -> None:
        ids = self.engines.get_ids()
        declared = [{name: Declared(*each) for name, each in state["declared"].items()} for state in states]
        own = self.__dict__
        own["_declared"], own["_ranks"] = declared[0], states[0]["ranks"]
        own["_unequal"] = {
            name: text
            for name in declared[0]
            if (text := parameters.unequal(name, dict(zip(ids, declared, strict=True))))
        }

    def _values(
        self,
        action: str,
        number: int = 0,
        body: list[serialize.Buffer] | None = None,
        shown: tuple[Any, ...] = (),
        watch: operations.Watch | None = None,
    ) -> list[Any]:
        teller = threading.Timer(TELL_AFTER, self._tell_where)
        teller.daemon = True
        teller.start()
        try:
            found: list[Any] = self.engines._command(
                operations.Steer(action, number, watch), action, shown, None, True, body=body
            )
        except CompositeError as error:
            plain = _plain(error)
            if plain is None:
                raise
            raise plain from None
        except InvalidEngineID:
            raise EngineLost(self._lost()) from None
        finally:
            teller.cancel()
        return found

    def _need_all(self, what: str) -> None:
        """Raise an error if some ranks cannot be asked: these would differ from them, or wait for them."""
        ids = self.engines.get_ids()
        if len(ids) < self._ranks:
            raise ClientError(
                f"{what} needs all ranks, and only {engines_named(ids)} of the {self._ranks} ranks of the program "
                f"{self.program} can still be steered. It goes on; end it where it was started"
            )

    def _lost(self) -> str:
        left = self._places()
        if not left:
            return f"the program {self.program} has ended, or is not steered any more"
        gone = engines_named([engine for engine in self.engines.get_ids() if engine not in left])
        return (
            f"{gone} of the program {self.program} left it, and {engines_named(list(left))} did not: call "
            "client.Simulation() or mec.simulation() again to steer what is left"
        )

    def _places(self) -> dict[int, RankStep]:
        """Return where its ranks are, by engine; the program does not notice the question."""
        calls = self.engines._calls
        known = set(calls.known())
        ids = [engine for engine in self.engines.get_ids() if engine in known]
        if not ids:
            return {}
        question = inquiries.encode(inquiries.ReadSteps())

        def finish(reply: Any) -> dict[int, RankStep]:
            found: dict[int, RankStep] = {}
            for packed, encoded in reply[0]:
                answer = inquiries.decode_answer(encoded)
                if isinstance(answer, RankStep):
                    found.update(dict.fromkeys(Ids.unpacked(packed), answer))
            return found

        try:
            places: dict[int, RankStep] = calls.request(
                self.engines, lambda i: messages.AskAgents(i, ids, question), finish, True, "step_number"
            )
        except InvalidEngineID:  # some have ended meanwhile
            return {}
        return places

    def _alive(self) -> dict[int, RankStep]:
        places = self._places()
        if not places:
            raise EngineLost(f"the program {self.program} has ended, or is not steered any more")
        return places

    def _tell_where(self) -> None:
        try:
            places = self._places()
        except KernelError:
            return
        text = waits_for({engine: place for engine, place in places.items() if not place.holds}, places)
        if text:
            say(f"{self.program}: {text}")

    def close(self) -> None:
        """Close the connection; the program goes on."""
        self._session.close()

    def __enter__(self) -> Simulation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class SteeredParameters(MutableMapping[str, Any]):
    """The parameters of a program; every look at a value asks the program, and every assignment changes it."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    def _now(self) -> dict[str, Any]:
        return dict(self._simulation._ask("state")["params"])

    def __getitem__(self, name: str) -> Any:
        return self._now()[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._simulation.change({name: value})

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"the program needs its parameter {name!r}")

    def update(self, *args: Any, **values: Any) -> None:
        """Change several parameters at one step."""
        self._simulation.change(dict(*args, **values))

    def __iter__(self) -> Iterator[str]:
        return iter(self._simulation._declared)

    def __len__(self) -> int:
        return len(self._simulation._declared)

    def __repr__(self) -> str:
        return repr(self._now())


def waits_for(late: dict[int, RankStep], places: dict[int, RankStep]) -> str:
    """Return for which ranks others hold; "" if none do, or all."""
    held = {place.step for place in places.values() if place.holds}
    if not late or not held:
        return ""
    steps = sorted({place.step for place in late.values()})
    inside = f"step {steps[0]}" if len(steps) == 1 else f"steps {steps[0]} to {steps[-1]}"
    return f"all ranks stop at step {max(held)} or later; {_ids(late)} still in {inside}"


def _ids(engines: dict[int, RankStep]) -> str:
    return engines_named(list(engines)) + (" are" if len(engines) > 1 else " is")


def _plain(error: CompositeError) -> Exception | None:
    """Return the one sentence of ours that all ranks have said; None if it is something else."""
    errors = [value for _, value, _ in error.elist if isinstance(value, Exception)]
    if not errors:
        return None
    first = errors[0]
    kinds = (ClientError, EngineLost, InvalidEngineID)
    same = all(type(each) is type(first) and str(each) == str(first) for each in errors)
    return first if same and isinstance(first, kinds) else None
