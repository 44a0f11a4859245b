"""``ipengine``: one engine, or with ``mpirun -n N ipengine`` a set of N behind one link."""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import logging
import os
import platform
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import __version__, communicator, folders
from ..engine.agent.launchid import launch_id, local_size, number_together
from ..engine.agent.meeting import Conversation, leaders_of
from ..engine.agent.watch import parent_launcher
from ..engine.mpi.world import COMMS, MODES, World, host_and_pid, start_world
from ..engine.rank.callring import CallRing
from ..engine.rank.controlblock import ControlBlock
from ..engine.rank.hiddenvariables import hide_rank_variables
from ..engine.rank.interrupts import record_signals
from ..engine.rank.lifeline import Lifeline
from ..engine.rank.outputpipes import OutputPipes
from ..engine.rank.ownstack import StackSignal, allow_tracing_by
from ..engine.rank.rank import Rank
from ..engine.rank.snapshotfiles import SnapshotFiles
from ..engine.session import importhooks
from ..engine.session.namespace import Namespace
from ..environment import gpus, mpienv, walltime
from ..errors import KernelError
from ..exits import ABORT
from ..ownpath import add_current_folder, forget_current_folder
from ..protocol import rankmessages as rm
from ..protocol.losses import LOSS_MODES
from ..transport.agentsocket import meet_agent
from ..transport.packets import RankSocket, Socket
from . import argtypes
from .boundedlog import bound_log_files
from .logs import crash_file, start_log
from .ownlimits import guard_secrets_and_allow_links

log = logging.getLogger("ipengine")

_FINALIZE_TIMEOUT = 5.0
_AGENT_ENDS_WITHIN = 2.0
"""Seconds that a rank waits for the end of its agent."""
_PR_SET_PDEATHSIG = 1


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argtypes.Parser(
        prog="ipengine",
        description="Start an engine. Under mpirun, mpiexec or srun all ranks become one engine set, "
        "with one connection to the controller: a process beside them, which the first of them starts, has it.",
    )
    p.add_argument(
        "--furl-file", type=argtypes.furl_or_path, default="", metavar="FILE",
        help="the controller's furl file (default: ipcontroller-engine.furl in ~/.ipython/security)",
    )  # fmt: skip
    p.add_argument(
        "--mpi", default="auto", choices=MODES,
        help="auto: join the communicator if an MPI launcher started this; none: each engine by itself",
    )  # fmt: skip
    _add_set_options(p)
    p.add_argument(
        "--name", type=argtypes.cluster_name, default="", metavar="NAME",
        help="the controller's name, instead of a furl file",
    )  # fmt: skip
    p.add_argument(
        "-l", "--logfile", type=argtypes.path_name, default="", metavar="PREFIX",
        help="log to PREFIX<host>-<rank>-<pid>.log only (default: to log/NAME/ipengine-<host>-<rank>-<pid>.log in "
        "$IPYTHONDIR or ~/.ipython, and to the terminal)",
    )  # fmt: skip
    p.add_argument(
        "--walltime", type=argtypes.walltime, default=None, metavar="TIME",
        help="this job ends so long after the engine has started: 90m, 1h30m, 1:30:00, 1-12:00:00 with days, or "
        "seconds (default: what the job script exports as IPMPI_JOB_END, or what Slurm or PBS say)",
    )  # fmt: skip
    p.add_argument(
        "--gpus", type=argtypes.gpus, default=None, metavar="N",
        help="a node has N GPUs: share them among its ranks, before MPI starts. A list like 3,2,1,0 says in which "
        "order ranks get them",
    )  # fmt: skip
    p.add_argument(
        "--wait",
        type=argtypes.seconds_or_none,
        default=0.0,
        metavar="S",
        help="wait so long for the controller to appear",
    )
    p.add_argument(
        "--ids-dir", type=argtypes.path_name, default="", metavar="DIR",
        help="keep the ids of this set in DIR until it is told to end, and ask for those that are in DIR.before; "
        "job scripts start a set again that has died",
    )  # fmt: skip
    p.add_argument(
        "--proxy", type=argtypes.proxy, default=None, metavar="URL",
        help="HTTP proxy to reach the controller through, as http://host:port; none: no proxy (default: that of "
        "https_proxy or all_proxy in the environment, where the direct way fails)",
    )  # fmt: skip
    p.add_argument("--version", action="version", version=f"ipmpi {__version__}")
    return p


