"""``attach()``: the ranks of a program meet the agents of their nodes, which are started for that.

It is collective over the communicator. Whatever goes wrong on one rank, all ranks go on, without being steered.
"""

from __future__ import annotations

import os
import secrets
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ..engine.agent.meeting import Conversation
from ..engine.agent.tree import place
from ..engine.agent.watch import parent_launcher
from ..engine.mpi.joined import alone, join_program
from ..engine.mpi.world import World
from ..engine.rank.controlblock import ControlBlock
from ..engine.rank.outputpipes import OutputPipes
from ..engine.rank.ownstack import allow_tracing_by
from ..environment import walltime
from ..errors import ClientError, KernelError, LauncherError
from ..protocol import rankmessages as rm
from ..record import Record
from ..transport.agentsocket import meet_agent
from ..transport.packets import RankSocket, Socket
from .connection import Connection, hello
from .program import Steering
from .starting import start

OFF: Final = "IPMPI_STEERING"
"""Set to ``off`` in the environment, programs are not steered."""

_attached: list[Steering] = []
"""The one that this process has, or had."""


def attach(
    comm: Any = None,
    *,
    furl_file: str = "",
    name: str = "",
    program: str = "",
    proxy: str | None = None,
    patience: float = 120.0,
    replay: Record | str | None = None,
    **parameters: Any,
) -> Steering:
    """Let clients steer this program. Collective over ``comm``; call it in the main thread, once MPI has started.

    Args:
        comm: the ranks that are steered together, a communicator of mpi4py; None for all.
        furl_file: the controller's furl file or furl; by default the one that ``ipengine`` would use.
        name: the controller's name, instead of a furl file.
        program: what the program is called; by default as its file.
        proxy: the HTTP proxy to reach the controller through; None for that of the environment.
        patience: seconds that ranks hold for one that does not end its step, before all go on and the client gets
            an error.
        replay: the record of an earlier run, or its file: what was changed then is changed again, at the same
            steps.
        parameters: names and values of what clients may change while the program runs.

    Returns:
        What the loop uses. It works also without a controller, and if anything about steering fails: then a
        sentence is printed by rank 0, and the program runs as if it were not there.

    Raises:
        ClientError: an argument cannot be used.
    """
    program = program or Path(sys.argv[0] if sys.argv and sys.argv[0] else "program").name
    record = Record.load(replay) if isinstance(replay, str) else replay
    trouble = _unusable()
    if trouble and not _others_may_wait(comm):
        world = alone(comm, os.environ)
        if world.rank == 0 or not _is_off():  # all ranks have that variable, and perhaps not the other troubles
            _say(trouble)
        return _unsteered(parameters, world, program, record)
    world = join_program(comm, os.environ)
    troubles = world.exchange(trouble)
    if any(troubles):
        first = next(rank for rank, text in enumerate(troubles) if text)
        if world.rank == first:
            _say(troubles[first] if all(troubles) else f"on rank {first}, {troubles[first]}")
        return _unsteered(parameters, World(rank=world.rank, size=world.size), program, record)
    settings = {
        "furl_file": _absolute(furl_file), "name": name, "proxy": proxy, "program": program,
        "patience": float(patience), "launcher": parent_launcher(os.getpid()),
    }  # fmt: skip
    connection, trouble = _meet(world, settings)
    if trouble and world.rank == 0:
        _say(trouble)
    steering = Steering(parameters, world, connection, program=program, replay=record)
    steering.show_arrays()
    _attached[:] = [steering]
    return steering


def _unsteered(parameters: dict[str, Any], world: World, program: str, record: Record | None) -> Steering:
    steering = Steering(parameters, world, program=program, replay=record)
    if not _attached or _attached[0].is_over:
        steering.show_arrays()
    return steering


def _others_may_wait(comm: Any) -> bool:
    """Return whether other ranks may be attaching at this moment, which wait until this one joins them."""
    mpi = sys.modules.get("mpi4py.MPI")
    if _is_off() or mpi is None or not mpi.Is_initialized() or mpi.Is_finalized():
        return False
    comm = mpi.COMM_WORLD if comm is None else comm
    if not isinstance(comm, mpi.Intracomm) or comm == mpi.COMM_NULL:
        return False
    if threading.current_thread() is not threading.main_thread():
        return bool(mpi.Query_thread() >= mpi.THREAD_SERIALIZED)
    # All ranks of the first communicator have attached, so each of them says by itself that it did.
    return bool(_attached) and _has_others(mpi, comm, _attached[0].comm)


def _has_others(mpi: Any, comm: Any, known: Any) -> bool:
    """Return whether there are ranks in ``comm`` that are not in ``known`` (None: that is this process alone)."""
    if known is None:
        return bool(comm.Get_size() > 1)
    group, knowns = comm.Get_group(), known.Get_group()
    others = mpi.Group.Difference(group, knowns)
    found = bool(others.Get_size())
    for each in (group, knowns, others):
        each.Free()
    return found


