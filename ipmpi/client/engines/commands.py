"""Commands that run on engines: source code, files and function calls.

:mod:`ipmpi.client.session.calls` sends them, and :mod:`ipmpi.client.session.replies` converts the replies.
"""

from __future__ import annotations

import copy
import functools
import os
import tokenize
from collections.abc import Callable, Sequence
from typing import Any, Literal, overload

from ... import limits, serialize
from ...errors import WaitInterrupted
from ...protocol import operations
from ..display.render import Fold
from ..session import given, replies
from ..session.calls import Calls, Finish, label_of
from ..session.following import Live, OnOutput
from ..session.functions import label_of as name_of
from ..session.ownframes import all_raise_at_call
from ..session.results import PendingResult, ResultList, RunResults
from ..session.session import Submission
from ..session.targets import Targets, parse_block, parse_targets
from ..session.waiting import check_waiting
from .pastcommands import PastCommand, follow
from .reservation import Reservation


@all_raise_at_call
class EngineCommands:
    """Base of :class:`EngineView`: selecting engines, and running code on them.

    :class:`EngineView` describes ``targets``, ``block`` and the exceptions that all methods raise.

    Attributes:
        block: whether calls wait for their results.
        targets: an engine id, a list of ids, or ``'all'``.
    """

    def __init__(
        self, calls: Calls, ids: Sequence[int] | None = None, targets: Targets | None = None, block: bool = True
    ) -> None:
        self._calls = calls
        self._ids = None if ids is None else list(ids)
        self.targets: Targets = ("all" if ids is None else list(ids)) if targets is None else targets
        self.block = block
        self.timeout: float | None = None

    # --- Which engines ----------------------------------------------------------------------------------

    def get_ids(self) -> list[int]:
        """Return the ids of the engines of this view, or, for a client, of all registered engines.

        Always blocks: a client asks the controller.

        Returns:
            The ids, in ascending order for a client, in the order of selection for a view.
        """
        return self._calls.ids() if self._ids is None else list(self._ids)

    def _wanted(self, targets: Targets | None) -> list[int] | None:
        wanted = parse_targets(self.targets if targets is None else targets)
        return self._ids if wanted is None else wanted

    def _waits(self, block: bool | None) -> bool:
        return parse_block(self.block if block is None else block)

    def reserve(self, targets: Targets | None = None) -> Reservation:
        """Return a context manager that keeps tasks of task clients off these engines.

        Example::

            with mec.reserve([0, 1]):
                mec.execute("...", targets=[0, 1])      # no task runs in between

        Args:
            targets: the engines to reserve; None for :attr:`targets`.

        Returns:
            A :class:`~ipmpi.client.engines.reservation.Reservation`, which takes effect on entering the ``with``
            block.
        """
        return Reservation(self._calls.session, self._wanted(targets))

    # --- Commands -----------------------------------------------------------------------------------------

    def _command(
        self,
        operation: operations.Operation,
        method: str,
        shown: tuple[Any, ...],
        targets: Targets | None,
        block: bool | None,
        finish: Finish | None = None,
        body: list[serialize.Buffer] | None = None,
    ) -> Any:
        def plain_values(arrived: list[Any]) -> list[Any]:
            return replies.values(arrived, method, shown)

        wanted, waits = self._wanted(targets), self._waits(block)
        submission = Submission(operation, wanted, method, label_of(method, *shown), body or [])
        return self._calls.command(self, submission, finish or plain_values, waits)

    @overload
    def execute(
        self,
        lines: str,
        targets: Targets | None = None,
        *,
        block: Literal[True],
        stream: Any = None,
        on_output: OnOutput | None = None,
        fold: Fold = "exact",
        timeout: float | None = None,
    ) -> ResultList: ...
    @overload
    def execute(
        self,
        lines: str,
        targets: Targets | None = None,
        *,
        block: Literal[False],
        stream: Any = None,
        on_output: OnOutput | None = None,
        fold: Fold = "exact",
        timeout: float | None = None,
    ) -> PendingResult[ResultList]: ...
    @overload
    def execute(
        self,
        lines: str,
        targets: Targets | None = None,
        block: bool | None = None,
        *,
        stream: Any = None,
        on_output: OnOutput | None = None,
        fold: Fold = "exact",
        timeout: float | None = None,
    ) -> Any: ...
    def execute(
        self,
        lines: str,
        targets: Targets | None = None,
        block: bool | None = None,
        *,
        stream: Any = None,
        on_output: OnOutput | None = None,
        fold: Fold = "exact",
        timeout: float | None = None,
    ) -> Any:
        """Run source code in the namespaces of engines.

        Args:
            lines: Python source code, one or more statements.
            targets: the engines that run it.
            block: whether to wait.
            stream: a file, such as ``sys.stdout``, to which output is written while the code runs: equal lines of
                several ranks once, with their ranks.
            on_output: a function that is called with each :class:`Block` of output as it comes. It runs in the
                client's own thread, so it must return quickly, and cannot wait for results.
            fold: how ``stream`` shows equal lines; see :meth:`ResultList.display`.
            timeout: seconds after which the call is interrupted, if it has not ended; also with ``block=False``.
                None for :attr:`timeout`. Where it has not begun it will not run. If engines do not react, it says
                what they are in, and ends without them; see also :attr:`MultiEngineClient.on_timeout`.

        Returns:
            A :class:`ResultList` with what each engine printed and displayed, in the order of the targets. With
            ``block=False``, a :class:`PendingResult` of it.

        Raises:
            TypeError: ``lines`` is not a str, ``stream`` has no ``write``, or ``on_output`` cannot be called.
            ValueError: ``fold`` is not one of the possible words.
            CompositeError: the code raised on at least one engine. Commands still queued on these engines are
                dropped. An engine that had not ended in time has :class:`~ipmpi.errors.CommandTimeout`.
        """
        if not isinstance(lines, str):
            raise TypeError(f"execute takes source text, not {type(lines).__name__}; for a function use apply")
        given.source(lines, "the text of execute")
        live = Live(stream, on_output, fold)
        view = self._within(timeout)
        return view._execute(operations.Execute(lines), "execute", targets, block, ResultList, live)

    @overload
    def run(
        self,
        filename: str | os.PathLike[str],
        targets: Targets | None = None,
        *,
        block: Literal[True],
        args: Sequence[str] = (),
        stream: Any = None,
        on_output: OnOutput | None = None,
        fold: Fold = "exact",
        timeout: float | None = None,
    ) -> RunResults: ...
    @overload
    def run(
        self,
        filename: str | os.PathLike[str],
        targets: Targets | None = None,
        *,
        block: Literal[False],
        args: Sequence[str] = (),
        stream: Any = None,
        on_output: OnOutput | None = None,
        fold: Fold = "exact",
        timeout: float | None = None,
    ) -> PendingResult[RunResults]: ...
    @overload
    def run(
        self,
        filename: str | os.PathLike[str],
        targets: Targets | None = None,
        block: bool | None = None,
        *,
        args: Sequence[str] = (),
        stream: Any = None,
        on_output: OnOutput | None = None,
        fold: Fold = "exact",
        timeout: float | None = None,
    ) -> Any: ...
    def run(
        self,
        filename: str | os.PathLike[str],
        targets: Targets | None = None,
        block: bool | None = None,
        *,
        args: Sequence[str] = (),
        stream: Any = None,
        on_output: OnOutput | None = None,
        fold: Fold = "exact",
        timeout: float | None = None,
    ) -> Any:
        """Run a local Python file on engines.

        The file is read here and runs on each engine as ``python filename args`` would: with its own ``sys.argv``,
        its path as ``__file__``, and ``__name__ == '__main__'``. The names it defines stay in the engine's
        namespace.

        Args:
            filename: path of the file, on this machine.
            targets: the engines that run it.
            block: whether to wait.
            args: command-line arguments of the file, its ``sys.argv[1:]``.
            stream: where output is written while the file runs; see :meth:`execute`, as for the next two.
            on_output: is called with output as it comes.
            fold: how ``stream`` shows equal lines.
            timeout: seconds after which the call is interrupted.

        Returns:
            A :class:`ResultList`, as :meth:`execute` returns it. With ``block=False``, a :class:`PendingResult` of
            it.

        Raises:
            OSError: the file cannot be read.
            SyntaxError, ValueError: the file is not valid Python. Nothing was sent.
            TypeError: ``args`` is not a sequence of str.
            CompositeError: the code raised on at least one engine.
        """
        name = given.path(filename, "filename")
        words: list[Any] = list(args) if not isinstance(args, str) and hasattr(args, "__iter__") else [None]
        if not all(isinstance(word, str) for word in words):
            raise TypeError(f"args must be a sequence of strs, the words for sys.argv, not {given.shown(args)}")
        given.source(" ".join(words), "args, the words for sys.argv,")
        # tokenize.open obeys the encoding that the file declares.
        with tokenize.open(name) as file:
            source = file.read()
        compile(source, name, "exec", dont_inherit=True)
        given.source(source, f"the file {name}")
        operation = operations.Execute(source, name, [name, *words], os.path.abspath(name))
        live = Live(stream, on_output, fold)
        view = self._within(timeout)
        return view._execute(operation, "run", targets, block, functools.partial(RunResults, name), live)

    def _within(self, timeout: float | None) -> EngineCommands:
        """Return this object, or one whose calls have this timeout."""
        if timeout is None:
            return self
        view = copy.copy(self)
        view.timeout = given.seconds(timeout, "timeout")
        return view

    def _execute(
        self,
        operation: operations.Execute,
        method: str,
        targets: Targets | None,
        block: bool | None,
        kind: Callable[[ResultList], list[Any]],
        live: Live,
    ) -> Any:
        shown = (operation.source if method == "execute" else operation.filename,)

        def finish(arrived: list[Any]) -> list[Any]:
            return kind(replies.executed(arrived, method, shown, operation.source))

        view = live.view()
        if view is None and live.on_output is None:
            return self._command(operation, method, shown, targets, block, finish)
        waits = self._waits(block)
        if waits:
            check_waiting()
        pending = self._command(operation, method, shown, targets, False, finish)
        try:
            return live.follow(pending, view, waits)
        except WaitInterrupted as error:
            if error.detached:
                self._calls.detached = pending
            raise

    def apply(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call ``f(*args, **kwargs)`` once on every engine of :attr:`targets`.

        All arguments are passed to ``f``. To choose other targets, or not to wait, use :meth:`with_options`.

        Args:
            f: the function; lambdas and closures are sent by value.
            *args: its positional arguments, pickled once for all engines.
            **kwargs: its keyword arguments.

        Returns:
            The list of return values, one per engine, in the order of the targets. If :attr:`block` is False, a
            :class:`PendingResult` of it.

        Raises:
            TypeError: ``f`` is not callable.
            SerializationError: the function or an argument cannot be pickled; the message names it.
            CompositeError: the call raised on at least one engine.
        """
        if not callable(f):
            raise TypeError(f"apply takes something to call, not {given.shown(f)}")
        body = serialize.dumps((f, args, kwargs), what="the call")
        return self._command(operations.Apply(), "apply", (f,), None, None, body=body)

    @overload
    def before_walltime(
        self,
        f: Callable[[], object],
        seconds: float = 120,
        targets: Targets | None = None,
        *,
        block: Literal[True],
    ) -> list[None]: ...
    @overload
    def before_walltime(
        self,
        f: Callable[[], object],
        seconds: float = 120,
        targets: Targets | None = None,
        *,
        block: Literal[False],
    ) -> PendingResult[list[None]]: ...
    @overload
    def before_walltime(
        self,
        f: Callable[[], object],
        seconds: float = 120,
        targets: Targets | None = None,
        block: bool | None = None,
    ) -> Any: ...
    def before_walltime(
        self,
        f: Callable[[], object],
        seconds: float = 120,
        targets: Targets | None = None,
        block: bool | None = None,
    ) -> Any:
        """Register ``f`` to be called on engines before the walltime of their job ends, for example to save data.

        Each engine calls ``f`` once, between commands: a command that is running finishes first. All ranks of an
        engine set call it at the same point in the sequence of commands, so ``f`` may use MPI collectives. If the
        end of the job is not known, ``f`` is called when the batch system sends its warning signal (SIGUSR1). If
        ``f`` raises, clients are told by a notice. :meth:`reset` removes the registration.

        Args:
            f: a function without parameters; its return value is ignored.
            seconds: how long before the end to call it, in seconds.
            targets: the engines that call it.
            block: whether to wait until the engines have registered it.

        Returns:
            ``[None, ...]``, one per engine. With ``block=False``, a :class:`PendingResult` of it.

        Raises:
            TypeError: ``f`` is not callable, or ``seconds`` is not a number.
            ValueError: ``seconds`` is not positive, or too large.
            SerializationError: ``f`` cannot be pickled; the message names the cause.
        """
        if not callable(f):
            raise TypeError(f"before_walltime takes something to call, not {given.shown(f)}")
        needed = given.number(seconds, "seconds")
        if not 0 < needed <= limits.LONGEST:
            raise ValueError(
                f"seconds must be more than 0 and at most {limits.LONGEST:.0f}, the time that the function may "
                f"need; not {given.shown(seconds)}"
            )
        body = serialize.dumps(f, what="the function")
        operation = operations.BeforeWalltime(os.urandom(16), needed, name_of(f))
        return self._command(operation, "before_walltime", (f,), targets, block, body=body)

    @overload
    def get_result(
        self, i: int | None = None, targets: Targets | None = None, *, block: Literal[True]
    ) -> ResultList: ...
    @overload
    def get_result(
        self, i: int | None = None, targets: Targets | None = None, *, block: Literal[False]
    ) -> PendingResult[ResultList]: ...
    @overload
    def get_result(
        self, i: int | str | PastCommand | None = None, targets: Targets | None = None, block: bool | None = None
    ) -> Any: ...
    def get_result(
        self, i: int | str | PastCommand | None = None, targets: Targets | None = None, block: bool | None = None
    ) -> Any:
        """Return the output of an earlier command, or what became of a command of another client.

        Args:
            i: the number of the command on its engines, as in ``In [i]``; None for the last one that succeeded. Or
                a command of :meth:`MultiEngineClient.history`, or its name, such as ``'5-12'``.
            targets: the engines to ask. A command of the history has its own.
            block: whether to wait.

        Returns:
            A :class:`ResultList`, one item per engine. For a command of the history other than ``execute`` and
            ``run``, the list of what its engines have returned. It waits for engines that have not answered;
            Ctrl-C, ``cancel()`` and ``output_stream()`` work as if this client had given the command. With
            ``block=False``, a :class:`PendingResult` of it.

        Raises:
            CompositeError: an engine has no such command (IndexError); or the command has failed there.
            ClientError: the controller does not know such a command of the history, or not any more.
            ValueError: it is no name of a command, or one of the history, and ``targets`` is given.
        """
        if isinstance(i, (str, PastCommand)):
            if targets is not None:
                raise ValueError("a command of mec.history() has its own engines: leave targets out")
            return follow(self._calls, self, i, self._waits(block))
        if i is not None:
            i = given.whole_number(i, "the number of a command", -limits.ENGINE_ID, limits.ENGINE_ID)

        def finish(arrived: list[Any]) -> ResultList:
            return replies.executed(arrived, "get_result", (i,))

        return self._command(operations.GetResult(i), "get_result", (i,), targets, block, finish)

    @overload
    def reset(self, targets: Targets | None = None, *, block: Literal[True]) -> list[None]: ...
    @overload
    def reset(self, targets: Targets | None = None, *, block: Literal[False]) -> PendingResult[list[None]]: ...
    @overload
    def reset(self, targets: Targets | None = None, block: bool | None = None) -> Any: ...
    def reset(self, targets: Targets | None = None, block: bool | None = None) -> Any:
        """Clear the namespace, the command history and the properties of engines.

        Returns:
            ``[None, ...]``, one per engine. With ``block=False``, a :class:`PendingResult` of it.
        """
        return self._command(operations.Reset(), "reset", (), targets, block)

    @overload
    def keys(self, targets: Targets | None = None, *, block: Literal[True]) -> list[list[str]]: ...
    @overload
    def keys(self, targets: Targets | None = None, *, block: Literal[False]) -> PendingResult[list[list[str]]]: ...
    @overload
    def keys(self, targets: Targets | None = None, block: bool | None = None) -> Any: ...
    def keys(self, targets: Targets | None = None, block: bool | None = None) -> Any:
        """List the names that users have defined in the namespaces of engines.

        Returns:
            One list of str per engine, in the order of the targets. With ``block=False``, a :class:`PendingResult`
            of it.
        """
        return self._command(operations.Keys(), "keys", (), targets, block)