def _add_set_options(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--comm", default="plain", choices=COMMS,
        help="polled: MPI.COMM_WORLD is the communicator that user code also has as comm, whose waits end when "
        "another rank fails; small collectives then take longer. plain: it is as MPI made it",
    )  # fmt: skip
    p.add_argument(
        "--on-loss", choices=LOSS_MODES, default=LOSS_MODES[0],
        help="what becomes of the set when one of its engines dies. shrink: the others go on, if the launcher "
        "lets them; abort: they end as well; restart: all are started again by what has given --ids-dir",
    )  # fmt: skip


class EngineProcess:
    """One rank: user code in its only thread, and a socket to the agent of its node.

    Args:
        talk: the conversation with the agent.
        lifeline: descriptor of the pipe that signals the end of the agent.
        expected: number of ranks on this node, if they share no communicator.
        ends_at: when the job ends, on the monotonic clock; None if unknown.
        launcher: the process that started this one; 0 if it is no launcher.
        comm: one of :data:`~ipmpi.engine.mpi.world.COMMS`.
    """

    def __init__(
        self,
        world: World,
        talk: Conversation,
        token: bytes,
        lifeline: int,
        expected: int,
        ends_at: float | None = None,
        launcher: int = 0,
        comm: str = "plain",
    ) -> None:
        self.world = world
        self._talk = talk
        host, pid = host_and_pid()
        block, descriptor = ControlBlock.create()
        world.note_aborts(lambda code: _note_abort(block, code))
        # Collective: every rank gets the nodes of all ranks, and the end of the job from the first rank.
        left = None if ends_at is None else ends_at - time.monotonic()
        said = world.exchange((token, left))
        leaders = leaders_of([token for token, _ in said]) if world.mpi is not None else []
        left = said[0][1]
        if left is not None:
            os.environ[walltime.JOB_END] = f"{time.time() + left:.0f}"  # for user code
        is_leader = not leaders or leaders[world.rank] == world.rank
        here = leaders.count(leaders[world.rank]) if leaders else expected
        self._pipes = OutputPipes()
        talk.say(rm.OutputPipes(), self._pipes.read_ends)
        self._pipes.handed_over()
        self._stack_signal = StackSignal()
        talk.say(rm.StackPipe(self._stack_signal.number), (self._stack_signal.read_end,))
        self._stack_signal.handed_over()
        # The set may be used before this rank is ready: its user hears why it ends.
        signal.signal(signal.SIGTERM, lambda *_: talk.say(rm.Signalled("SIGTERM")))
        talk.say(
            rm.RankHello(
                world.rank if world.mpi is not None else world.wanted, world.rank if world.mpi else world.wanted,
                host, pid, here, leaders if is_leader else [], world.mpi is not None, world.description,
                platform.python_version(), left, walltime.job_id(os.environ), launcher,
                mpienv.batch_node(os.environ),
            ),
            (descriptor, crash_file(), record_signals()),
        )  # fmt: skip
        os.close(descriptor)
        if leaders:
            talk.meet(world.rank, leaders, host, world.exchange)
        world.record_calls(CallRing(block.calls))
        namespace = Namespace(-1, world.mpi)
        namespace.snapshots = SnapshotFiles()
        namespace.revoker = world.make_revoker()
        namespace.install_as_main()
        importhooks.install()
        self.rank = Rank(
            namespace, talk.socket, block, world.rank, world.make_teams, _log_id, _log_note,
            here, Lifeline(lifeline, _log_file()), self._pipes, world.make_shared,
        )  # fmt: skip
        if self.rank.comm is not None:
            communicator.provide(self.rank.comm, world.mpi, world.whole)
            if comm == "polled":
                world.replace_by_shared()

    def run(self) -> int:
        """Run until stopped; return the exit code."""
        self.rank.install_signals()
        self._pipes.install()
        stop = self.rank.run()
        self._pipes.close()
        log.info("stopping: %s", stop.reason)
        if stop.words:
            print(stop.words, file=sys.stderr, flush=True)
        self._talk.say(rm.Leaving())
        self._talk.socket.wait_for_end(_AGENT_ENDS_WITHIN)
        self.rank.close()
        sys.stdout.flush()
        if stop.at_once:
            # Other ranks may be inside a collective: only the launcher can end them all.
            logging.shutdown()
            os._exit(stop.code)
        # MPI_Finalize waits for all ranks and holds the GIL, so a Python thread could not end the wait.
        with open(os.devnull, "w", encoding="ascii") as nowhere:
            faulthandler.dump_traceback_later(_FINALIZE_TIMEOUT, exit=True, file=nowhere)
            self.world.finalize()
            faulthandler.cancel_dump_traceback_later()
        return stop.code


