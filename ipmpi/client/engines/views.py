"""Views of engines: the interface that ``mec``, ``mec[0]`` and ``mec[0:4]`` share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, overload

from ... import limits, serialize
from ...protocol import operations
from ..session import given, replies, results
from ..session.calls import label_of, of_this_process
from ..session.ownframes import all_raise_at_call
from ..session.results import PendingResult
from ..session.session import Submission
from ..session.targets import Targets, as_engine_id, choose, is_list, select
from . import benchmark, mapping
from .arrays import EngineArrays
from .mapper import MultiEngineMapper, ParallelFunction
from .objects import keys_of


@all_raise_at_call
class EngineView(EngineArrays):
    """A selection of engines: ``mec[0]``, ``mec[0:4]`` or ``mec[[1, 3]]``.

    It is a collection of engines: ``len`` counts them, iteration yields one view per engine. A str as index is a
    name in the engines' namespaces: ``mec['a']`` pulls, ``mec['a'] = 1`` pushes. It is not a mapping, since each
    engine has a namespace of its own; ``dict(mec)`` raises TypeError.

    Parameters that most methods have:

    * ``targets``: an engine id, a list of ids, or ``'all'``; None stands for :attr:`targets`.
    * ``block``: whether to wait for the result; None stands for :attr:`block`. With ``block=True`` a method
      returns its result, for engines a list with one item per target, in the order of the targets (``'all'``:
      ascending ids). With ``block=False`` it returns a :class:`PendingResult` of the same at once.

    Exceptions that all methods with these parameters raise: ValueError if ``block`` or the type of ``targets`` is
    wrong, InvalidEngineID if an engine is not registered, NoEnginesRegistered if there is none, and CompositeError
    if a command failed on engines.

    The first Ctrl-C during a wait interrupts the engines that run this call, the second leaves them working and
    returns; see :attr:`MultiEngineClient.on_interrupt`. After Ctrl-C during a push, do not change the array until
    the push has ended: its memory may still be read.

    Thread-safety: all methods may be called from any thread; commands reach each engine in the order in which they
    were submitted. :attr:`block` and :attr:`targets` are shared by all threads that use the object: threads that
    need other values use :meth:`with_options`. In a done-callback of a future, methods that wait raise
    :class:`~ipmpi.errors.ClientError`.

    Attributes:
        block: whether calls wait for their results.
        targets: an engine id, a list of ids, or ``'all'``: the engines of this view.
        timeout: seconds after which calls are interrupted; None for never. See :meth:`execute`.
    """

    __reduce_ex__ = of_this_process

    _is_one = False
    """Whether it is a view of one engine by its id, as ``mec[0]``: its names stand for values, not for lists."""

    def __copy__(self) -> Any:
        """Return a copy that shares the connection."""
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        return other

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of engines {self.targets}, block={self.block}>"

    def __len__(self) -> int:
        """Return the number of engines, from the last update of the controller, without a request."""
        return len(self._known())

    def __bool__(self) -> bool:
        # Otherwise `if mec:` would be False while the engines are starting.
        return True

    def __iter__(self) -> Iterator[EngineView]:
        """Iterate over the engines, one view each, in ascending order of ids, without a request."""
        return (self[engine] for engine in self._known())

    def __contains__(self, key: object) -> bool:
        """Test for an engine or a name.

        ``3 in mec``: engine 3 is registered. ``'a' in mec``: all engines of :attr:`targets` define the name ``a``.
        Engines, and views of them, are looked up without a request; names are requested from the engines, which
        always blocks.
        """
        if isinstance(key, str):
            named: list[list[str]] = self._command(operations.Keys(), "keys", (), None, True)
            return all(key in names for names in named)
        if isinstance(key, EngineView):
            return key._calls is self._calls and set(key._known()) <= set(self._known())
        return as_engine_id(key) in self._known()

    def __getitem__(self, key: Any) -> Any:
        """``mec['a']`` pulls ``a``; ``mec[0]``, ``mec[-1]``, ``mec[0:4]``, ``mec[[1, 3]]`` are views of engines.

        A number is an engine id; slices and negative numbers count through the ids as they are now. ``mec['a']``
        and ``mec[[0, 1]]['a']`` are lists of values, and ``mec[0]['a']`` is the value on that engine.

        Raises:
            TypeError: the key is nothing of this.
            IndexError: a negative number counts past the first engine.
        """
        if isinstance(key, str):
            return self._pull_one(key) if self._is_one else self.pull(key)
        view = EngineView(self._calls, select(key, self._known), block=self.block)
        view._is_one = not isinstance(key, slice) and not is_list(key)
        return view

    def _pull_one(self, key: str) -> Any:
        def finish(arrived: list[Any]) -> Any:
            found = replies.values(arrived, "pull", (key,))
            return found[0] if len(found) == 1 else found  # its targets may have been changed

        return self._command(operations.Pull(*keys_of(key)), "pull", (key,), None, None, finish)

    def _known(self) -> list[int]:
        return self._calls.known() if self._ids is None else list(self._ids)

    def __setitem__(self, key: str, value: object) -> None:
        if not isinstance(key, str):
            raise TypeError("__setitem__ only takes strs")
        self.push({key: value})

    def with_options(
        self, *, targets: Targets | None = None, block: bool | None = None, timeout: float | None = None
    ) -> EngineView:
        """Return a view of the same engines with other options; this one does not change.

        ``mec.with_options(block=False).apply(f, x)`` returns a :class:`PendingResult`.

        Args:
            targets: the engines of the new view; None for those of this one.
            block: whether its calls wait; None for the value of this one.
            timeout: seconds after which its calls are interrupted; None for the value of this one. See
                :meth:`execute`.
        """
        chosen = self._wanted(targets)
        shown = self.targets if targets is None else targets
        view = EngineView(self._calls, chosen, shown, self._waits(block))
        view._is_one = self._is_one and targets is None
        view.timeout = self.timeout if timeout is None else given.seconds(timeout, "timeout")
        return view

    def _registered(self, targets: Targets | None) -> list[int]:
        return choose(self._wanted(targets), self._calls.ids())

    # --- Sequences ----------------------------------------------------------------------------------------

    @overload
    def scatter(
        self,
        key: str,
        seq: Iterable[Any],
        dist: str = "b",
        flatten: bool = False,
        targets: Targets | None = None,
        *,
        block: Literal[True],
    ) -> list[None]: ...
    @overload
    def scatter(
        self,
        key: str,
        seq: Iterable[Any],
        dist: str = "b",
        flatten: bool = False,
        targets: Targets | None = None,
        *,
        block: Literal[False],
    ) -> PendingResult[list[None]]: ...
    @overload
    def scatter(
        self,
        key: str,
        seq: Iterable[Any],
        dist: str = "b",
        flatten: bool = False,
        targets: Targets | None = None,
        block: bool | None = None,
    ) -> Any: ...
    def scatter(
        self,
        key: str,
        seq: Iterable[Any],
        dist: str = "b",
        flatten: bool = False,
        targets: Targets | None = None,
        block: bool | None = None,
    ) -> Any:
        """Partition a sequence among engines; each engine gets its part under the name ``key``.

        Arrays of any dimension are partitioned along axis 0; dtype and the other axes are unchanged. With ``'b'``
        (blocks) each engine gets consecutive items, and the first ``len(seq) % n`` of ``n`` engines get one more
        than the others. With ``'r'`` (round robin) engine ``k`` of ``n`` gets the items ``k, k + n, k + 2n, ...``.

        Args:
            key: the name on the engines.
            seq: a list, tuple, str, array, or other iterable; its parts have the same type. A range arrives as
                lists, an iterable without slices, too.
            dist: ``'b'`` or ``'r'``.
            flatten: whether a part with a single item arrives as that item itself.
            targets: the engines, in the order in which they get parts. With more engines than items the last parts
                are empty.
            block: whether to wait.

        Returns:
            ``[None, ...]``, one per engine. With ``block=False``, a :class:`PendingResult` of it.

        Raises:
            KeyError: ``dist`` is neither ``'b'`` nor ``'r'``.
            TypeError: ``seq`` has no items, for example a number or a 0-d array.
            SerializationError: an item cannot be pickled.
        """
        mapping.check_distribution(dist)
        given.text(key, "the name on the engines")
        mapping.check_items(seq, "seq")
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

    @overload
    def gather(
        self, key: str, dist: str = "b", targets: Targets | None = None, *, block: Literal[False]
    ) -> PendingResult[Any]: ...
    @overload
    def gather(
        self, key: str, dist: str = "b", targets: Targets | None = None, block: bool | None = None
    ) -> Any: ...
    def gather(self, key: str, dist: str = "b", targets: Targets | None = None, block: bool | None = None) -> Any:
        """Join the parts that engines have under the name ``key``: the inverse of :meth:`scatter`.

        Args:
            key: the name on the engines.
            dist: the ``dist`` that :meth:`scatter` was given.
            targets: the engines, in the order in which their parts are joined.
            block: whether to wait.

        Returns:
            If any part is an array, one array: the parts concatenated along axis 0, with ``'r'`` interleaved. The
            parts may differ in length, and must agree in the other axes; the dtype is that of
            :func:`numpy.concatenate`; a 0-d array or a scalar counts as one item. If the parts are lists, tuples
            or ranges, one list. Anything else (scalars, str, array types that cannot be concatenated) gives the
            list of the parts. With ``block=False``, a :class:`PendingResult` of it.

        Raises:
            KeyError: ``dist`` is neither ``'b'`` nor ``'r'``.
            CompositeError: the name is not defined on an engine (NameError).
            ValueError: the shapes of the arrays do not fit.
        """
        mapping.check_distribution(dist)
        given.text(key, "the name on the engines")
        self._waits(block)
        wanted = self._wanted(targets)
        engines = None if wanted is None else self._registered(targets)

        def finish(arrived: list[Any]) -> Any:
            return mapping.join(replies.values(arrived, "gather", (key,)), dist, self._calls.memory)

        return self._command(operations.Pull([key], True), "gather", (key,), engines, block, finish)

    @overload
    def raw_map(
        self,
        func: Callable[..., Any] | str,
        seq: Sequence[Iterable[Any]],
        dist: str = "b",
        targets: Targets | None = None,
        *,
        block: Literal[True],
    ) -> list[Any]: ...
    @overload
    def raw_map(
        self,
        func: Callable[..., Any] | str,
        seq: Sequence[Iterable[Any]],
        dist: str = "b",
        targets: Targets | None = None,
        *,
        block: Literal[False],
    ) -> PendingResult[list[Any]]: ...
    @overload
    def raw_map(
        self,
        func: Callable[..., Any] | str,
        seq: Sequence[Iterable[Any]],
        dist: str = "b",
        targets: Targets | None = None,
        block: bool | None = None,
    ) -> Any: ...
    def raw_map(
        self,
        func: Callable[..., Any] | str,
        seq: Sequence[Iterable[Any]],
        dist: str = "b",
        targets: Targets | None = None,
        block: bool | None = None,
    ) -> Any:
        """Map a function over several sequences at once: ``raw_map(f, [xs, ys])`` is the list of ``f(x, y)``.

        Args:
            func: a callable, or a str: an expression that gives a function in the engines' namespaces.
            seq: a list or tuple of sequences of equal length.
            dist: how the items are partitioned, see :meth:`scatter`.
            targets: the engines that share the work. With fewer items than engines, the last ones do nothing.
            block: whether to wait.

        Returns:
            The list of results, in the order of the items for either ``dist``. With ``block=False``, a
            :class:`PendingResult` of it.

        Raises:
            TypeError: ``func`` or ``seq`` is of the wrong type.
            ValueError: the sequences differ in length.
            CompositeError: ``func`` raised on at least one engine.
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
        """Return an object whose ``map`` method uses these settings; see :meth:`raw_map` for the arguments."""
        mapping.check_distribution(dist)
        self._wanted(targets)
        chosen = self.targets if targets is None else targets
        return MultiEngineMapper(self, dist, chosen, self._waits(block))

    def map(
        self,
        func: Callable[..., Any] | str,
        *sequences: Iterable[Any],
        targets: Targets | None = None,
        block: bool | None = None,
    ) -> Any:
        """Map a function over sequences on the engines of :attr:`targets`, one block of items per engine.

        The work is divided in advance, not balanced by load; for that use :meth:`TaskClient.map`.

        Args:
            func: a callable, or a str: an expression that gives a function in the engines' namespaces.
            *sequences: one for each parameter of ``func``, of equal length.
            targets: the engines that share the work.
            block: whether to wait.

        Returns:
            The list of results, in the order of the items. With ``block=False``, a :class:`PendingResult` of it.

        Raises:
            TypeError, ValueError, CompositeError: as :meth:`raw_map`.
        """
        return self.mapper(targets=targets, block=block).map(func, *sequences)

    def parallel(
        self, dist: str = "b", targets: Targets | None = None, block: bool | None = None
    ) -> ParallelFunction:
        """Return a decorator: the decorated function, called with sequences, is mapped over them on the engines.

        See :meth:`raw_map` for the arguments.
        """
        return ParallelFunction(self.mapper(dist, targets, block))

    def benchmark(self, push_size: int = 10000) -> dict[str, tuple[float, str]]:
        """Measure latency and throughput between this process and the engines. Always blocks.

        Uses the name ``_ipmpi_benchmark`` in the engines' namespaces.

        Args:
            push_size: size of the data to push, in doubles of 8 bytes.

        Returns:
            A dict of ``(value, unit)``: ``'single_engine_latency'`` and ``'all_engine_latency'`` in ms,
            ``'single_engine_push'`` and ``'all_engine_push'`` in MB/s (the latter summed over the engines).
        """
        most = limits.CLIENT_BACKLOG // 8
        return benchmark.measure(self, given.whole_number(push_size, "push_size", 1, most))

    # --- Pending results ----------------------------------------------------------------------------------

    def barrier(self, pendingResults: PendingResult[Any] | Iterable[PendingResult[Any]]) -> None:
        """Wait for these results. Failures are not raised here, but when a result is retrieved.

        Raises:
            NotAPendingResult: an item is not a :class:`PendingResult`.
            InvalidDeferredID: one was flushed.
        """
        results.barrier(pendingResults)

    def flush(self) -> None:
        """Discard all results that were not retrieved: retrieving one raises InvalidDeferredID from now on."""
        self._calls.pending.flush()

    clear_pending_results = flush

    def get_pending_deferred(self, deferredID: str, block: bool = True) -> Any:
        """Retrieve, once, the result of the :class:`PendingResult` with this id.

        Only results that are still referenced by the caller can be found.

        Args:
            deferredID: its ``result_id``.
            block: whether to wait.

        Raises:
            ResultNotCompleted: the result has not arrived, and ``block`` is False.
            InvalidDeferredID: it was retrieved or flushed before, or there is none with this id.
        """
        return self._calls.pending.get(deferredID).get_result(timeout=None if block else 0)

    def activate(self) -> None:
        """Make this object the target of IPython's ``%px``, ``%result`` and ``%autopx``.

        Outside IPython, it prints a line that says so.
        """
        # Inside IPython it is imported already; elsewhere it should not be.
        ipython = sys.modules.get("IPython")
        shell = None if ipython is None else ipython.get_ipython()
        if shell is None:
            print("The IPython Controller magics only work within IPython.")
            return
        # Through IPython's own registry: the magics and the client know each other by these two names only.
        shell.extension_manager.load_extension("ipmpi.ipython")
        shell.magics_manager.registry["ParallelMagics"].active = self
