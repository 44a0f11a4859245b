"""Requests to the controller about engines: their queues, interrupting and ending them, information."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, overload

from ... import limits
from ...errors import ClientError
from ...ids import Ids
from ...protocol import inquiries, messages, operations
from ...ranges import engines_named
from ..display.whereabouts import Whereabouts, with_own_lines
from ..session import given
from ..session.callwait import not_reacting
from ..session.clusterinfo import cluster_info
from ..session.freeing import Freed, free
from ..session.notices import say
from ..session.ownframes import all_raise_at_call
from ..session.recentoutputs import RecentOutput
from ..session.results import PendingResult
from ..session.stacks import by_engine
from ..session.targets import Targets, choose
from ..session.waiting import check_waiting
from .completing import completions, description
from .objects import EngineObjects
from .pastcommands import Since, outputs_since
from .profile import Profile, sampled
from .queues import queue_statuses
from .restarting import Restarted, restart
from .snapshots import Restored, Snapshot, Snapshots, checked_names, checked_seconds, nothing_saved

_LOG: Final = 16 * limits.KIB
"""Bytes that are asked for of each engine's log."""


@all_raise_at_call
class EngineControl(EngineObjects):
    """Base of :class:`EngineView`: what the controller answers itself, also while engines are busy.

    :class:`EngineView` describes ``targets``, ``block`` and the exceptions that all methods raise.
    """

    @overload
    def queue_status(
        self, targets: Targets | None = None, *, block: Literal[True]
    ) -> list[tuple[int, dict[str, Any]]]: ...
    @overload
    def queue_status(
        self, targets: Targets | None = None, *, block: Literal[False]
    ) -> PendingResult[list[tuple[int, dict[str, Any]]]]: ...
    @overload
    def queue_status(self, targets: Targets | None = None, block: bool | None = None) -> Any: ...
    def queue_status(self, targets: Targets | None = None, block: bool | None = None) -> Any:
        """Return which command runs on each engine, and which are queued.

        Returns:
            A list of ``(id, status)``. ``status['pending']`` is the label of the running command, or the str
            ``'None'``; ``status['queue']`` the list of labels of the queued ones. If a command runs,
            ``status['seconds']`` is how long ago the engine received it. While large results are being transferred
            from the engine to clients, ``status['sending']`` lists them. With ``block=False``, a
            :class:`PendingResult` of it.
        """
        wanted = self._wanted(targets)

        def finish(rows: list[Any]) -> list[Any]:
            return queue_statuses(rows, wanted)

        return self._request(lambda i: messages.QueueStatus(i, wanted), finish, block, "queue_status")

    @overload
    def clear_queue(self, targets: Targets | None = None, *, block: Literal[True]) -> list[None]: ...
    @overload
    def clear_queue(
        self, targets: Targets | None = None, *, block: Literal[False]
    ) -> PendingResult[list[None]]: ...
    @overload
    def clear_queue(self, targets: Targets | None = None, block: bool | None = None) -> Any: ...
    def clear_queue(self, targets: Targets | None = None, block: bool | None = None) -> Any:
        """Remove the queued commands of engines; running commands are not affected.

        Callers of the removed commands get :class:`~ipmpi.errors.QueueCleared`.

        Returns:
            ``[None, ...]``, one per engine. With ``block=False``, a :class:`PendingResult` of it.
        """
        wanted = self._wanted(targets)
        return self._request(lambda i: messages.ClearQueue(i, wanted), _nones, block, "clear_queue")

    @overload
    def kill(
        self, controller: bool = False, targets: Targets | None = None, *, block: Literal[True]
    ) -> list[None]: ...
    @overload
    def kill(
        self, controller: bool = False, targets: Targets | None = None, *, block: Literal[False]
    ) -> PendingResult[list[None]]: ...
    @overload
    def kill(self, controller: bool = False, targets: Targets | None = None, block: bool | None = None) -> Any: ...
    def kill(self, controller: bool = False, targets: Targets | None = None, block: bool | None = None) -> Any:
        """End engine processes.

        Args:
            controller: end all engines, then the controller; ``targets`` is ignored.
            targets: the engines to end.
            block: whether to wait.

        Returns:
            ``[None, ...]``, one per engine. With ``block=False``, a :class:`PendingResult` of it.

        Raises:
            TypeError: ``controller`` is not a bool.
        """
        if not isinstance(controller, bool):
            raise TypeError(
                f"kill(controller={given.shown(controller)}): controller is True or False; True ends all engines "
                "and the controller. For some engines: kill(targets=[0, 1])"
            )
        wanted = None if controller else self._wanted(targets)
        return self._request(lambda i: messages.Kill(i, wanted, controller), _nones, block, "kill")

    def snapshot(
        self,
        names: str | Sequence[str] | None = None,
        targets: Targets | None = None,
        *,
        folder: str | os.PathLike[str] | None = None,
        before_walltime: float | None = None,
    ) -> Snapshot | None:
        """Save names of the engines' namespaces in files, for :meth:`restore` and :meth:`restart`; always blocks.

        Each engine writes a file of its own. All names of an engine are pickled together; those that cannot be
        pickled, such as generators and communicators, are left out and listed. When all engines have succeeded,
        older snapshots in the folder are removed.

        Args:
            names: the names to save; None for all that users have defined.
            targets: the engines.
            folder: where to save it, on the file system of the engines, which has to be shared if they may be on
                other machines later. None for a folder of this cluster in ``$IPYTHONDIR`` or ``~/.ipython``.
            before_walltime: do not take it now, but so many seconds before the job of the engines ends; as
                :meth:`before_walltime`.

        Returns:
            A :class:`Snapshot`: what was saved, and what was not and why. None with ``before_walltime``.

        Raises:
            TypeError, ValueError: an argument is of the wrong type, or out of range.
            CompositeError: an engine could not write its file. The snapshot before it is kept.
        """
        wanted, chosen = self._wanted(targets), checked_names(names)
        snapshots = Snapshots(self._calls, folder)
        if before_walltime is None:
            return snapshots.take(wanted, chosen)
        snapshots.take_before_end(wanted, chosen, checked_seconds(before_walltime))
        return None

    def restore(self, targets: Targets | None = None, *, folder: str | os.PathLike[str] | None = None) -> Restored:
        """Define the names again that the last snapshot has of each engine; always blocks.

        It is the last one that all of these engines have. Other names on the engines stay.

        Args:
            targets: the engines; they find their snapshots by their ids.
            folder: as for :meth:`snapshot`.

        Returns:
            A :class:`Restored`: what the engines have again, and what was not in the snapshot.

        Raises:
            ClientError: there is no snapshot that all of these engines have.
            CompositeError: an engine could not read its file.
        """
        wanted = self._wanted(targets)
        restored = Snapshots(self._calls, folder).restore(wanted)
        if restored is None:
            raise nothing_saved(wanted)
        return restored

    def restart(
        self,
        targets: Targets | None = None,
        *,
        restore: bool = True,
        folder: str | os.PathLike[str] | None = None,
        timeout: float | None = None,
    ) -> Restarted:
        """End engines at once, whatever they do, and start them again; blocks until they are there.

        All engines that were started together are restarted: a communicator is of all its ranks or of none. They
        get the same ids, in the same job, by the same launcher. Commands that run or wait there fail with
        :class:`~ipmpi.errors.EngineLost`; tasks go back to the queue.

        Then the names in the last :meth:`snapshot` are defined again, if there is one that all of them have.

        Args:
            targets: the engines to restart, and all that were started with them.
            restore: whether to restore the snapshot.
            folder: as for :meth:`snapshot`.
            timeout: seconds to wait for the engines; None for two minutes.

        Returns:
            A :class:`Restarted`: which engines, how long it took, and what was restored.

        Raises:
            ClientError: nobody would start them again, because they were started by hand or their job is about to
                end. No engine has ended then.
            EngineLost: some have not come again in time.
        """
        snapshots = Snapshots(self._calls, folder) if restore else None
        return restart(self._calls, self._wanted(targets), given.waiting_time(timeout), snapshots)

    def interrupt(self, targets: Targets | None = None) -> list[int]:
        """Raise KeyboardInterrupt in the commands that engines are running.

        Blocks, for about three seconds at most. Prints a line about engines that were busy and did not react, what
        they are in, and what would end that: a call into C code or MPI is interrupted only when it returns.

        Args:
            targets: the engines to interrupt.

        Returns:
            The ids of the engines whose command has ended.
        """
        wanted = self._wanted(targets)
        ended, stuck = self._request(lambda i: messages.Interrupt(i, wanted), list, True, "interrupt")
        if stuck:
            runs = stuck[0][1] if len(stuck) == 1 else f"{stuck[0][1]} and others"
            ids = sorted(engine for engines, _ in stuck for engine in Ids.unpacked(engines))
            say(not_reacting(ids, runs, self._calls.settings.why(ids) if self._calls.settings.why else ""))
        return list(Ids.unpacked(ended))

    def free(self, targets: Targets | None = None) -> Freed:
        """Free engines that wait in ``MPI.COMM_WORLD`` for one that does not come, by revoking it; always blocks.

        It takes Open MPI 5 with fault tolerance, and an engine of their set that is free, usually the one that
        has failed. Calls in that communicator end with an exception on all ranks, those of C libraries, too.
        Afterwards ``MPI.COMM_WORLD`` stands for a new communicator of the same ranks, wherever Python code has
        kept it. For C libraries it is lost for ever. Waits in ``comm`` need no freeing: :doc:`/howto/interrupt`

        Args:
            targets: the engines to free, and all that were started with them.

        Returns:
            A :class:`Freed`: who was freed, who was not and why, and whether there is a new communicator.

        Raises:
            ClientError: no engine of the set is free, or their MPI cannot do that. Nothing has happened then.
        """
        check_waiting()
        return free(self._calls.session, self._wanted(targets))

    def debug(self, engine: int | None = None) -> None:
        """Open a debugger on an engine: pdb, IPython's where it is installed there.

        If user code has stopped at a ``breakpoint()`` in a command of this client, that debugger is opened. Else
        it is one in the frames of the last exception that a command has raised on the engine; their variables are
        kept until another command raises, or :meth:`reset`. Blocks until the debugger is left.

        Args:
            engine: the engine; None for all whose debuggers wait, one after the other.

        Raises:
            ClientError: no engine is named, and no debugger waits.
            CompositeError: there was no exception in user code on the engine.
        """
        number = None if engine is None else given.whole_number(engine, "the engine to debug", 0, limits.ENGINE_ID)
        check_waiting()
        if self._calls.attend_debuggers(number):
            return
        if number is None:
            raise ClientError(
                "no debugger of a command of this client waits. To look at the last exception of an engine, name "
                "it: mec.debug(3)"
            )
        self._command(operations.PostMortem(), "debug", (number,), number, True)

    def debuggers_wait(self) -> bool:
        """Return whether a debugger in a command of this client waits for a line, without a request."""
        return bool(self._calls.session.debuggers())

    def complete(self, text: str) -> list[str]:
        """Return what the last word of a line of code can become on the engines, for completion by Tab.

        Asks one engine of :attr:`targets` that is idle, and waits for 0.3 s at most.

        Args:
            text: the line up to the cursor, for example ``'np.lin'`` or ``"table['te"``.

        Returns:
            Names, names with attributes (``'np.linalg'``), or keys; empty if no engine is idle.
        """
        return completions(self._calls, given.source(text, "the text to complete"), self._wanted(None))

    def describe(self, name: str, *, source: bool = False) -> str | None:
        """Return what there is to know of a name on the engines: type, value, signature, docstring.

        Asks one engine of :attr:`targets` that is idle, and waits for 0.3 s at most. User code does not run there,
        except the object's ``__repr__``.

        Args:
            name: a name, or a name with attributes: ``'np.linalg.norm'``.
            source: whether to show its source code, too.

        Returns:
            A text; None if there is no such name, or no engine is idle.
        """
        return description(self._calls, given.source(name, "the name"), self._wanted(None), bool(source))

    def _ipython_key_completions_(self) -> list[str]:
        """Return what Tab shows after ``mec['``: the names of an idle engine."""
        return completions(self._calls, "", self._wanted(None))

    def log(self, targets: Targets | None = None) -> dict[int, str]:
        """Return what engines have printed while they ran no command: in tasks, in threads, by programs they left.

        Their node agents answer, so it does not matter what the engines do. They keep the last 4 MiB of a node; of
        each engine the last 16 KiB are returned. Always blocks, for about five seconds at most.

        Args:
            targets: the engines to ask about.

        Returns:
            The text, by engine id; prints a line about engines whose agents have not answered.
        """
        found: dict[int, str] = {}
        answers, silent = self._ask_agents(inquiries.ReadLog(_LOG), targets, "log")
        for engines, answer in answers:
            if isinstance(answer, inquiries.RankLog):
                found.update(dict.fromkeys(engines, answer.text.decode(errors="backslashreplace")))
        if silent:
            say(f"the node agents of {engines_named(silent)} have not answered within {limits.INQUIRY:.0f} s")
        return dict(sorted(found.items()))

    def where(self, targets: Targets | None = None, *, native: bool = False) -> Whereabouts:
        """Say where engines are: in which function and line, since when, or that they are idle or stopped.

        Their node agents read it from outside, so it does not matter what the engines do: wait inside MPI, hold
        the interpreter in C code, or nothing at all as their process is stopped. They do not notice it. Always
        blocks, for a fraction of a second, and for about five seconds at most.

        Args:
            targets: the engines to ask about.
            native: also show functions of C, such as those of MPI. For that, each engine is halted for some
                milliseconds.

        Returns:
            A :class:`Whereabouts`, shown as one line for each place: ``[0-62]  heat.py:41 in step:
            comm.Allreduce(a, b)  (execute, 31 s)``. It is a dict of stacks by engine id; ``groups`` has equal
            ones once.
        """
        if not isinstance(native, bool):
            raise TypeError(f"where(native={given.shown(native)}): native is True or False")
        answers, silent = self._ask_agents(inquiries.ReadStacks(native), targets, "where")
        own = [(ids, with_own_lines(each)) for ids, each in answers if isinstance(each, inquiries.RankStack)]
        return Whereabouts(by_engine(own), silent)

    def profile(
        self, seconds: float = 5.0, targets: Targets | None = None, *, every: float = 0.1, native: bool = False
    ) -> Profile:
        """Find out where engines spend their time, by asking again and again where they are. Always blocks.

        Start what is to be looked at before, with ``block=False``, or in another client. The engines do not notice
        it, but their node agents need processor time for it: about 2 ms for each engine and question.

        Args:
            seconds: how long to look; Ctrl-C ends it earlier.
            targets: the engines to look at.
            every: seconds from one question to the next.
            native: also see MPI calls on communicators other than ``comm`` and those of tasks; see :meth:`where`.

        Returns:
            A :class:`Profile`, shown as a table: the share of time in each MPI call and in other code, with the
            engines that have the least and the most of it, and the lines of your code that take longest. It can be
            saved for speedscope, and plotted.

        Raises:
            TypeError, ValueError: an argument is not possible.
        """
        length, interval = given.seconds(seconds, "seconds"), given.seconds(every, "every")
        if length is None or interval is None:
            raise TypeError("profile() takes a number of seconds, and how many there are between two questions")
        if not isinstance(native, bool):
            raise TypeError(f"profile(native={given.shown(native)}): native is True or False")
        wanted: Targets | None = self._wanted(targets)

        def ask() -> Whereabouts:
            return self.where("all" if wanted is None else wanted, native=native)

        return sampled(ask, length, interval)

    def _ask_agents(
        self, question: inquiries.Question, targets: Targets | None, method: str
    ) -> tuple[list[tuple[list[int], inquiries.Answer]], list[int]]:
        wanted, asked = self._wanted(targets), inquiries.encode(question)
        answers, silent = self._request(lambda i: messages.AskAgents(i, wanted, asked), list, True, method)
        told = [(list(Ids.unpacked(engines)), inquiries.decode_answer(answer)) for engines, answer in answers]
        return told, list(Ids.unpacked(silent))

    def recent_outputs(self, since: Since | None = None) -> list[RecentOutput]:
        """Return what engines have printed for commands lately, oldest first.

        Args:
            since: None for the last 50 commands of this client; nothing is asked then. Otherwise what was printed
                after a moment for all clients with the same furl, also for those that are gone, as far as the
                controller keeps it. The moment is a time (a ``datetime``, or ``'10:30'``, ``'2026-11-27 18:04'``),
                how long ago (seconds, or ``'15m'``, ``'2h'``), or ``'last'``: when a client before this one was
                heard of last. Times are those of the controller's clock.

        Returns:
            For each command when it began, its label, and its output.

        Raises:
            TypeError, ValueError: ``since`` is nothing of that kind.
        """
        return self._calls.recent.all() if since is None else outputs_since(self._calls, since)

    def cluster_info(self) -> dict[str, Any]:
        """Return what the controller knows about its engines and clients. Always blocks.

        Returns:
            A dict: ``'engines'``, a list of dicts (``id``, ``rank``, ``set``, ``host``, ``pid``, ``mpi``,
            ``python``, ``job``: the batch system's job id, ``time_left``: seconds until the job ends, or None);
            ``'clients'``, the list of the clients' roles; ``'up'``, seconds since the controller started;
            ``'time'``, its clock in seconds since the epoch; ``'version'``, its version of ipmpi.
        """
        return cluster_info(self._calls, self)

    def time_left(self, targets: Targets | None = None) -> float | None:
        """Return the seconds until the first of these engines' jobs ends. Always blocks.

        Args:
            targets: the engines to consider.

        Returns:
            Seconds, a float; None if no end is known.

        Raises:
            InvalidEngineID: an engine is not registered.
            NoEnginesRegistered: no engine is registered.
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


def _nones(engines: Any) -> list[None]:
    return [None] * len(Ids.unpacked(engines))