def _note_abort(block: ControlBlock, code: int) -> None:
    """User code calls MPI_Abort: tell the agent, whatever becomes of this process now."""
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        os.write(crash_file(), f"{ABORT}\n".encode())
        faulthandler.dump_traceback(crash_file(), all_threads=False)
    block.aborts(code)


def _log_id(number: int) -> None:
    log.info("engine registration succeeded, got id: %d", number)


def _log_note(text: str) -> None:
    log.info("%s", text)


def _log_file() -> Any:
    """Return the file for the stack of a rank that ends because its agent has ended."""
    for handler in logging.getLogger().handlers:
        stream = getattr(handler, "stream", None)
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.fileno()  # type: ignore[union-attr]
            return stream
    return sys.stderr


def _meet_agent(options: argparse.Namespace, furl_file: Path | None, launcher: int) -> Conversation:
    """Connect to the agent of this node, which is started if necessary."""

    def start(sock: Socket) -> None:
        # Imported here: one rank of a node does this.
        from ..engine.agent.agentstart import start_agent

        start_agent(sock.fileno(), lambda descriptor: _be_agent(options, furl_file, descriptor))

    return Conversation(RankSocket(meet_agent(launch_id(os.environ, launcher), start)))


def _be_agent(options: argparse.Namespace, furl_file: Path | None, descriptor: int) -> int:
    """Run the agent in the forked process; return its exit code."""
    forget_current_folder()
    root = logging.getLogger()
    _of_rank.extend(root.handlers)  # not closed: their descriptors may belong to other files
    root.handlers.clear()
    start_log(options.logfile, "ipengine", "agent", furl_file)
    bound_log_files()
    # Imported here: only the agent needs these, and OpenSSL.
    from ..engine.agent.nodeagent import AgentSettings, NodeAgent

    guard_secrets_and_allow_links()
    settings = AgentSettings(
        options.furl_file, options.name, options.proxy, options.wait, str(_furl_file(options)), options.ids_dir,
        options.on_loss,
    )  # fmt: skip
    log.info("pid %d, the agent of this node", os.getpid())
    agent = NodeAgent(
        descriptor, settings, lambda text: log.info("%s", text), lambda text: log.warning("%s", text)
    )
    agent.loop.wake_on_signals()
    signal.signal(signal.SIGTERM, lambda *_: agent.loop.call_threadsafe(agent.terminated))
    code = agent.run()
    logging.shutdown()
    return code


_of_rank: list[logging.Handler] = []
"""Log handlers of the rank that forked the agent; referenced so that they are not closed."""


def _die_with(parent: int) -> None:
    """Have the system kill this process when the launcher ends, even while C code holds the GIL.

    The system watches the launcher's thread that started us, which may end before the launcher. So this is done
    only if Linux shows that it was the main thread; the node agent watches the launcher as well.
    """
    try:
        with open(f"/proc/{parent}/task/{parent}/children", encoding="ascii") as file:
            if str(os.getpid()) not in file.read().split():
                return
        # Imported here, as each import costs time on a thousand ranks; numpy imports it anyway.
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    except (OSError, ImportError, AttributeError) as error:
        log.info("the system cannot end this process together with its launcher: %s", error)