def _is_off() -> bool:
    return os.environ.get(OFF, "").lower() in ("off", "0", "no")


def _unusable() -> str:
    """Return why this process cannot be steered."""
    if _is_off():
        return f"{OFF} is set to off"
    if threading.current_thread() is not threading.main_thread():
        return (
            "attach() was called in a thread, and clients' commands run in the main thread of a program: call it "
            "there, where the loop is"
        )
    if _attached and not _attached[0].is_over:
        return (
            "attach() was called before, and its with-statement has not ended: use what it has returned, or call "
            "its detach() first"
        )
    return ""


def _say(trouble: str) -> None:
    print(f"ipmpi: the program runs without being steered: {trouble}", file=sys.stderr, flush=True)


def _absolute(furl_file: str) -> str:
    is_path = furl_file and "://" not in furl_file
    return os.path.abspath(os.path.expanduser(furl_file)) if is_path else furl_file


def _meet(world: World, settings: dict[str, Any]) -> tuple[Connection | None, str]:
    """Meet the agents, on all ranks or on none; return why not, or ""."""
    leaders = world.leaders if world.mpi is not None else [0]
    is_leader = leaders[world.rank] == world.rank
    talk: Conversation | None = None
    address, problem = f"{os.geteuid()}-program-{secrets.token_hex(16)}", ""
    if is_leader:
        talk, problem = _attempt(lambda: _find(address, settings))
    told = world.exchange((address, problem))
    address = told[leaders[world.rank]][0]
    if not any(problem for _, problem in told) and not is_leader:
        talk, problem = _attempt(lambda: _find(address, None))
    connection: Connection | None = None
    if talk is not None and not any(problem for _, problem in told):
        found = talk
        connection, problem = _attempt(lambda: _introduce(world, found, leaders))
    problems = [text for text in world.exchange(problem) if text]
    problems += [problem for _, problem in told if problem]
    if not problems and len(set(leaders)) > 1 and talk is not None:
        problem = _link_nodes(world, talk, leaders)
        problems = [text for text in world.exchange(problem) if text]
    if problems:
        if talk is not None:
            talk.socket.close()
        return None, problems[0]
    return connection, ""


def _attempt(what: Callable[[], Any]) -> tuple[Any, str]:
    try:
        return what(), ""
    except (KernelError, OSError, MemoryError) as error:
        return None, f"on {os.uname().nodename}: {error}"


def _find(address: str, settings: dict[str, Any] | None) -> Conversation:
    """Connect to the agent of this node, which is started if there are ``settings``."""

    def begin(sock: Socket) -> None:
        if settings is None:
            raise LauncherError("the agent process of this node has ended")
        start(sock.fileno(), settings)

    return Conversation(RankSocket(meet_agent(address, begin)))


def _introduce(world: World, talk: Conversation, leaders: list[int]) -> Connection:
    greeting, files = talk.hear()
    for descriptor in files:  # of a lifeline: this process does not end with its agent
        os.close(descriptor)
    if not isinstance(greeting, rm.Greeting):
        raise LauncherError(f"the agent process of this node began with {type(greeting).__name__}")
    allow_tracing_by(greeting.agent)
    block, descriptor = ControlBlock.create()
    pipes = OutputPipes()
    talk.say(rm.OutputPipes(), pipes.read_ends)
    pipes.handed_over()
    left = walltime.exported(os.environ, time.time())
    talk.say(hello(world, leaders, left, walltime.job_id(os.environ)), (descriptor,))
    os.close(descriptor)
    return Connection(world, talk.socket, block, pipes, leaders.count(leaders[world.rank]))


def _link_nodes(world: World, talk: Conversation, leaders: list[int]) -> str:
    """Connect the agents of all nodes, as :meth:`Conversation.meet` does; also if one of them has ended."""
    rank, is_leader = world.rank, leaders[world.rank] == world.rank
    address: Any = None
    problem = ""
    if is_leader:
        address, problem = _attempt(lambda: _heard(talk, rm.Address).address)
    told = world.exchange((address, problem))
    addresses, problems = [each for each, _ in told], [text for _, text in told if text]
    trouble = ""
    if is_leader and not problems:
        above = place(rank, leaders).above
        talk.say(rm.Above("" if above is None else addresses[above]))
        trouble, problem = _attempt(lambda: _heard(talk, rm.Met).trouble)
    both = world.exchange((trouble or "", problem))
    troubles, problems = [text for text, _ in both if text], [*problems, *(text for _, text in both if text)]
    if is_leader and not problems:
        talk.say(rm.Formed(not troubles, troubles[-1] if troubles else ""))
    return problems[0] if problems else ""


def _heard(talk: Conversation, kind: type[Any]) -> Any:
    message, _ = talk.hear()
    if not isinstance(message, kind):
        raise ClientError(f"the agent process of this node said {type(message).__name__}, and not {kind.__name__}")
    return message
