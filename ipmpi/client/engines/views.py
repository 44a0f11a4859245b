"""Engines that were chosen: the surface that ``mec``, ``mec[0]`` and ``mec[0:4]`` have in common."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from ... import limits, serialize
from ...protocol import messages, operations
from ...ranges import engines_named
from ..session import given, replies, results
from ..session.calls import label_of, of_this_process
from ..session.notices import say
from ..session.results import PendingResult
from ..session.session import Submission
from ..session.targets import Targets, as_engine_id, choose, select
from . import benchmark, mapping
from .commands import EngineCommands
from .mapper import MultiEngineMapper, ParallelFunction


class EngineView(EngineCommands):
    """Some engines, and what can be done with them; get one by ``mec[0]``, ``mec[0:4]`` or ``mec[[1, 3]]``.

    It is a collection of engines: ``len`` counts them, a loop goes over them. A string in brackets is a name in
    their namespaces: ``mec['a']`` pulls, ``mec['a'] = 1`` pushes. It is no mapping of these names, for each engine
    has its own, and so ``dict(mec)`` is a TypeError.

    Every method that takes ``targets`` and ``block`` uses the attributes of these names where they are None. With
    ``block=True`` it returns the result, which for engines is a list with one item per target, in the order of the
    targets (``'all'``: ascending ids). With ``block=False`` it returns a :class:`PendingResult` of it at once.

    Ctrl-C during a wait returns to the prompt and leaves the engines working: :meth:`interrupt` stops them. Do not
    change an array while a push of it that was abandoned so may still be on its way.

    All such methods raise ValueError for a wrong ``block`` or type of ``targets``, InvalidEngineID for an engine
    that is not there, NoEnginesRegistered if there are none, and CompositeError for what failed on engines.

    Attributes:
        block: whether calls wait for their results.
        targets: an engine id, a list of ids, or ``'all'``: the engines of this view.
    """

    __reduce_ex__ = of_this_process

    def __copy__(self) -> Any:
        """Another one with the same engines, on the same link."""
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        return other

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of engines {self.targets}, block={self.block}>"

    def __len__(self) -> int:
        """How many engines there are, as the controller told last; nothing is asked."""
        return len(self._known())

    def __bool__(self) -> bool:
        # Otherwise `if mec:` would be False while the engines are starting.
        return True

    def __iter__(self) -> Iterator[EngineView]:
        """One view per engine, ascending; nothing is asked."""
        return (EngineView(self._calls, [engine], block=self.block) for engine in self._known())

    def __contains__(self, key: object) -> bool:
        """``3 in mec``: engine 3 is there. ``'a' in mec``: all engines of :attr:`targets` have the name ``a``.

        Engines, and views of them, are looked up without asking. Names are asked for, and always waited for.
        """
        if isinstance(key, str):
            named: list[list[str]] = self._command(operations.Keys(), "keys", (), None, True)
            return all(key in names for names in named)
        if isinstance(key, EngineView):
            return key._calls is self._calls and set(key._known()) <= set(self._known())
        return as_engine_id(key) in self._known()

    def __getitem__(self, key: Any) -> Any:
        """``mec['a']`` pulls ``a``; ``mec[0]``, ``mec[-1]``, ``mec[0:4]``, ``mec[[1, 3]]`` are views of engines.

        A number is an engine id; slices and negative numbers count through the ids as they are now.

        Raises:
            TypeError: the key is nothing of this.
            IndexError: a negative number counts past the first engine.
        """
        if isinstance(key, str):
            return self.pull(key)
        return EngineView(self._calls, select(key, self._known), block=self.block)

    def _known(self) -> list[int]:
        return self._calls.known() if self._ids is None else list(self._ids)

    def __setitem__(self, key: str, value: object) -> None:
        if not isinstance(key, str):
            raise TypeError("__setitem__ only takes strs")
        self.push({key: value})

    def with_options(self, *, targets: Targets | None = None, block: bool | None = None) -> EngineView:
        """A view with other ``targets`` or ``block``, which leaves this one as it is.

        ``mec.with_options(block=False).apply(f, x)`` returns a PendingResult.
        """
        chosen = self._wanted(targets)
        shown = self.targets if targets is None else targets
        return EngineView(self._calls, chosen, shown, self._waits(block))

    def _registered(self, targets: Targets | None) -> list[int]:
        return choose(self._wanted(targets), self._calls.ids())

    # --- Sequences ----------------------------------------------------------------------------------------

    def scatter(
        self,
        key: str,
        seq: Iterable[Any],
        dist: str = "b",
        flatten: bool = False,
        targets: Targets | None = None,
        block: bool | None = None,
    ) -> Any:
        """Deal out the items of a sequence: each engine gets its part under the name ``key``; ``[None, ...]``.

        Args:
            key: the name on the engines.
            seq: a list, tuple, range (arrives as lists), string, array (by its first axis) or iterable.
            dist: ``'b'`` blocks, ``'r'`` round robin.
            flatten: whether a part of one item arrives as the item itself.
            targets: engines that get parts; some of these are empty if there are more engines than items.
            block: whether to wait.

        Raises:
            KeyError: another ``dist``.
        """
        mapping.check_distribution(dist)
        given.text(key, "the name on the engines")
        mapping.check_items(seq, "seq, what scatter deals out,")
        waits, engines = self._waits(block), self._registered(targets)
        # A range was a list when programs for this were written, and on the engines they append to it.
        whole = list(seq) if isinstance(seq, range) else seq
        parts = mapping.partition(whole, len(engines), dist)
        submissions = []
        for engine, part in zip(engines, parts, strict=True):
            item = part[0] if flatten and len(part) == 1 else part
            body = serialize.dumps({key: item}, what="the namespace")
            submissions.append(Submission(operations.Push(), [engine], "scatter", label_of("scatter", key), body))

        def finish(arrived: list[Any]) -> list[Any]:
            return replies.values(arrived, "scatter", (key,))

        return self._calls.commands(self, submissions, finish, waits, "scatter")

    def gather(self, key: str, dist: str = "b", targets: Targets | None = None, block: bool | None = None) -> Any:
        """Put together what engines have under the name ``key``: arrays to an array, lists and tuples to a list.

        Anything else (scalars, strings) gives the list of the parts. ``dist`` is what :meth:`scatter` was given.
        """
        mapping.check_distribution(dist)
        given.text(key, "the name on the engines")
        self._waits(block)
        wanted = self._wanted(targets)
        engines = None if wanted is None else self._registered(targets)

        def finish(arrived: list[Any]) -> Any:
            return mapping.join(replies.values(arrived, "gather", (key,)), dist)

        return self._command(operations.Pull([key], True), "gather", (key,), engines, block, finish)

    def raw_map(
        self,
        func: Callable[..., Any] | str,
        seq: Sequence[Iterable[Any]],
        dist: str = "b",
        targets: Targets | None = None,
        block: bool | None = None,
    ) -> Any:
        """Map over several sequences at once: ``raw_map(f, [xs, ys])`` is the list of ``f(x, y)``.

        Args:
            func: any callable, or the name of a function (an expression) on the engines.
            seq: a list or tuple of sequences of equal length.
            dist: how they are dealt out, ``'b'`` or ``'r'``; the result has their order in any case.
            targets: engines that share the work; engines for which there are no items have none.
            block: whether to wait.

        Raises:
            TypeError: ``func`` or ``seq`` is something else.
            ValueError: the sequences differ in length.
        """
        if not isinstance(func, str) and not callable(func):
            raise TypeError(f"func must be a function (anything to call) or a str, not {given.shown(func)}")
        if isinstance(func, str):
            given.source(func, "func, an expression on the engines,")
        if not isinstance(seq, (list, tuple)) or not seq:
            raise TypeError("sequences must be a list or tuple")
        mapping.check_distribution(dist)
        waits, engines = self._waits(block), self._registered(targets)
        shares = mapping.partition_together(seq, len(engines), dist)
        label = label_of("map", func)
        submissions = [
            Submission(operations.Map(), [engine], "map", label, serialize.dumps((func, share), what="the map"))
            for engine, share in zip(engines, shares, strict=False)
        ]

        def finish(arrived: list[Any]) -> Any:
            return mapping.join(replies.values(arrived, "map", (func,)), dist)

        return self._calls.commands(self, submissions, finish, waits, "map")

    def mapper(
        self, dist: str = "b", targets: Targets | None = None, block: bool | None = None
    ) -> MultiEngineMapper:
        """An object whose ``map`` keeps these settings."""
        mapping.check_distribution(dist)
        self._wanted(targets)
        chosen = self.targets if targets is None else targets
        return MultiEngineMapper(self, dist, chosen, self._waits(block))

    def map(self, func: Callable[..., Any] | str, *sequences: Iterable[Any]) -> Any:
        """``list(map(func, *sequences))`` on the engines of :attr:`targets`, each on its block of the items.

        Not load balanced: :meth:`TaskClient.map` is. Raises as :meth:`raw_map`.
        """
        return self.mapper().map(func, *sequences)

    def parallel(
        self, dist: str = "b", targets: Targets | None = None, block: bool | None = None
    ) -> ParallelFunction:
        """A decorator: the function, called with sequences, is mapped over them on the engines."""
        return ParallelFunction(self.mapper(dist, targets, block))

    # --- The controller -----------------------------------------------------------------------------------

    def queue_status(self, targets: Targets | None = None, block: bool | None = None) -> Any:
        """What runs and what waits: ``[(0, {'queue': [label, ...], 'pending': label or 'None'}), ...]``.

        ``'seconds'`` tells how long ago the engine was given the command that it runs. Where large answers are on
        their way from an engine to a client, ``'sending'`` lists which, and to whom.
        """
        wanted = self._wanted(targets)

        def finish(rows: list[Any]) -> list[Any]:
            return [
                (engine, {"queue": list(waiting), "pending": running or "None", **_busy(*more)})
                for engine, running, waiting, *more in rows
            ]

        return self._request(lambda i: messages.QueueStatus(i, wanted), finish, block, "queue_status")

    def clear_queue(self, targets: Targets | None = None, block: bool | None = None) -> Any:
        """Drop what waits on engines, whose callers get QueueCleared; what runs goes on. ``[None, ...]``."""
        wanted = self._wanted(targets)
        return self._request(lambda i: messages.ClearQueue(i, wanted), _nones, block, "clear_queue")

    def kill(self, controller: bool = False, targets: Targets | None = None, block: bool | None = None) -> Any:
        """End engines; with ``controller=True`` all of them, and then the controller. ``[None, ...]``."""
        if not isinstance(controller, bool):
            raise TypeError(
                f"kill(controller={given.shown(controller)}): controller is True or False; True ends all engines "
                "and the controller. For some engines: kill(targets=[0, 1])"
            )
        wanted = None if controller else self._wanted(targets)
        return self._request(lambda i: messages.Kill(i, wanted, controller), _nones, block, "kill")

    def interrupt(self, targets: Targets | None = None) -> list[int]:
        """Raise KeyboardInterrupt in what engines run now. Always waits, for about three seconds at most.

        Returns:
            the ids of engines whose command has ended. Those that were busy and have not reacted are printed.
        """
        wanted = self._wanted(targets)
        ended, stuck = self._request(lambda i: messages.Interrupt(i, wanted), list, True, "interrupt")
        if stuck:
            say(_not_interrupted(stuck))
        answer: list[int] = ended
        return answer

    def cluster_info(self) -> dict[str, Any]:
        """Who is there, by the controller's account. Always waits.

        Returns:
            ``'engines'``: a list of dicts (``id``, ``rank``, ``set``, ``host``, ``pid``, ``mpi``, ``python``, and
            ``job``: the batch system's id of their job, ``time_left``: seconds until it ends, or None);
            ``'clients'``: the list of their roles; ``'up'``: seconds since the controller started; ``'time'``: its
            clock, in seconds since the epoch; ``'version'``: its release of ipmpi.
        """
        engines: list[dict[str, Any]] = []
        more, after = True, -1
        while more:
            answer: dict[str, Any] = self._request(
                functools.partial(messages.ClusterInfo, after=after), dict, True, "cluster_info"
            )
            engines += answer["engines"]
            after = engines[-1]["id"] if engines else -1
            more = answer.pop("more", False)
        return {**answer, "engines": engines}

    def time_left(self, targets: Targets | None = None) -> float | None:
        """Seconds until the first of these engines' jobs ends; None if no end is known. Always waits.

        Raises:
            InvalidEngineID, NoEnginesRegistered: they are not there.
        """
        wanted = self._wanted(targets)
        left = {engine["id"]: engine["time_left"] for engine in self.cluster_info()["engines"]}
        known = [left[engine] for engine in choose(wanted, list(left)) if left[engine] is not None]
        return min(known, default=None)

    def _request(
        self,
        factory: Callable[[int], messages.AnyMessage],
        finish: Callable[[Any], Any],
        block: bool | None,
        method: str,
    ) -> Any:
        return self._calls.request(self, factory, finish, self._waits(block), method)

    def benchmark(self, push_size: int = 10000) -> dict[str, tuple[float, str]]:
        """Latencies in ms and push throughputs in MB/s, for one engine and all; ``push_size`` in doubles."""
        most = limits.CLIENT_BACKLOG // 8
        return benchmark.measure(self, given.whole_number(push_size, "push_size", 1, most))

    # --- Pending results ----------------------------------------------------------------------------------

    def barrier(self, pendingResults: PendingResult | Iterable[PendingResult]) -> None:
        """Wait for these results. Failures are not raised here: they wait in the results.

        Raises:
            NotAPendingResult: something else is among them.
            InvalidDeferredID: one was flushed.
        """
        results.barrier(pendingResults)

    def flush(self) -> None:
        """Forget every result that was not retrieved: asking for it raises InvalidDeferredID from now on."""
        self._calls.pending.flush()

    clear_pending_results = flush

    def get_pending_deferred(self, deferredID: str, block: bool = True) -> Any:
        """The result of the PendingResult (still held somewhere) with this ``result_id``, once.

        Raises:
            ResultNotCompleted: it is not there, and ``block`` is False.
            InvalidDeferredID: it was retrieved or flushed, or there is none.
        """
        return self._calls.pending.get(deferredID).get_result(timeout=None if block else 0)

    def activate(self) -> None:
        """Make this the target of IPython's ``%px``, ``%result`` and ``%autopx``."""
        # Whoever sits in IPython has imported it; nobody else should.
        ipython = sys.modules.get("IPython")
        shell = None if ipython is None else ipython.get_ipython()
        if shell is None:
            print("The IPython Controller magics only work within IPython.")
            return
        # Through IPython's own registry: the magics and the client know each other by these two names only.
        shell.extension_manager.load_extension("ipmpi.ipython")
        shell.magics_manager.registry["ParallelMagics"].active = self


def _not_interrupted(stuck: Sequence[tuple[int, str]]) -> str:
    ids = [engine for engine, _ in stuck]
    labels = list(dict.fromkeys(label for _, label in stuck))
    runs = labels[0] if len(labels) == 1 else f"{labels[0]} and others"
    return (
        f"{engines_named(ids)} did not react: {runs} still runs. A call into C or MPI is interrupted when it "
        f"returns, and waits for ever if it waits for another rank. mec.kill(targets={ids[:3]}"
        f"{'...' * (len(ids) > 3)}) ends engines, mec.kill() the whole set"
    )


def _busy(going: Sequence[str] = (), seconds: float | None = None) -> dict[str, Any]:
    sending = {"sending": list(going)} if going else {}
    return sending if seconds is None else {"seconds": round(seconds, 1), **sending}


def _nones(engines: list[int]) -> list[None]:
    return [None] * len(engines)