def _furl_file(options: argparse.Namespace) -> Path:
    """Return the controller's furl file: the given one, or by the name of the cluster."""
    if options.furl_file:
        return Path(options.furl_file if "://" not in options.furl_file else "given").expanduser()
    return (
        folders.cluster_furl_file("engine", options.name) if options.name else folders.default_furl_file("engine")
    )


def _find_end(option: float | None, launched: mpienv.LaunchedRank | None) -> float | None:
    """Return when this job ends, on the monotonic clock. Rank 0 also asks the batch system, before MPI starts."""
    now, first = time.monotonic(), launched is None or launched.rank == 0
    left = walltime.exported(os.environ, time.time()) if option is None else option
    if left is None and first and walltime.is_in_job(os.environ):
        # Only here, as each import costs on a thousand ranks.
        from .askjob import ask

        left = ask(os.environ, log.info)
        now = time.monotonic()
    if left is not None and first:
        log.info("this job ends in %.0f s", left)
    return None if left is None else now + left


def _take_gpus(numbers: Sequence[str], launched: mpienv.LaunchedRank | None) -> None:
    chosen = gpus.variables(numbers, launched, os.environ)
    os.environ.update(chosen)
    said = ", ".join(f"{name}={value}" for name, value in chosen.items())
    log.info("GPUs of this rank: %s", said or "as they are, since the launcher has shared them out")


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    known = parser()
    options = known.parse_args(argv)
    if options.on_loss == "restart" and not options.ids_dir:
        known.error(
            "--on-loss restart: nobody would start these engines again. `ipcluster` and its job scripts do: give "
            "the option to them"
        )
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run an engine; return the exit code."""
    options = _parsed(argv)
    add_current_folder()  # for users' modules
    launched = mpienv.detect(os.environ)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Output of tasks and threads goes to the log; a killed process could not flush it.
        sys.stdout.reconfigure(line_buffering=True)

    def warn(text: str) -> None:
        if launched is None or launched.rank == 0:
            print(f"ipengine: {text}", file=sys.stderr, flush=True)

    try:
        rank = None if launched is None else launched.rank
        furl_file = None if options.logfile else _furl_file(options)
        start_log(options.logfile, "ipengine", rank, furl_file)
        bound_log_files()
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # a warning, which would end a process without a handler
        ends_at = _find_end(options.walltime, launched)
        expected = local_size(os.environ) or 1
        launcher = parent_launcher(os.getpid())
        parent = os.getppid()
        talk = _meet_agent(options, furl_file, launcher)  # before MPI, which the agent must not have
        if options.gpus:
            _take_gpus(options.gpus, launched)
        world = start_world(options.mpi, launched, sys.executable, warn)
        if launched is None and world.mpi is None:
            world.wanted = number_together(os.environ)
        greeting, files = talk.hear()
    except KernelError as error:
        warn(str(error))
        log.error("%s", error)
        return 1
    assert isinstance(greeting, rm.Greeting)
    allow_tracing_by(greeting.agent)
    log.info("pid %d, %s", os.getpid(), world.description)
    if world.mpi is not None:
        log.info("MPI started with rank = %d and size = %d", world.rank, world.size)
    elif launched is not None and options.mpi == "auto":
        warn(f"{world.description}; the engines share no communicator")
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    # After MPI_Init, which needs them; child processes of user code must not have them.
    hide_rank_variables()
    if launched is not None:
        _die_with(parent)
    try:
        process = EngineProcess(
            world, talk, greeting.token, files[0], expected, ends_at, launcher if launched is not None else 0,
            options.comm,
        )  # fmt: skip
    except KernelError as error:
        log.error("%s", error)
        print(f"ipengine: {error}", file=sys.stderr, flush=True)
        logging.shutdown()
        os._exit(1)  # MPI_Finalize would deadlock; the launcher ends the other ranks
    code = process.run()
    logging.shutdown()
    return code


if __name__ == "__main__":
    sys.exit(main())
